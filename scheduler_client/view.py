"""A task as it stood when the server was asked: what `get`, `watch` and `cancel` answer."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from client_core import payload
from client_core.times import from_timestamp
from taskq.v1 import task_pb2


class TaskState(enum.StrEnum):
    """Where a task is in its life. The first wait and the wait before a retry are both SCHEDULED."""

    UNSPECIFIED = "UNSPECIFIED"  # a state that this client is too old to know
    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_finished(self) -> bool:
        """True for SUCCEEDED, FAILED and CANCELLED."""
        return self in _FINISHED


_FINISHED = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})
_STATES = dict(enumerate(TaskState))  # in the order of the wire's numbers


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt did not succeed. `attempt` is 0 when the task had not started."""

    error_type: str
    message: str
    stack: str
    attempt: int
    failure_time: datetime | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the running attempt is: `fraction` from 0 to 1."""

    fraction: float
    message: str


class TaskView:
    """One task as it stood. Times are aware, in UTC; a time that has not come is None. `message` is the wire's form."""

    __slots__ = ("message",)

    def __init__(self, message: task_pb2.Task) -> None:
        self.message = message

    def __repr__(self) -> str:
        return f"<TaskView {self.task_id} {self.name} {self.state} attempt {self.attempt}>"

    @property
    def task_id(self) -> str:
        return self.message.task_id

    @property
    def name(self) -> str:
        """The capability that its processor must have."""
        return self.message.name

    @property
    def state(self) -> TaskState:
        return _STATES.get(self.message.state, TaskState.UNSPECIFIED)

    @property
    def is_finished(self) -> bool:
        return self.state.is_finished

    @property
    def due_time(self) -> datetime | None:
        """When it may run; after a failure, the time of the next attempt."""
        return _time(self.message, "due_time")

    @property
    def enqueue_time(self) -> datetime | None:
        return _time(self.message, "enqueue_time")

    @property
    def lease_time(self) -> datetime | None:
        """When the last attempt began."""
        return _time(self.message, "lease_time")

    @property
    def finish_time(self) -> datetime | None:
        return _time(self.message, "finish_time")

    @property
    def priority(self) -> int:
        """0 to 9; larger runs sooner."""
        return self.message.priority

    @property
    def attempt(self) -> int:
        """The number of the last attempt, from 1; 0 before the first."""
        return self.message.attempt

    @property
    def failed_attempts(self) -> int:
        """How many attempts count against `Retry.max_attempts`."""
        return self.message.failed_attempts

    @property
    def processor_name(self) -> str:
        """Who runs it, or ran it last."""
        return self.message.processor_name

    @property
    def tags(self) -> list[str]:
        return list(self.message.tags)

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.message.headers)

    @property
    def last_failure(self) -> Failure | None:
        """The last failure, whatever came after it."""
        if not self.message.HasField("last_failure"):
            return None
        failure = self.message.last_failure
        return Failure(
            failure.error_type, failure.message, failure.stack, failure.attempt, _time(failure, "failure_time")
        )

    @property
    def progress(self) -> Progress | None:
        if not self.message.HasField("progress"):
            return None
        return Progress(self.message.progress.fraction, self.message.progress.message)

    def payload(self, into: Any = None) -> Any:
        """What was enqueued, as a value; `into` as for `client_core.payload.decode`."""
        return payload.decode(self.message.payload if self.message.HasField("payload") else None, into)

    def result(self, into: Any = None) -> Any:
        """What the processor returned, as a value; None unless SUCCEEDED."""
        return payload.decode(self.message.result if self.message.HasField("result") else None, into)


def _time(message: task_pb2.Task | task_pb2.Failure, field: Any) -> datetime | None:
    if not message.HasField(field):
        return None
    value: Timestamp = getattr(message, field)
    return from_timestamp(value)
