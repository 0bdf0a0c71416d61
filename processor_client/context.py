"""What a handler may know and say about the attempt that it runs."""

import logging
import threading
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from client_core.payload import JSON, MAX_PAYLOAD_BYTES, decode, encode
from processor_client.cancellation import Cancellation
from processor_client.listener import TOLD, Listener, Told
from processor_client.verdicts import TaskCancelled
from processor_client.wording import clean
from taskq.v1 import processor_service_pb2, task_pb2

logger = logging.getLogger("taskq.processor")

MAX_PROGRESS_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class LastFailure:
    """Why the last attempt that ran did not succeed."""

    error_type: str
    message: str
    stack: str
    attempt: int
    failure_time: datetime


class Context:
    """One attempt of one task, as its handler sees it."""

    __slots__ = ("_assigned", "_cancelled", "_checkpoint", "_listener", "_log", "_payload", "_stopped", "instance")

    def __init__(self, assigned: processor_service_pb2.AssignedTask, listener: Listener | None = None) -> None:
        self._assigned = assigned
        self._listener = listener
        self._cancelled: Cancellation | None = None
        self._stopped = False
        self._payload: Any = _UNREAD
        self._checkpoint: Any = _UNREAD
        self._log: logging.LoggerAdapter[logging.Logger] | None = None
        # The Task object of this attempt, when its handler is one.
        self.instance: Any = None

    @classmethod
    def fake(
        cls,
        payload: object = None,
        *,
        task_id: str = "00000000-0000-7000-8000-000000000000",
        name: str = "fake",
        attempt: int = 1,
        max_attempts: int = 5,
        failed_attempts: int | None = None,
        headers: Mapping[str, str] | None = None,
        tags: Sequence[str] = (),
        key: str = "",
        priority: int = 0,
        checkpoint: object = None,
        due_time: datetime | None = None,
        cancelled: bool = False,
    ) -> "Context":
        """A context without a server, for calling a handler in a unit test."""
        assigned = processor_service_pb2.AssignedTask(
            task_id=task_id,
            name=name,
            attempt=attempt,
            max_attempts=max_attempts,
            failed_attempts=attempt - 1 if failed_attempts is None else failed_attempts,
            headers=headers,
            tags=tags,
            dedup_key=key,
            priority=priority,
            payload=encode(payload),
        )
        now = due_time or datetime.now(UTC)
        for field in (assigned.due_time, assigned.enqueue_time, assigned.lease_time):
            field.FromDatetime(now)
        if checkpoint is not None:
            assigned.checkpoint.CopyFrom(encode(checkpoint) or _NOTHING)
        context = cls(assigned)
        if cancelled:
            context.stop()
        return context

    def __repr__(self) -> str:
        return f"<Context {self.name} {self.task_id} attempt {self.attempt}>"

    @property
    def task_id(self) -> str:
        """UUID of the task."""
        return self._assigned.task_id

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt of the task and in no other task: what to hand to a system that must act once."""
        return self._assigned.task_id

    @property
    def name(self) -> str:
        """The capability that was asked for."""
        return self._assigned.name

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._assigned.attempt

    @property
    def failed_attempts(self) -> int:
        """How many attempts have failed before this one; released ones do not count."""
        return self._assigned.failed_attempts

    @property
    def max_attempts(self) -> int:
        """How many attempts may fail before the task does."""
        return self._assigned.max_attempts

    @property
    def due_time(self) -> datetime:
        """When the task was due."""
        return self._assigned.due_time.ToDatetime(UTC)

    @property
    def enqueue_time(self) -> datetime:
        """When the task was enqueued."""
        return self._assigned.enqueue_time.ToDatetime(UTC)

    @property
    def deadline(self) -> datetime | None:
        """When the server ends this attempt, by the server's clock; None means never."""
        return self._assigned.run_deadline.ToDatetime(UTC) if self._assigned.HasField("run_deadline") else None

    @property
    def priority(self) -> int:
        """0 to 9; larger runs sooner."""
        return self._assigned.priority

    @property
    def key(self) -> str:
        """The dedup key; empty when the task has none."""
        return self._assigned.dedup_key

    @property
    def tags(self) -> list[str]:
        """As enqueued."""
        return list(self._assigned.tags)

    @property
    def headers(self) -> dict[str, str]:
        """As enqueued, such as `traceparent`."""
        return dict(self._assigned.headers)

    @property
    def payload(self) -> Any:
        """What was enqueued, decoded once. Raises when it cannot be."""
        if self._payload is _UNREAD:
            self._payload = decode(self._assigned.payload)
        return self._payload

    @property
    def raw_payload(self) -> task_pb2.Payload:
        """What was enqueued, as it came."""
        return self._assigned.payload

    @property
    def last_failure(self) -> LastFailure | None:
        """Why the last attempt that ran did not succeed; None when none has failed."""
        if not self._assigned.HasField("last_failure"):
            return None
        failure = self._assigned.last_failure
        when = failure.failure_time.ToDatetime(UTC)
        return LastFailure(failure.error_type, failure.message, failure.stack, failure.attempt, when)

    @property
    def checkpoint(self) -> Any:
        """What was saved last, by this attempt or an earlier one, decoded; None when nothing was."""
        if self._checkpoint is _UNREAD:
            there = self._assigned.HasField("checkpoint")
            self._checkpoint = decode(self._assigned.checkpoint) if there else None
        return self._checkpoint

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry the ids of this attempt."""
        if self._log is None:
            self._log = _AttemptLog(logger, {"task_id": self.task_id, "task_name": self.name, "attempt": self.attempt})
        return self._log

    @property
    def cancelled(self) -> Cancellation:
        """Set once this attempt is to stop: cancelled, lease lost, out of time, or the processor stops."""
        with _MAKING:
            if self._cancelled is None:
                self._cancelled = Cancellation()
        # stop() sets the flag first and looks for the event then; one of the two sees the other.
        if self._stopped:
            self._cancelled.set()
        return self._cancelled

    def check_cancelled(self) -> None:
        """Raises TaskCancelled once this attempt is to stop. For loops in threads."""
        if self._stopped:
            raise TaskCancelled

    def stop(self) -> None:
        """Tells the handler to stop. Called by the processor."""
        self._stopped = True
        if self._cancelled is not None:
            self._cancelled.set()

    def progress(self, fraction: float, message: str = "") -> Told:
        """Says how far this attempt is, from 0 to 1. Travels with the next heartbeat; only the last one does. May be
        awaited, and need not be."""
        if fraction != fraction:
            raise ValueError("progress is not a number; must be from 0 to 1")
        if self._listener is not None:
            self._listener.progressed(self, min(max(fraction, 0.0), 1.0), clean(message)[:MAX_PROGRESS_CHARACTERS])
        return TOLD

    def save_checkpoint(self, value: object) -> Told:
        """Keeps `value`, at most 256 KiB encoded, for later attempts. Travels with the next heartbeat, within a second;
        a report waits for it. May be awaited, and need not be."""
        # None is a value like another: it says that later attempts start from nothing.
        encoded = encode(value) or _NOTHING
        if len(encoded.data) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"checkpoint is {len(encoded.data)} bytes; must be at most {MAX_PAYLOAD_BYTES}")
        self._checkpoint = value
        if self._listener is not None:
            self._listener.saved(self, encoded)
        return TOLD


class _AttemptLog(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


_UNREAD: Any = object()
_NOTHING = task_pb2.Payload(data=b"null", content_type=JSON)
# Held for an instant when a context's event is made, which few handlers ask for.
_MAKING = threading.Lock()
