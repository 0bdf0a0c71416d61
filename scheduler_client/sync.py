"""The same names, blocking, for programs without an event loop: Django, Flask, scripts.

    from scheduler_client.sync import Scheduler, Task

    with Scheduler("localhost:50051") as scheduler:
        handle = scheduler.enqueue("kitchen.cook", {"dish": "soup"})
        print(handle.result(timeout=30))

Safe to use from several threads: what they enqueue at the same time travels together. One thread in the
background does it all; after a fork it is not there, and using it is a RuntimeError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, Unpack
from uuid import UUID

import scheduler_client.main_scheduler
import scheduler_client.scheduler
from client_core.access import TLS, PathLike
from client_core.times import Span
from scheduler_client.background import background
from scheduler_client.declaring import SyncReport
from scheduler_client.definition import TaskDefinition
from scheduler_client.errors import EnqueueManyFailed
from scheduler_client.function_task import FunctionTask, decorate
from scheduler_client.handle import Receipt
from scheduler_client.recurring import Recurring
from scheduler_client.request import EnqueueOptions, TaskOptions
from scheduler_client.schedule import Recurrent, Schedule
from scheduler_client.scheduler import Enqueueable
from scheduler_client.view import TaskView

__all__ = ["Handle", "MainScheduler", "Scheduler", "Task"]

P = ParamSpec("P")
R = TypeVar("R")


class Handle(Receipt):
    """A task that was enqueued. As `scheduler_client.Handle`."""

    __slots__ = ("_scheduler",)

    def __init__(self, scheduler: Scheduler, receipt: Receipt) -> None:
        self.task_id = receipt.task_id
        self._outcome = receipt._outcome
        self._due_us = receipt._due_us
        self._scheduler = scheduler

    def result(self, timeout: Span | None = None, into: Any = None) -> Any:
        """As `Scheduler.result`."""
        return self._scheduler.result(self.task_id, timeout, into)

    def watch(self) -> Iterator[TaskView]:
        """As `Scheduler.watch`."""
        return self._scheduler.watch(self.task_id)

    def get(self) -> TaskView:
        """As `Scheduler.get`."""
        return self._scheduler.get(self.task_id)

    def cancel(self) -> TaskView:
        """As `Scheduler.cancel`."""
        return self._scheduler.cancel(self.task_id)


class Scheduler:
    """A client of one server. As `scheduler_client.Scheduler`."""

    def __init__(
        self,
        address: str | None = None,
        *,
        tls: TLS | bool | None = None,
        tls_ca: PathLike | None = None,
        token: str | None = None,
        timeout: Span | None = 30.0,
    ) -> None:
        self._twin = partial(
            scheduler_client.scheduler.Scheduler, address, tls=tls, tls_ca=tls_ca, token=token, timeout=timeout
        )
        self._scheduler = self._twin()

    @property
    def address(self) -> str:
        """Where the server is."""
        return self._scheduler.address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self, grace: Span = 5.0) -> None:
        """Gives what is being enqueued `grace`, then fails it, and disconnects."""
        background.run(self._scheduler.close(grace))

    def enqueue(self, task: Enqueueable | str, payload: object = None, /, **options: Unpack[EnqueueOptions]) -> Handle:
        """Enqueues one task. As `scheduler_client.Scheduler.enqueue`."""
        return Handle(self, background.run(self._scheduler.enqueue(task, payload, **options)))

    def enqueue_many(self, tasks: Iterable[Enqueueable]) -> list[Handle]:
        """Enqueues tasks in requests of up to 500. As `scheduler_client.Scheduler.enqueue_many`."""
        # Here and not in the background, for a generator may use what belongs to this thread, such as a database.
        given = list(tasks)
        try:
            return [Handle(self, each) for each in background.run(self._scheduler.enqueue_many(given))]
        except EnqueueManyFailed as failed:
            failed.handles = [each and Handle(self, each) for each in failed.handles]
            raise

    def get(self, task_id: str | UUID) -> TaskView:
        """The task as it stands. As `scheduler_client.Scheduler.get`."""
        return background.run(self._scheduler.get(task_id))

    def cancel(self, task_id: str | UUID) -> TaskView:
        """Cancels a task that waits or runs. As `scheduler_client.Scheduler.cancel`."""
        return background.run(self._scheduler.cancel(task_id))

    def watch(self, task_id: str | UUID) -> Iterator[TaskView]:
        """The task as it stands, then after each change. As `scheduler_client.Scheduler.watch`."""
        return background.iterate(self._scheduler.watch(task_id))

    def result(self, task_id: str | UUID, timeout: Span | None = None, into: Any = None) -> Any:
        """Waits until the task is finished. As `scheduler_client.Scheduler.result`."""
        return background.run(self._scheduler.result(task_id, timeout, into))

    def sync_schedules(
        self,
        declared: Iterable[Schedule | Recurrent],
        *,
        origin: str = "",
        remove: bool = False,
        overwrite: bool = False,
        dry_run: bool = False,
    ) -> SyncReport:
        """Brings the server's schedules in step. As `scheduler_client.Scheduler.sync_schedules`."""
        return background.run(
            self._scheduler.sync_schedules(
                list(declared), origin=origin, remove=remove, overwrite=overwrite, dry_run=dry_run
            )
        )

    def task(
        self, name: str, *, schedule: Recurring | None = None, **options: Unpack[TaskOptions]
    ) -> Callable[[Callable[P, R]], FunctionTask[P, R, Handle]]:
        """Makes a function a kind of task, whose calls are enqueued by this scheduler."""
        return decorate(name, self.enqueue, options, schedule)


class Task(TaskDefinition):
    """One kind of task; each instance is one to be enqueued. As `scheduler_client.Task`."""

    def enqueue(self, *, scheduler: Scheduler | None = None, **options: Unpack[EnqueueOptions]) -> Handle:
        """Enqueues it by the given scheduler, or by the default one, whose server is at `TASKQ_ADDRESS`."""
        return (scheduler or _default_scheduler).enqueue(self, **options)


class MainScheduler(scheduler_client.main_scheduler.MainScheduler):
    """As `scheduler_client.MainScheduler`, for a blocking scheduler's server; it has a connection of its own."""

    def __init__(self, scheduler: Scheduler | None = None, *, name: str = "main", buffer: int = 10_000) -> None:
        super().__init__(None, name=name, buffer=buffer)
        if scheduler is not None:
            self._scheduler = scheduler._twin()


_default_scheduler = Scheduler()
