"""The main scheduler: a loop to which tasks are added with their frequency; it outlasts a server that is away."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from client_core.backoff import Backoff
from client_core.errors import InvalidArgument, TaskqError
from client_core.times import Span, from_epoch_microseconds, to_microseconds
from scheduler_client.clock import Clock, SystemClock
from scheduler_client.definition import TaskDefinition
from scheduler_client.errors import Conflict, EnqueueManyFailed, FiringsNotSent, Rejected
from scheduler_client.firings import Entry, Firing, Firings
from scheduler_client.frequency import Frequency
from scheduler_client.function_task import FunctionTask
from scheduler_client.ids import firing_task_id
from scheduler_client.scheduler import Scheduler
from taskq.v1.scheduler_service_pb2 import NewTask

log = logging.getLogger("taskq.scheduler")

Repeatable = type[TaskDefinition] | TaskDefinition | FunctionTask[Any, Any, Any]

_AT_ONCE: Final = 500
_GRACE_SECONDS: Final = 5.0


class Every:
    """Half a sentence: `main.every(minutes=1)`, which `.do(...)` ends."""

    def __init__(self, main: MainScheduler, frequency: Frequency, name: str | None) -> None:
        self._main = main
        self._frequency = frequency
        self._name = name

    def do(self, task: Repeatable, /, **config: Any) -> Entry:
        """Adds a Task class or instance, or a decorated function, with the config or arguments of each firing.

        Each firing is due at its nominal time, whatever the task's own `schedule()` says. Errors in what is given are
        raised here. ValueError when the main scheduler has an entry of that name.
        """
        name = self._name or (task.task_name if isinstance(task, FunctionTask) else task.name)
        return self._main.add(name, self._frequency, _builder(task, config))


class MainScheduler:
    """Enqueues tasks again and again.

    scheduler   whom to enqueue by; absent: one for the server at `TASKQ_ADDRESS`
    name        with an entry's name and a nominal time it makes a firing's task_id: main schedulers of the same name
                may run at once, and each firing is one task
    buffer      how many firings may wait for a server that is away. They are sent in order once it is back. When the
                buffer is full, new firings are refused, with an error in the log that counts them

        main = MainScheduler()
        main.every(minutes=1).do(CookTask, dish="soup")
        main.every("1d", phase="9h", name="breakfast").do(cook, dish="eggs")      # at 9:00 UTC
        main.run()

    Nominal times are counted from 1970 in UTC, not from the start. What falls due while no main scheduler runs is not
    made up for.
    """

    def __init__(
        self,
        scheduler: Scheduler | None = None,
        *,
        name: str = "main",
        buffer: int = 10_000,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.firings = Firings(buffer)
        self.entries: dict[str, Entry] = {}
        self._scheduler = scheduler or Scheduler()
        self._owns_scheduler = scheduler is None
        self._clock = clock or SystemClock()
        self._wake = asyncio.Event()
        self._more = asyncio.Event()
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def every(
        self,
        period: Span | None = None,
        *,
        seconds: float = 0,
        minutes: float = 0,
        hours: float = 0,
        days: float = 0,
        phase: Span = 0,
        name: str | None = None,
    ) -> Every:
        """How often: `every("10m")` or `every(minutes=10)`, shifted by `phase`. `name`: the entry's, or the task's."""
        words = timedelta(seconds=seconds, minutes=minutes, hours=hours, days=days)
        if (period is None) == (not words):
            raise ValueError("every() must be given either a period, such as '10m', or seconds, minutes, hours, days")
        period_us = to_microseconds(words if period is None else period)
        return Every(self, Frequency(period_us, to_microseconds(phase)), name)

    def add(self, name: str, frequency: Frequency, build: Callable[[str, int], NewTask]) -> Entry:
        """What `every(...).do(...)` ends in: `build` makes the task of a task_id and a nominal time."""
        if name in self.entries:
            raise ValueError(f"entry {name!r} exists; must have a name of its own: every(..., name='...')")

        def firing(nominal_us: int) -> NewTask:
            return build(firing_task_id(self.name, name, nominal_us), nominal_us)

        firing(frequency.phase_us)  # so that what cannot be built fails here
        entry = self.entries[name] = Entry(name, frequency, firing)
        self._wake.set()
        return entry

    def stop(self) -> None:
        """Ends `run`, after what waits has been sent, or five seconds. May be called from any thread."""
        self._is_stopping = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    def run(self) -> None:
        """Runs until SIGTERM, SIGINT or `stop()`. Raises as `run_async`."""
        asyncio.run(self._run_until_signal())

    async def run_async(self) -> None:
        """Runs until `stop()`. Raises FiringsNotSent when what waits could not be sent in the end."""
        self._loop = asyncio.get_running_loop()
        sender = asyncio.create_task(self._send_all())
        sender.add_done_callback(lambda _: self._wake.set())
        try:
            while not self._is_stopping and not sender.done():
                self._wake.clear()
                await self._clock.wait(self._wake, self.tick())
            self._more.set()
            await asyncio.wait([sender], timeout=_GRACE_SECONDS)
        finally:
            sender.cancel()
            await asyncio.wait([sender])
            if self._owns_scheduler:
                await self._scheduler.close(0)
        if not sender.cancelled():
            sender.result()  # raises what ended it before its time
        if self.firings:
            log.error("stopped while %d firings wait for the server", len(self.firings))
            raise FiringsNotSent([str(firing) for firing in self.firings.first(len(self.firings))])

    def tick(self) -> float | None:
        """Fires what is due. Returns when to come back, in epoch seconds; None: nothing will ever be due."""
        self.firings.collect(list(self.entries.values()), int(self._clock.now() * 1_000_000))
        if self.firings:
            self._more.set()
        nexts = [entry.next_us for entry in self.entries.values() if entry.next_us is not None]
        return min(nexts) / 1_000_000 if nexts else None

    async def send(self) -> TaskqError | None:
        """Sends those that have waited longest. Returns the error for which some of them wait on."""
        batch = self.firings.first(_AT_ONCE)
        errors: dict[int, TaskqError] = {}
        answered = len(batch)
        try:
            await self._scheduler.enqueue_many([firing.message for firing in batch])
        except EnqueueManyFailed as failed:
            errors, answered = failed.errors, len(failed.handles)
        final = {place: error for place, error in errors.items() if _is_final(error)}
        for place, error in final.items():
            _log_final(batch[place], error)
        waiting = errors.keys() - final.keys()
        self.firings.done([firing for i, firing in enumerate(batch[:answered]) if i not in waiting])
        return errors[min(waiting)] if waiting else None

    async def _send_all(self) -> None:
        backoff = Backoff(0.5, 10.0)
        while True:
            await self._more.wait()
            self._more.clear()
            while self.firings:
                error = await self.send()
                if error is None:
                    backoff.reset()
                else:
                    log.error("%d firings wait for the server: %s", len(self.firings), error)
                    await asyncio.sleep(backoff.next())
            if self._is_stopping:
                return

    async def _run_until_signal(self) -> None:
        loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                with suppress(NotImplementedError):  # no such thing on Windows
                    loop.add_signal_handler(number, self._stop_once, loop, number)
        await self.run_async()

    def _stop_once(self, loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
        loop.remove_signal_handler(number)  # the second one ends the process now
        self.stop()


def _builder(task: Repeatable, config: dict[str, Any]) -> Callable[[str, int], NewTask]:
    def build(task_id: str, nominal_us: int) -> NewTask:
        at = from_epoch_microseconds(nominal_us)
        if isinstance(task, FunctionTask):
            return task.options(at=at, delay=None, task_id=task_id).to_message(**config)
        one = task(**config) if isinstance(task, type) else task
        return one.to_message(at=at, delay=None, task_id=task_id)

    if not isinstance(task, FunctionTask | TaskDefinition) and not (
        isinstance(task, type) and issubclass(task, TaskDefinition)
    ):
        raise TypeError(f"{task!r:.100} cannot be repeated; must be a Task class or instance, or a decorated function")
    if isinstance(task, TaskDefinition) and config:
        raise TypeError(f"{', '.join(config)} are given beside an instance; must be given to a Task class")
    return build


def _is_final(error: TaskqError) -> bool:
    return isinstance(error, InvalidArgument | Conflict | Rejected)


def _log_final(firing: Firing, error: TaskqError) -> None:
    if isinstance(error, Conflict):
        log.warning("firing %s was enqueued by another with other content: %s", firing, error)
    elif isinstance(error, Rejected):
        log.info("firing %s was not enqueued: %s", firing, error)
    else:
        log.error("firing %s was refused and is not enqueued: %s", firing, error)
