"""Threads for handlers that are plain functions.

They are daemons, unlike those of concurrent.futures: a handler that never returns must not keep the process alive.
"""

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Outcome = tuple[Any, BaseException | None]


@dataclass(slots=True)
class _Call:
    function: Callable[[], Any]
    context: contextvars.Context
    future: asyncio.Future[Outcome]


class Threads:
    """At most `size` threads, started as they are needed."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._started = 0
        self._busy = 0

    async def call(self, function: Callable[[], Any]) -> Any:
        """Calls `function` in a thread, in this context; raises what it raises, whatever that is."""
        future = asyncio.get_running_loop().create_future()
        self._calls.put(_Call(function, contextvars.copy_context(), future))
        self._busy += 1
        if self._busy > self._started and self._started < self._size:
            self._started += 1
            threading.Thread(target=self._work, name=f"taskq-handler-{self._started}", daemon=True).start()
        future.add_done_callback(self._one_less)
        value, error = await future
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """Ends the threads that have nothing to do; the others end after their call."""
        for _ in range(self._started):
            self._calls.put(None)

    def _one_less(self, _: object) -> None:
        self._busy -= 1

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            # An error travels as a value: a future takes no StopIteration, and SystemExit would end the loop.
            value, error = None, None
            try:
                value = call.context.run(call.function)
            except BaseException as raised:  # noqa: BLE001 - handed to the one who awaits
                error = raised
            try:
                call.future.get_loop().call_soon_threadsafe(_settle, call.future, (value, error))
            except RuntimeError:
                return  # The loop is closed: nobody waits any more.
            del call, value, error


def _settle(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)
