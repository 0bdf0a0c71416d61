"""What an enqueue answers: the task that exists now, and how to follow it."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from client_core.times import from_epoch_microseconds, timestamp_to_microseconds
from scheduler_client.view import TaskView
from taskq.v1.scheduler_service_pb2 import EnqueueResult

if TYPE_CHECKING:
    from scheduler_client.scheduler import Scheduler


class Outcome(enum.StrEnum):
    """What an enqueue did. CONFLICT and REJECTED are errors, not outcomes.

    CREATED    stored
    EXISTING   stored before, under this task_id (perhaps by an earlier try of the same call) or under the key
    REPLACED   the waiting task that holds the key was changed, as `on_conflict` asked
    """

    UNSPECIFIED = "UNSPECIFIED"  # an outcome that this client is too old to know
    CREATED = "CREATED"
    EXISTING = "EXISTING"
    REPLACED = "REPLACED"


_OUTCOMES = tuple(Outcome)  # in the order of the wire's numbers


class Receipt:
    """What the server answered for one task; what the asyncio and the blocking handle share."""

    __slots__ = ("_due_us", "_outcome", "task_id")

    def __init__(self, result: EnqueueResult) -> None:
        # Copied, for a part of a message keeps all of it alive: here the answers of 500 tasks.
        self.task_id = result.task_id
        self._outcome: int = result.outcome
        self._due_us = timestamp_to_microseconds(result.due_time)

    @property
    def outcome(self) -> Outcome:
        """What the enqueue did."""
        return _OUTCOMES[self._outcome] if self._outcome < len(_OUTCOMES) else Outcome.UNSPECIFIED

    @property
    def due_time(self) -> datetime:
        """When the task is due: aware, in UTC."""
        return from_epoch_microseconds(self._due_us)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.task_id} {self.outcome} due {self.due_time.isoformat()}>"


class Handle(Receipt):
    """A task that was enqueued."""

    __slots__ = ("_scheduler",)

    def __init__(self, scheduler: Scheduler, result: EnqueueResult) -> None:
        super().__init__(result)
        self._scheduler = scheduler

    async def result(self, timeout: float | None = None, into: Any = None) -> Any:
        """As `Scheduler.result`."""
        return await self._scheduler.result(self.task_id, timeout, into)

    def watch(self) -> AsyncIterator[TaskView]:
        """As `Scheduler.watch`."""
        return self._scheduler.watch(self.task_id)

    async def get(self) -> TaskView:
        """As `Scheduler.get`."""
        return await self._scheduler.get(self.task_id)

    async def cancel(self) -> TaskView:
        """As `Scheduler.cancel`."""
        return await self._scheduler.cancel(self.task_id)
