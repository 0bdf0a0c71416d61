"""How a handler learns that its attempt is to stop, whether it runs in a thread or on the loop."""

import asyncio
import threading
from collections.abc import Generator


class Cancellation:
    """Set once. `await ctx.cancelled` in async code; `ctx.cancelled.wait(seconds)` in a thread; true once set."""

    __slots__ = ("_event", "_lock", "_waiting")

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._waiting: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        return self._event.is_set()

    def is_set(self) -> bool:
        """Answers at once whether the attempt is to stop."""
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Blocks this thread until the attempt is to stop, or for `timeout` seconds; answers whether it is."""
        return self._event.wait(timeout)

    def set(self) -> None:
        """Wakes everybody who waits."""
        with self._lock:
            self._event.set()
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.get_loop().call_soon_threadsafe(_wake, future)

    def __await__(self) -> Generator[object, None, None]:
        with self._lock:
            if self._event.is_set():
                return
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
        yield from future


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
