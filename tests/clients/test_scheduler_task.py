"""Kinds of task as classes: what each says is what is sent, and what cannot be said is refused."""

from __future__ import annotations

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
from scheduler_client import InvalidArgument, Retry, Task
from taskq.v1.scheduler_service_pb2 import GetTaskRequest
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
