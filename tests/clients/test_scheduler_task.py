"""Kinds of task, as a class and as a function; what they ask for, checked before anything is sent."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict
from uuid import UUID

import pydantic
import pytest

import scheduler_client
import scheduler_client.sync
from client_core.payload import decode
from client_core.times import from_duration, from_timestamp
from scheduler_client import InvalidArgument, Retry, Scheduler, Task, new_task
from scheduler_client.ids import firing_task_id, new_task_id
from taskq.v1.scheduler_service_pb2 import DedupConflict, DedupHold, GetTaskRequest
from taskq.v1.task_pb2 import RetryPolicy


class Soup(Task):
    name = "unit.soup"
    config = {"dish": "soup", "servings": 2}
    priority = 5
    requires = ["zone = eu-west", "!spot"]
    run_timeout = "10m"
    retry = Retry(max_attempts=3, initial_delay="2s", multiplier=1.5, max_delay="1m", jitter="equal")
    tags = ["vip"]
    headers = {"table": "4"}
    retention = "1h"


class LaterSoup(Task):
    name = "unit.later-soup"

    def __init__(self, when: Any) -> None:  # the original form: does not call ours
        self.when = when

    def schedule(self) -> Any:
        return self.when


def test_the_public_names_are_counted() -> None:
    assert scheduler_client.__all__ == [
        "TLS",
        "AlreadyExists",
        "Conflict",
        "DeadlineExceeded",
        "EnqueueManyFailed",
        "FailedPrecondition",
        "Failure",
        "FiringsNotSent",
        "FunctionTask",
        "Handle",
        "HandshakeFailed",
        "Internal",
        "InvalidArgument",
        "MainScheduler",
        "NotFound",
        "Outcome",
        "PermissionDenied",
        "Progress",
        "Recurring",
        "Rejected",
        "ResourceExhausted",
        "Retry",
        "Schedule",
        "Scheduler",
        "SyncReport",
        "Task",
        "TaskCancelled",
        "TaskFailed",
        "TaskState",
        "TaskView",
        "TaskqError",
        "Unauthenticated",
        "Unavailable",
        "cron",
        "every",
        "new_task",
        "on_dates",
        "register_codec",
    ]
    assert all(hasattr(scheduler_client, name) for name in scheduler_client.__all__)
    assert scheduler_client.sync.__all__ == ["Handle", "MainScheduler", "Scheduler", "Task"]


# what a class says is what is sent


def test_config_is_the_payload_and_keyword_arguments_override_and_add() -> None:
    message = Soup(dish="stew", spicy=True).to_message()
    assert decode(message.payload) == {"dish": "stew", "servings": 2, "spicy": True}
    assert Soup.config == {"dish": "soup", "servings": 2}
    assert decode(Soup().to_message().payload) == {"dish": "soup", "servings": 2}


def test_attributes_of_the_class_travel_with_the_task() -> None:
    message = Soup().to_message()
    assert message.name == "unit.soup"
    assert message.priority == 5
    assert list(message.requires) == ["zone = eu-west", "!spot"]
    assert from_duration(message.run_timeout) == timedelta(minutes=10)
    assert message.retry_policy.max_attempts == 3
    assert from_duration(message.retry_policy.initial_delay) == timedelta(seconds=2)
    assert message.retry_policy.jitter == RetryPolicy.JITTER_EQUAL
    assert list(message.tags) == ["vip"]
    assert dict(message.headers) == {"table": "4"}
    assert from_duration(message.retention) == timedelta(hours=1)
    assert not message.HasField("dedup")


def test_an_instance_and_a_single_enqueue_can_say_otherwise() -> None:
    soup = Soup()
    soup.priority = 6
    assert soup.to_message().priority == 6
    assert soup.options(priority=7, tags=None).to_message().priority == 7
    assert soup.options(priority=7).to_message(priority=8).priority == 8
    assert list(soup.options(tags=None).to_message().tags) == []
    assert soup.to_message().priority == 6


def test_a_positional_argument_is_the_payload_itself() -> None:
    assert Soup(b"raw").to_message().payload.data == b"raw"
    with pytest.raises(TypeError, match="not both"):
        Soup(b"raw", dish="x")


def test_every_enqueue_is_another_task_with_an_id_of_its_own() -> None:
    soup = Soup()
    assert soup.to_message().task_id != soup.to_message().task_id
    given = UUID(int=5)
    assert soup.to_message(task_id=given).task_id == str(given)
    assert soup.to_message(task_id=str(given).upper()).task_id == str(given)


@pytest.mark.parametrize(
    ("when", "field", "expected"),
    [
        (timedelta(minutes=1), "delay", timedelta(minutes=1)),
        (1_767_225_600, "due_time", datetime(2026, 1, 1, tzinfo=UTC)),
        (1_767_225_600.5, "due_time", datetime(2026, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)),
        (datetime(2026, 1, 1, tzinfo=UTC), "due_time", datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_schedule_says_when(when: Any, field: Any, expected: Any) -> None:
    message = LaterSoup(when).to_message()
    assert message.WhichOneof("when") == field
    read = from_duration(message.delay) if field == "delay" else from_timestamp(message.due_time)
    assert read == expected


def test_no_schedule_means_now_and_at_and_delay_win() -> None:
    assert LaterSoup(None).to_message().WhichOneof("when") is None
    assert from_duration(LaterSoup(5).to_message(delay="3s").delay) == timedelta(seconds=3)
    assert LaterSoup(timedelta(1)).to_message(at=7).due_time.seconds == 7


def test_a_naive_schedule_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgument, match="at: is a naive datetime"):
        LaterSoup(datetime(2026, 1, 1)).to_message()


# names


def test_a_name_belongs_to_one_class() -> None:
    with pytest.raises(TypeError, match=r"name 'unit\.soup' belongs to Soup .*must be its own"):
        type("Other", (Task,), {"name": "unit.soup", "__module__": __name__})


def test_a_class_below_a_named_one_needs_a_name_of_its_own() -> None:
    with pytest.raises(TypeError, match="must be its own"):
        type("Below", (Soup,), {})
    below = type("Below", (Soup,), {"name": "unit.below-soup", "__module__": __name__})
    assert below().to_message().priority == 5


def test_a_class_without_a_name_is_abstract() -> None:
    class Abstract(Task):
        priority = 3

    class Concrete(Abstract):
        name = "unit.concrete"

    assert Concrete().to_message().priority == 3
    with pytest.raises(TypeError, match="has no name"):
        Abstract().to_message()


def test_the_same_class_may_be_defined_again_by_a_reload() -> None:
    for _ in range(2):
        again = type("Again", (Task,), {"name": "unit.again", "__module__": __name__})
        assert again().to_message().name == "unit.again"


@pytest.mark.parametrize("name", ["with space", "x" * 129, "süß", 5])
def test_what_cannot_be_a_name_is_refused_at_the_class(name: object) -> None:
    with pytest.raises(TypeError, match="must be 1 to 128"):
        type("Bad", (Task,), {"name": name, "__module__": __name__})


# payload types


@dataclass
class CookArgs:
    dish: str
    servings: int = 1


class CookDict(TypedDict):
    dish: str


class CookModel(pydantic.BaseModel):
    dish: str
    servings: int = 1


class DataclassTask(Task):
    name = "unit.dataclass"
    Payload = CookArgs


class DictTask(Task):
    name = "unit.dict"
    Payload = CookDict


class ModelTask(Task):
    name = "unit.model"
    Payload = CookModel


class MessageTask(Task):
    name = "unit.message"
    Payload = GetTaskRequest


def test_a_declared_payload_is_filled_from_config() -> None:
    assert decode(DataclassTask(dish="soup").to_message().payload) == {"dish": "soup", "servings": 1}
    assert decode(DataclassTask(CookArgs("stew", 3)).to_message().payload) == {"dish": "stew", "servings": 3}
    assert decode(DictTask(dish="soup").to_message().payload) == {"dish": "soup"}
    assert decode(ModelTask(dish="soup").to_message().payload) == {"dish": "soup", "servings": 1}
    assert decode(MessageTask(task_id="t").to_message().payload) == GetTaskRequest(task_id="t")


@pytest.mark.parametrize(
    "task",
    [
        DataclassTask(),
        DataclassTask(dish=1),
        DataclassTask(dish="x", salt=2),
        DictTask(dich="soup"),
        ModelTask(dish=["no"]),
        MessageTask(nothing=1),
    ],
)
def test_a_payload_that_is_not_as_declared_is_refused(task: Task) -> None:
    with pytest.raises(InvalidArgument) as refused:
        task.to_message()
    assert [field for field, _ in refused.value.fields] == ["payload"]


# options


def test_every_fault_is_named_at_once_and_nothing_is_sent() -> None:
    with pytest.raises(InvalidArgument) as refused:
        new_task("a b", {"x": float("nan")}, priority=10, at=1, delay=1, key="", tags="vip")
    assert sorted(field for field, _ in refused.value.fields) == [
        "delay",
        "key",
        "name",
        "payload",
        "priority",
        "tags",
    ]
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("task_id", "not-a-uuid"),
        ("task_id", 5),
        ("at", datetime(2026, 1, 1)),
        ("at", "tomorrow"),
        ("at", -1),
        ("delay", -1),
        ("delay", "3651d"),
        ("priority", -1),
        ("priority", True),
        ("priority", 2.0),
        ("requires", "zone = eu"),
        ("requires", ["x"] * 17),
        ("requires", ["x" * 513]),
        ("requires", [""]),
        ("tags", [5]),
        ("tags", ["x"] * 33),
        ("headers", {"k" * 129: ""}),
        ("headers", {"": ""}),
        ("headers", {"k": 5}),
        ("headers", {"k": "v" * 4_097}),
        ("headers", {str(i): "" for i in range(65)}),
        ("headers", {"k": "\ud800"}),
        ("retry", 5),
        ("run_timeout", 0),
        ("run_timeout", "366d"),
        ("retention", "3651d"),
        ("key", "ü"),
        ("key", "x" * 257),
        ("expire_after", 0),
        ("expire_time", -1),
    ],
)
def test_an_option_out_of_bounds_is_refused_by_its_name(option: Any, value: object) -> None:
    with pytest.raises(InvalidArgument) as refused:
        new_task("unit.any", **{option: value})
    assert [field for field, _ in refused.value.fields] == [option]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"on_conflict": "reject"}, "key"),
        ({"key": "k", "on_conflict": "explode"}, "on_conflict"),
        ({"key": "k", "key_hold": "ttl"}, "key_hold"),
        ({"key": "k", "key_ttl": 0}, "key_ttl"),
        ({"key": "k", "key_scope": "a b"}, "key_scope"),
        ({"at": 100, "expire_time": 100}, "expire_time"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        new_task("unit.any", **options)
    assert [name for name, _ in refused.value.fields] == [field]


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="prio: no such option"):
        new_task("unit.any", prio=5)  # type: ignore[call-arg]


def test_a_key_travels_with_its_policy() -> None:
    message = new_task(
        "unit.any", key="order-42", key_scope="orders", on_conflict="debounce", key_ttl="1h", key_hold="both"
    )
    assert message.dedup.key == "order-42"
    assert message.dedup.scope == "orders"
    assert message.dedup.on_conflict == DedupConflict.DEDUP_CONFLICT_DEBOUNCE
    assert message.dedup.hold == DedupHold.DEDUP_HOLD_BOTH
    assert from_duration(message.dedup.ttl) == timedelta(hours=1)


def test_an_expiry_is_counted_from_the_due_time() -> None:
    assert new_task("unit.any", at=100, expire_after="30s").expire_time.seconds == 130
    before = int(time.time())
    assert 90 <= new_task("unit.any", delay=60, expire_after="30s").expire_time.seconds - before <= 92
    assert new_task("unit.any", at=100, expire_after="30s", expire_time=200).expire_time.seconds == 200
    with pytest.raises(InvalidArgument, match="expire_after"):
        new_task("unit.any", at=253_402_300_799, expire_after="1d")


@pytest.mark.parametrize(
    "policy",
    [
        {"max_attempts": 0},
        {"max_attempts": 1_001},
        {"multiplier": 0.5},
        {"multiplier": float("nan")},
        {"initial_delay": -1},
        {"max_delay": "31d"},
        {"jitter": "some"},
        {"non_retryable_errors": "ValueError"},
        {"non_retryable_errors": [""]},
    ],
)
def test_a_retry_policy_out_of_bounds_is_refused_when_it_is_made(policy: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(policy))):
        Retry(**policy)


def test_ids_are_version_7_and_sort_as_they_were_made() -> None:
    ids = [new_task_id() for _ in range(2_000)]
    assert len(set(ids)) == 2_000
    assert all(UUID(task_id).version == 7 for task_id in ids)
    assert [task_id[:13] for task_id in ids] == sorted(task_id[:13] for task_id in ids)
    assert abs(int(ids[0].replace("-", "")[:12], 16) / 1_000 - time.time()) < 10


def test_a_firing_has_the_same_id_everywhere_and_no_other_has_it() -> None:
    assert firing_task_id("main", "soup", 60_000_000) == firing_task_id("main", "soup", 60_000_000)
    others = {
        firing_task_id(*parts)
        for parts in [("main", "soup", 1), ("main", "soup", 2), ("main", "stew", 1), ("b", "soup", 1)]
    }
    assert len(others) == 4
    identity = UUID(next(iter(others)))
    assert identity.version == 8
    assert identity.variant == "specified in RFC 4122"


# functions


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
    with pytest.raises(TypeError, match="belongs to Soup"):
        lazy.task("unit.soup")(lambda: None)
