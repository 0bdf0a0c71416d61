"""The scheduler: it enqueues tasks, looks at them, waits for them, cancels them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, Unpack
from uuid import UUID

from client_core import tracing
from client_core.access import TLS, Access, PathLike
from client_core.channel import address_from_environment
from client_core.errors import DeadlineExceeded, InvalidArgument, TaskqError
from client_core.times import Span, to_seconds
from scheduler_client.bulk import Bulk
from scheduler_client.calls import call
from scheduler_client.connection import Connection
from scheduler_client.declaring import Declaring, SyncReport
from scheduler_client.definition import TaskDefinition
from scheduler_client.errors import EnqueueManyFailed, TaskCancelled, TaskFailed
from scheduler_client.function_task import FunctionTask, decorate
from scheduler_client.handle import Handle
from scheduler_client.ids import checked_task_id
from scheduler_client.recurring import Recurring
from scheduler_client.request import EnqueueOptions, TaskOptions, new_task
from scheduler_client.schedule import Recurrent, Schedule
from scheduler_client.schedule import declared as as_declared
from scheduler_client.view import Failure, TaskState, TaskView
from taskq.v1.scheduler_service_pb2 import CancelTaskRequest, GetTaskRequest, NewTask

P = ParamSpec("P")
R = TypeVar("R")

Enqueueable = TaskDefinition | NewTask
"""An instance of a Task class, or what `new_task` and a decorated function's `to_message` make."""

_NO_FAILURE = Failure("", "no failure was recorded", "", 0, None)


