"""One event loop in a thread of its own, for programs that have none: the blocking scheduler runs there."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """Runs coroutines for any thread that asks. Started at the first use; ends with the program."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine and returns what it returns. RuntimeError after a fork, and on the loop's own thread."""
        try:
            loop = self._started()
        except RuntimeError:
            coroutine.close()
            raise
        answer = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return answer.result()
        except BaseException:
            answer.cancel()  # after Ctrl-C nobody waits for it
            raise

    def iterate(self, views: AsyncIterator[T]) -> Iterator[T]:
        """An asyncio iterator for a thread."""

        async def following() -> T:
            return await anext(views)

        async def close() -> None:
            await views.aclose()  # type: ignore[attr-defined]

        try:
            while True:
                try:
                    yield self.run(following())
                except StopAsyncIteration:
                    return
        finally:
            self.run(close())

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._pid != os.getpid() and self._loop is not None:
            raise RuntimeError(
                f"the scheduler's thread runs in process {self._pid}, not in its fork {os.getpid()}; "
                "must be used first after the fork (start children by 'spawn')"
            )
        with self._lock:
            if self._loop is None:
                self._pid = os.getpid()
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="taskq-scheduler", daemon=True)
                self._thread.start()
        if threading.current_thread() is self._thread:
            raise RuntimeError("a blocking scheduler was called in its own background thread; must be another thread")
        return self._loop


background = Background()
