"""Kinds of task as functions: a call runs them, or is enqueued."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from client_core.payload import decode
from client_core.times import from_duration
from scheduler_client import Scheduler, Task


class Stew(Task):
    name = "unit.stew"


lazy = Scheduler()


@lazy.task("unit.cook", run_timeout="10m")
async def cook(dish: str, servings: int = 1, *, ctx: Any) -> str:
    """Cooks."""
    return f"{servings} x {dish}"


@lazy.task("unit.mix")
def mix(**parts: int) -> int:
    return sum(parts.values())


def test_a_function_keeps_what_it_is_and_says_what_a_processor_needs() -> None:
    assert cook.task_name == cook.name == "unit.cook"
    assert asyncio.iscoroutinefunction(cook.function)
    assert cook.__doc__ == "Cooks."
    assert cook.__name__ == "cook"


async def test_a_plain_call_runs_the_function() -> None:
    assert await cook("soup", 2, ctx=None) == "2 x soup"
    assert mix(a=1, b=2) == 3


def test_a_call_becomes_a_payload_of_its_arguments_without_the_context() -> None:
    message = cook.to_message("soup")
    assert message.name == "unit.cook"
    assert decode(message.payload) == {"dish": "soup"}
    assert from_duration(message.run_timeout) == timedelta(minutes=10)
    assert decode(cook.to_message(servings=3, dish="stew").payload) == {"dish": "stew", "servings": 3}
    assert decode(mix.to_message(a=1).payload) == {"a": 1}
    assert decode(mix.to_message().payload) == {}


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), (("a",), {"dish": "b"}), (("a",), {"salt": 1}), (("a",), {"ctx": 1})]
)
async def test_a_bad_argument_is_a_type_error_at_once(args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError):
        await cook.enqueue(*args, **kwargs)


def test_after_at_and_options_change_a_copy() -> None:
    later = cook.after("5m").options(key="order-42", priority=3)
    message = later.to_message(dish="soup")
    assert from_duration(message.delay) == timedelta(minutes=5)
    assert message.dedup.key == "order-42"
    assert message.priority == 3
    assert later.at(100).to_message(dish="soup").WhichOneof("when") == "due_time"
    assert cook.to_message(dish="soup").WhichOneof("when") is None
    assert later.task_name == "unit.cook"


def test_a_function_whose_arguments_have_no_names_is_refused() -> None:
    with pytest.raises(TypeError, match="has no name in a payload"):
        lazy.task("unit.star")(lambda *dishes: None)


def test_a_function_cannot_take_the_name_of_a_class() -> None:
    with pytest.raises(TypeError, match="belongs to Stew"):
        lazy.task("unit.stew")(lambda: None)