class Scheduler:
    """A client of one server. Connects at the first use, or again when its event loop was closed and another runs.

    address   host:port, of several servers `ip:port,ip:port`; absent: `TASKQ_ADDRESS`, else 127.0.0.1:50051
    tls       True or a TLS: encrypted; False: not; absent: as `TASKQ_TLS_CA` and its like say
    tls_ca    a PEM file: TLS with a server whose certificate this CA has signed
    token     what the server knows this client by; absent: `TASKQ_TOKEN`, or what stands in `TASKQ_TOKEN_FILE`
    timeout   how long a call is repeated while the server is away or overloaded, before its error is raised: a span;
              None: for ever. Watching and waiting for results have their own limits.

    One scheduler serves many coroutines: what they enqueue at the same time travels together. It belongs to one event
    loop, and does not survive a fork: RuntimeError. A server that is there and cannot be talked to, as one of the
    two does not speak TLS or does not trust the other, is a HandshakeFailed at once.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        tls: TLS | bool | None = None,
        tls_ca: PathLike | None = None,
        token: str | None = None,
        timeout: Span | None = 30.0,
    ) -> None:
        self._address = address
        self._access = Access(tls, tls_ca, token)
        self._timeout = to_seconds(timeout) if timeout is not None else None
        self._connection: Connection | None = None
        self._is_closed = False

    @property
    def address(self) -> str:
        """Where the server is."""
        return self._address or address_from_environment()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, grace: Span = 5.0) -> None:
        """Gives what is being enqueued `grace`, then fails it, and disconnects."""
        self._is_closed = True
        connection, self._connection = self._connection, None
        if connection is not None and not connection.home.is_gone:
            connection.home.check()
            await connection.close(to_seconds(grace))

    async def enqueue(
        self, task: Enqueueable | str, payload: object = None, /, **options: Unpack[EnqueueOptions]
    ) -> Handle:
        """Enqueues one task: a Task, a NewTask, or a name and a payload. Answers once it is safe from power loss.

        Raises InvalidArgument (naming every field at fault), Conflict, Rejected; Unavailable or DeadlineExceeded when
        the server was away for all of `timeout`: the task may be stored or not, and enqueueing it again under the
        `task_id` in the error's metadata is safe.
        """
        message = _to_message(task, payload, options)
        connection = self._connected()
        with tracing.sending(message.name, message.task_id) as carry:
            return Handle(self, await connection.enqueuer.enqueue(carry(message)))

    async def enqueue_many(self, tasks: Iterable[Enqueueable]) -> list[Handle]:
        """Enqueues tasks in requests of up to 500, and returns their handles in order. May be given a generator.

        Not one transaction: when some fail, the others are enqueued, and EnqueueManyFailed says which is which.
        """
        with tracing.sending_many() as carry:
            to_message = functools.partial(_to_message_carrying, carry)
            bulk = Bulk(self._connected().enqueuer, to_message, functools.partial(Handle, self))
            answers = await bulk.send(tasks)
        errors = {place: answer for place, answer in enumerate(answers) if isinstance(answer, TaskqError)}
        if errors:
            raise EnqueueManyFailed(errors, [None if isinstance(answer, TaskqError) else answer for answer in answers])
        return answers  # type: ignore[return-value]

    async def get(self, task_id: str | UUID) -> TaskView:
        """The task as it stands. Raises NotFound when it was never enqueued, or is pruned."""
        request = GetTaskRequest(task_id=_checked(task_id))
        connection = self._connected()
        response = await call(lambda: connection.stub.GetTask, request, self._timeout, connection.explain)
        return TaskView(response.task)

    async def cancel(self, task_id: str | UUID) -> TaskView:
        """Cancels a task that waits or runs. Raises NotFound; FailedPrecondition when it has succeeded or failed."""
        request = CancelTaskRequest(task_id=_checked(task_id))
        connection = self._connected()
        response = await call(lambda: connection.stub.CancelTask, request, self._timeout, connection.explain)
        return TaskView(response.task)

    async def watch(self, task_id: str | UUID) -> AsyncIterator[TaskView]:
        """The task as it stands, then after each change, until it is finished. Quick changes may come as one.

        Outlives restarts of the server. Raises NotFound when the task was never enqueued, or is pruned.
        """
        watcher = self._connected().watcher
        watch = watcher.watch(_checked(task_id))
        try:
            while True:
                view = TaskView(await watch.next())
                yield view
                if view.is_finished:
                    return
        finally:
            watcher.drop(watch)

    async def result(self, task_id: str | UUID, timeout: Span | None = None, into: Any = None) -> Any:
        """Waits until the task is finished and returns what its processor returned, as `into` if given.

        Raises TaskFailed, TaskCancelled, NotFound; DeadlineExceeded, which is a TimeoutError, after `timeout` (None:
        waits for ever). Waiting for thousands of tasks at a time costs a few streams.
        """
        limit = to_seconds(timeout) if timeout is not None else None
        view = await self._finished(_checked(task_id), limit)
        if view.state is TaskState.FAILED:
            raise TaskFailed(view.task_id, view.name, view.last_failure or _NO_FAILURE)
        if view.state is TaskState.CANCELLED:
            raise TaskCancelled(view.task_id, view.name)
        return view.result(into)

    async def sync_schedules(
        self,
        declared: Iterable[Schedule | Recurrent],
        *,
        origin: str = "",
        remove: bool = False,
        overwrite: bool = False,
        dry_run: bool = False,
    ) -> SyncReport:
        """Creates and updates the server's schedules so that they are as declared by `Schedule`s, and by Tasks and
        decorated functions that say how they recur. Any number of replicas may do so at once.

        origin      who declares them, such as the program's name; stored with each
        remove      also deletes those that this origin declared once, and does not any more
        overwrite   also those that somebody has changed while their declaration stayed as it was; otherwise such drift
                    is reported only
        dry_run     changes nothing, and reports what would be done

        Raises the error of the first that failed, such as InvalidArgument, which names every field; others are done.
        """
        if remove and not origin:
            raise ValueError("remove is given without an origin; must say whose schedules may be removed")
        schedules = [as_declared(one) for one in declared]
        names = [schedule.name for schedule in schedules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)}: declared twice; must have a name of its own: Schedule(name, ...)")
        declaring = Declaring(self._connected(), self._timeout, origin, overwrite=overwrite, dry_run=dry_run)
        return await declaring.sync(schedules, remove)

    def task(
        self, name: str, *, schedule: Recurring | None = None, **options: Unpack[TaskOptions]
    ) -> Callable[[Callable[P, R]], FunctionTask[P, R, Coroutine[Any, Any, Handle]]]:
        """Makes a function a kind of task: `@scheduler.task("kitchen.cook", run_timeout="10m")`. With
        `schedule=cron(...)` it can be given to `sync_schedules`.
        """
        return decorate(name, self.enqueue, options, schedule)

    async def _finished(self, task_id: str, timeout: float | None) -> TaskView:
        watcher = self._connected().watcher
        watch = watcher.watch(task_id)
        try:
            async with asyncio.timeout(timeout):
                while not (view := TaskView(await watch.next())).is_finished:
                    pass
                return view
        except TimeoutError as late:
            raise DeadlineExceeded(
                f"task {task_id!r} was not finished within {timeout:g} s", metadata={"task_id": task_id}
            ) from late
        finally:
            watcher.drop(watch)

    def _connected(self) -> Connection:
        if self._is_closed:
            raise RuntimeError("the scheduler is closed; must be open")
        if self._connection is None or self._connection.home.is_gone:
            self._connection = Connection(self.address, self._timeout, self._access)
        self._connection.home.check()
        return self._connection


@functools.cache
def default_scheduler() -> Scheduler:
    """The scheduler of tasks that are enqueued without naming one; its server is at `TASKQ_ADDRESS`."""
    return Scheduler()


def _checked(task_id: str | UUID) -> str:
    try:
        return checked_task_id(task_id)
    except ValueError as fault:
        raise InvalidArgument(str(task_id), reason="INVALID_FIELDS", fields=[("task_id", str(fault))]) from None


def _to_message_carrying(carry: tracing.Carry, task: Any) -> NewTask:
    return carry(_to_message(task))


def _to_message(task: Any, payload: object = None, options: EnqueueOptions | None = None) -> NewTask:
    if isinstance(task, str):
        return new_task(task, payload, **(options or {}))
    if payload is not None:
        raise TypeError(f"a payload is given beside {task!r:.100}; must be given with a name")
    if isinstance(task, TaskDefinition):
        return task.to_message(**(options or {}))
    if not isinstance(task, NewTask):
        raise TypeError(f"{type(task).__name__} {task!r:.100} cannot be enqueued; must be a Task, a NewTask or a name")
    if options:
        raise TypeError(f"options {', '.join(options)} are given beside a NewTask; must be given to `new_task`")
    return task
