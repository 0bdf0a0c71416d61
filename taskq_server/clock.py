"""The only source of time.

Durable times are wall-clock microseconds. The wall clock may be stepped, so `SystemClock` never goes back: it walks on
by the monotonic clock, follows a step forward at once, and meets a clock that was stepped back at half speed. Several
servers on one database go by its clock instead: `DatabaseClock`.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import threading
import time
from collections.abc import Callable
from typing import Protocol

MILLISECOND_US = 1_000
SECOND_US = 1_000_000
LONGEST_SLEEP_SECONDS = 1.0
"""A sleeper looks at the clock this often, so that a step of the wall clock never makes it late by more."""


DRIFT = 1_000
"""A machine's clock gains or loses less than a microsecond in so many."""
SET_BACK_US = SECOND_US
"""Less is how far two looks at a database's clock may differ."""


class Clock(Protocol):
    """Tells the time and waits for it."""

    def now_us(self) -> int:
        """Microseconds since 1970, UTC."""
        ...

    def surely_us(self) -> int:
        """The latest time that it must have been by the clock that counts, should that be another: what may not happen
        early goes by this one."""
        ...

    async def sleep_until(self, time_us: int, wake: asyncio.Event) -> None:
        """Returns at `time_us`, as soon as `wake` is set, or when the clock was set back."""
        ...


class OwnClock(Clock, Protocol):
    """A clock that never goes back, whose answers are never less than the last."""

    def not_before(self, time_us: int) -> None:
        """Answers nothing less than `time_us` from now on."""
        ...


class SystemClock:
    """The time of this machine, guarded against steps. Safe to ask from any thread."""

    def __init__(
        self,
        not_before_us: int = 0,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic_us: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
    ) -> None:
        self._wall_us = wall_us
        self._monotonic_us = monotonic_us
        self._lock = threading.Lock()
        self._walked_at_us = monotonic_us()
        self._now_us = max(not_before_us, wall_us())

    def not_before(self, time_us: int) -> None:
        with self._lock:
            self._now_us = max(self._now_us, time_us)

    def now_us(self) -> int:
        with self._lock:  # two threads that each add what they have walked would run ahead of time
            monotonic_us = self._monotonic_us()
            walked_us = monotonic_us - self._walked_at_us
            self._walked_at_us = monotonic_us - walked_us % 2  # half a microsecond is not lost
            self._now_us = max(self._now_us + walked_us // 2, self._wall_us())
            return self._now_us

    def surely_us(self) -> int:
        return self.now_us()

    async def sleep_until(self, time_us: int, wake: asyncio.Event) -> None:
        await _sleep(self, time_us, wake)


class DatabaseClock:
    """The time of a database that several servers share, as every transaction hears it; between, it walks on with this
    machine. It is where the database's clock is, give or take the way there and back, also when that clock is set back.
    """

    def __init__(self, monotonic_us: Callable[[], int] = lambda: time.monotonic_ns() // 1000) -> None:
        self.monotonic_us = monotonic_us
        self._ahead_us = time.time_ns() // 1000 - monotonic_us()
        self._surely_ahead_us = -self.monotonic_us()
        self._heard_us = monotonic_us()

    def now_us(self) -> int:
        return self.monotonic_us() + self._ahead_us

    def surely_us(self) -> int:
        monotonic_us = self.monotonic_us()
        return monotonic_us + self._surely_ahead_us - (monotonic_us - self._heard_us) // DRIFT

    def heard(self, time_us: int, asked_us: int) -> None:
        """It was `time_us` at some instant since `asked_us` by `monotonic_us`."""
        monotonic_us = self.monotonic_us()
        earliest_us, latest_us = time_us - monotonic_us, time_us - asked_us
        self._ahead_us = min(max(self._ahead_us, earliest_us), latest_us)
        surely_us = self._surely_ahead_us - (monotonic_us - self._heard_us) // DRIFT
        self._surely_ahead_us = min(max(surely_us, earliest_us), latest_us)
        self._heard_us = monotonic_us

    async def sleep_until(self, time_us: int, wake: asyncio.Event) -> None:
        await _sleep(self, time_us, wake)


async def _sleep(clock: Clock, time_us: int, wake: asyncio.Event) -> None:
    began_us = now_us = clock.now_us()
    while not wake.is_set() and now_us < time_us and now_us > began_us - SET_BACK_US:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min((time_us - now_us) / SECOND_US, LONGEST_SLEEP_SECONDS)):
                await wake.wait()
        now_us = clock.now_us()


async def pause(seconds: float) -> None:
    """Lets others go on for so long, by no clock that a test could stop."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


class ManualClock:
    """A clock that stands until it is told to move: a month of schedules in a second."""

    def __init__(self, start_us: int = 1_700_000_000 * SECOND_US) -> None:
        self._now_us = start_us
        self._sleepers: list[tuple[int, int, asyncio.Event]] = []
        self._sleeper_number = 0

    def now_us(self) -> int:
        return self._now_us

    def surely_us(self) -> int:
        return self._now_us

    def not_before(self, time_us: int) -> None:
        self._now_us = max(self._now_us, time_us)

    def advance(self, seconds: float = 0, *, us: int = 0) -> None:
        """Moves on and wakes whoever waits for a time that has come."""
        self._now_us += round(seconds * SECOND_US) + us
        while self._sleepers and self._sleepers[0][0] <= self._now_us:
            heapq.heappop(self._sleepers)[2].set()

    async def sleep_until(self, time_us: int, wake: asyncio.Event) -> None:
        if time_us > self._now_us and not wake.is_set():
            self._sleeper_number += 1
            heapq.heappush(self._sleepers, (time_us, self._sleeper_number, wake))
            await wake.wait()


FAR_FUTURE_US = 1 << 62


class Alarm:
    """Wakes one loop at the time it asked for, or earlier when somebody rings."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wake = asyncio.Event()
        self._rung_for_us = FAR_FUTURE_US

    def ring(self, at_us: int = 0) -> None:
        """Asks the loop to look again at `at_us`; without it, now. From the event loop's thread only."""
        if at_us < self._rung_for_us:
            self._rung_for_us = at_us
            self._wake.set()

    async def wait(self, until_us: int | None) -> None:
        """Returns at `until_us` (None: never by itself), or at the earliest time that was rung for; and when the clock
        was set back, since what is to be done in a second is to be done in a second."""
        until_us = FAR_FUTURE_US if until_us is None else until_us
        before_us = self._clock.now_us()
        while (target_us := min(until_us, self._rung_for_us)) > (now_us := self._clock.now_us()):
            if now_us < before_us - SET_BACK_US:
                break
            before_us = now_us
            self._wake.clear()
            await self._clock.sleep_until(target_us, self._wake)
        self._rung_for_us = FAR_FUTURE_US
        self._wake.clear()
