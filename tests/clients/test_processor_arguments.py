"""What a handler declares is what it gets."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict

import pytest
from pydantic import BaseModel

from processor_client import Context
from processor_client.arguments import PAYLOAD_NAMES, PayloadUndecodable, handler_call, hook_call
from taskq.v1.task_pb2 import Payload


@dataclass
class Dish:
    name: str
    servings: int = 1


class Order(TypedDict):
    table: int


class Guest(BaseModel):
    name: str


def call(function: Any, payload: object = None, **settings: Any) -> Any:
    whole = PAYLOAD_NAMES if settings.pop("of_a_task", False) else frozenset()
    return handler_call(function, whole=whole)(function, Context.fake(payload, **settings))


def test_the_keys_of_the_payload_bind_to_parameters() -> None:
    assert call(lambda dish, servings=1: (dish, servings), {"dish": "soup", "servings": 2}) == ("soup", 2)


def test_a_default_stands_in_for_a_missing_key() -> None:
    assert call(lambda dish, servings=1: (dish, servings), {"dish": "soup"}) == ("soup", 1)


def test_keys_that_nobody_asks_for_are_left_out() -> None:
    assert call(lambda dish: dish, {"dish": "soup", "table": 7}) == "soup"


def test_a_double_star_takes_the_remaining_keys() -> None:
    assert call(lambda dish, **rest: (dish, rest), {"dish": "soup", "table": 7}) == ("soup", {"table": 7})


def test_nothing_is_decoded_for_a_handler_that_takes_nothing() -> None:
    broken = Payload(data=b"{", content_type="application/json")
    context = Context.fake()
    context.raw_payload.CopyFrom(broken)

    def nothing() -> str:
        return "done"

    assert handler_call(nothing)(nothing, context) == "done"


@pytest.mark.parametrize("name", ["ctx", "context"])
def test_the_context_is_passed_by_name(name: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def handler(dish, *, {name}): return dish, {name}.task_id", scope)

    assert call(scope["handler"], {"dish": "soup"}, task_id="t1") == ("soup", "t1")


def test_the_context_is_passed_by_annotation() -> None:
    def handler(dish: str, me: Context) -> tuple[str, str]:
        return dish, me.task_id

    assert call(handler, {"dish": "soup"}, task_id="t1") == ("soup", "t1")


def test_a_context_that_may_be_missing_is_still_the_context() -> None:
    def handler(ctx: Context | None = None) -> bool:
        return ctx is not None

    assert call(handler, {"ctx": 1})


@pytest.mark.parametrize(
    ("annotation", "sent", "got"),
    [
        (Dish, {"name": "soup"}, Dish("soup", 1)),
        (Order, {"table": 7}, {"table": 7}),
        (Guest, {"name": "Ann"}, Guest(name="Ann")),
        (list[Dish], [{"name": "soup"}], [Dish("soup")]),
        (datetime, "2026-01-01T00:00:00+00:00", datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_an_annotated_parameter_is_decoded_into_its_type(annotation: Any, sent: object, got: object) -> None:
    def handler(thing: Any, other: int = 0) -> Any:
        return thing

    handler.__annotations__["thing"] = annotation

    assert call(handler, {"thing": sent}) == got


def test_a_parameter_alone_takes_a_payload_without_its_key_whole() -> None:
    def handler(args: Dish) -> Dish:
        return args

    assert call(handler, {"name": "soup", "servings": 2}) == Dish("soup", 2)
    assert call(handler, {"args": {"name": "stew"}}) == Dish("stew")


def test_a_payload_that_is_no_object_goes_to_the_only_parameter() -> None:
    assert call(lambda ctx, numbers: sum(numbers), [1, 2, 3]) == 6
    assert call(lambda data: data, b"raw") == b"raw"


def test_the_args_of_a_task_are_the_whole_payload() -> None:
    def process(ctx: Context, args: Dish) -> Dish:
        return args

    assert call(process, {"name": "soup"}, of_a_task=True) == Dish("soup")


def test_a_positional_only_parameter_is_bound_too() -> None:
    def handler(dish: str, /, servings: int) -> tuple[str, int]:
        return dish, servings

    assert call(handler, {"dish": "soup", "servings": 2}) == ("soup", 2)


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        ({"dish": "soup"}, "the payload has no servings; must be a JSON object with the keys dish, servings"),
        ([1], "the payload is list; must be a JSON object with the keys dish, servings"),
        (None, "the payload is empty; must be a JSON object with the keys dish, servings"),
    ],
)
def test_a_payload_that_does_not_fit_says_what_must_be(payload: object, sentence: str) -> None:
    with pytest.raises(PayloadUndecodable) as caught:
        call(lambda dish, servings: None, payload)

    assert str(caught.value) == sentence


def test_a_payload_of_the_wrong_shape_says_where() -> None:
    def handler(thing: Dish, other: int = 0) -> None: ...

    with pytest.raises(PayloadUndecodable, match="servings"):
        call(handler, {"thing": {"name": "soup", "servings": "two"}})


def test_a_hook_gets_what_it_declares() -> None:
    facts = {"ctx": "c", "result": "r", "error": "e"}

    def of(function: Any) -> Any:
        return hook_call(function, facts.keys())(function, facts)

    assert of(lambda: "nothing") == "nothing"
    assert of(lambda ctx: ctx) == "c"
    assert of(lambda result, *, ctx: (result, ctx)) == ("r", "c")
    assert of(lambda **all_of_them: all_of_them) == facts
    assert of(lambda other="mine": other) == "mine"


def test_a_hook_that_asks_for_what_nobody_has_is_refused_when_it_is_registered() -> None:
    with pytest.raises(TypeError, match=r"asks for 'outcome'; must be among ctx, result"):
        hook_call(lambda outcome: None, {"ctx", "result"})
