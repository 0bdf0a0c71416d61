"""Runs attempts and their hooks: calls the handler where it belongs, and turns what comes of it into a report."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Literal

from client_core.payload import decode
from client_core.times import from_duration, from_timestamp
from processor_client import report
from processor_client.attempt import Attempt, Phase, Stop
from processor_client.children import Children
from processor_client.context import Context
from processor_client.handler import Facts, Hook
from processor_client.lanes import Lanes
from processor_client.server_clock import ServerClock
from processor_client.threads import Threads
from taskq.v1.processor_service_pb2 import TaskResult
from taskq.v1.task_pb2 import Payload

logger = logging.getLogger("taskq.processor")

CallNext = Callable[[Context], Awaitable[Any]]
Middleware = Callable[[Context, CallNext], Awaitable[Any]]
HookName = Literal["success", "failure"]


class HookRun:
    """A hook that is to run."""

    __slots__ = ("attempt", "facts", "name")

    def __init__(self, name: HookName, attempt: Attempt, facts: Facts) -> None:
        self.name = name
        self.attempt = attempt
        self.facts = facts


class Runner:
    """Owns the lanes, the threads and the child processes; outlives the sessions whose attempts it runs."""

    def __init__(self, concurrency: int, clock: ServerClock, middleware: Sequence[Middleware] = ()) -> None:
        self._clock = clock
        self._middleware = tuple(middleware)
        self._threads = Threads(concurrency)
        self._children = Children(self._threads)
        self._lanes: Lanes[Attempt | HookRun] = Lanes(concurrency, self._run)
        self.unfinished_hooks = 0
        # Set whenever a hook has ended, for those who wait for the last one.
        self.hook_ended = asyncio.Event()

    def put(self, attempts: Iterable[Attempt]) -> None:
        """Runs these, in order, as lanes become free."""
        self._lanes.put(attempts)

    def put_hooks(self, hooks: Sequence[HookRun]) -> None:
        """Runs these before any further attempt: slow hooks slow the processor down instead of piling up."""
        self.unfinished_hooks += len(hooks)
        self._lanes.put(hooks, first=True)

    async def close(self) -> None:
        """Stops everything that can be stopped."""
        self._children.close()
        await self._lanes.close()
        self._threads.close()

    async def _run(self, item: Attempt | HookRun) -> None:
        if isinstance(item, HookRun):
            await self._run_hook(item)
            return
        attempt = item
        # It may have been cancelled, lost or released while it waited.
        if attempt.phase is not Phase.WAITING:
            return
        attempt.phase = Phase.RUNNING
        handler = attempt.handler
        if attempt.assigned.HasField("run_timeout"):
            self._start_timer(attempt)
        try:
            if handler.is_async and handler.executor is None and not self._middleware:
                attempt.interrupt = _current_task().cancel
                value = await handler.call(attempt.context)
            else:
                value = await self._call(attempt)
        except BaseException as error:
            if _is_left_over(error):
                raise
            self._raised(attempt, error)
        else:
            self._returned(attempt, value)
        finally:
            attempt.interrupt = None
            if attempt.timer is not None:
                attempt.timer.cancel()

    async def _call(self, attempt: Attempt) -> Any:
        """Through the middleware, and then where the handler belongs."""
        if self._middleware or attempt.handler.is_async:
            attempt.interrupt = _current_task().cancel
        call: CallNext = partial(self._call_handler, attempt)
        for middleware in reversed(self._middleware):
            call = partial(_call_middleware, middleware, call)
        return await call(attempt.context)

    async def _call_handler(self, attempt: Attempt, _: Context) -> Any:
        handler = attempt.handler
        if handler.executor == "process":
            return await self._children.call(attempt, self._clock)
        if handler.is_async:
            return await handler.call(attempt.context)
        # Nothing interrupts a thread: it looks at ctx.cancelled.
        attempt.interrupt = None
        return await self._threads.call(partial(_call_unless_stopped, attempt))

    def _returned(self, attempt: Attempt, value: object) -> None:
        attempt.value = value
        result = report.of_value(attempt.assigned, value)
        if not result.HasField("succeeded"):
            attempt.error = report.Reported(result)
        attempt.session.finish(attempt, result)

    def _raised(self, attempt: Attempt, error: BaseException) -> None:
        attempt.error = error
        match attempt.stop:
            case None:
                result = report.of_error(attempt.assigned, error, self._clock)
                if result.HasField("failed"):
                    self._log_failure(attempt, result, error)
                attempt.session.finish(attempt, result)
            case Stop.CANCELLED:
                attempt.session.finish(attempt, report.cancelled(attempt.assigned))
            case Stop.DRAINED:
                attempt.session.finish(attempt, report.released(attempt.assigned))
            case Stop.OUT_OF_TIME:
                attempt.session.fall_silent(attempt)
            case Stop.LOST:
                attempt.session.drop(attempt)

    def _log_failure(self, attempt: Attempt, result: TaskResult, error: BaseException) -> None:
        failed = result.failed
        what = (attempt.assigned.name, failed.error_type, failed.message)
        attempt.context.log.warning("%s failed: %s: %s", *what, exc_info=error if failed.stack else None)

    def _start_timer(self, attempt: Attempt) -> None:
        assigned = attempt.assigned
        elapsed = self._clock.now() - from_timestamp(assigned.lease_time)
        left = from_duration(assigned.run_timeout) - max(elapsed, timedelta(0))
        loop = asyncio.get_running_loop()
        attempt.timer = loop.call_later(max(0.0, left.total_seconds()), attempt.tell_to_stop, Stop.OUT_OF_TIME)

    async def _run_hook(self, item: HookRun) -> None:
        attempt = item.attempt
        hook: Hook | None = getattr(attempt.handler, item.name)
        assert hook is not None
        try:
            facts = {**item.facts, **_decoded(item.facts)}
            if hook.is_async:
                await hook.call(attempt.context, facts)
            else:
                await self._threads.call(partial(hook.call, attempt.context, facts))
        except BaseException as error:
            if _is_left_over(error):
                raise
            attempt.context.log.exception("%s() of %s raised; the outcome stands", item.name, attempt.assigned.name)
        finally:
            self.unfinished_hooks -= 1
            self.hook_ended.set()


async def _call_middleware(middleware: Middleware, call_next: CallNext, context: Context) -> Any:
    async def next_one(_: Context = context) -> Any:
        return await call_next(context)

    return await middleware(context, next_one)


def _call_unless_stopped(attempt: Attempt) -> Any:
    # It may have waited for a thread.
    attempt.context.check_cancelled()
    return attempt.handler.call(attempt.context)


def _is_left_over(error: BaseException) -> bool:
    """Whether the lane itself is being cleared away, long after its loop."""
    return isinstance(error, GeneratorExit) and asyncio._get_running_loop() is None


def _decoded(facts: Facts) -> dict[str, Any]:
    """What came from a child process as bytes, as the value that the handler returned there."""
    result = facts.get("result")
    return {"result": decode(result)} if isinstance(result, Payload) else {}


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task
