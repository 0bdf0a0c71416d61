"""The time by which a main scheduler fires: a part of its own, so that a test can set it."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time, and waits until there is something to do."""

    def now(self) -> float:
        """Epoch seconds."""
        ...

    async def wait(self, wake: asyncio.Event, until: float | None) -> None:
        """Returns when `wake` is set, and at the latest at `until` (None: no limit)."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        """Epoch seconds."""
        return time.time()

    async def wait(self, wake: asyncio.Event, until: float | None) -> None:
        """In steps of a minute, for the wall clock may be set while we wait."""
        try:
            async with asyncio.timeout(None if until is None else min(60.0, max(0.0, until - self.now()))):
                await wake.wait()
        except TimeoutError:
            pass
