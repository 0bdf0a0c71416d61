"""SIGTERM and SIGINT: the first asks a processor to drain, the second to stop now."""

import asyncio
import signal
from typing import Any, Self

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Counts them while it is entered. Outside the main thread there are none to count."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events = (asyncio.Event(), asyncio.Event())
        self._count = 0
        self._handled: list[signal.Signals] = []
        self.exit_code = 0

    def __enter__(self) -> Self:
        for number in STOP_SIGNALS:
            try:
                self._loop.add_signal_handler(number, self._came, number)
            except (ValueError, RuntimeError, NotImplementedError):
                break
            self._handled.append(number)
        return self

    def __exit__(self, *_: object) -> None:
        while self._handled:
            self._loop.remove_signal_handler(self._handled.pop())

    async def wait(self, work: asyncio.Task[Any], *, times: int) -> None:
        """Until `work` is done, or so many signals have come."""
        signalled = asyncio.create_task(self._events[times - 1].wait())
        try:
            await asyncio.wait({work, signalled}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            signalled.cancel()

    def _came(self, number: signal.Signals) -> None:
        if self._count < len(self._events):
            self._events[self._count].set()
        self._count += 1
        self.exit_code = 128 + number
        if self._count == len(self._events):
            # A third one does what the system does by default.
            self.__exit__()
