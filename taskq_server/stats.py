"""What there is now, and what was done in each minute or hour: for whoever looks from outside."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from taskq_server.clock import SECOND_US, Clock
from taskq_server.core.sums import Quantiles, Sums, quantiles
from taskq_server.core.task import TaskState
from taskq_server.metrics import LATENESS, RUN
from taskq_server.store.store import Store
from taskq_server.store.verbs.counting import MOST_COUNTED, Fleet, Kind
from taskq_server.store.verbs.figures import Asked, Span

CACHED_US = 5 * SECOND_US
MOST_CACHED = 8
"""Histories of names, of which each look may ask for other times."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many tasks are in a state."""

    state: TaskState
    tasks: int
    is_partial: bool
    """There are as many, or more."""


@dataclass(frozen=True, slots=True)
class Now:
    """What there is, a few seconds ago at most."""

    counts: list[Count]
    due: int
    oldest_due_us: int | None
    fleet: Fleet
    running: int


class Stats:
    """Looks, but not for everybody who asks: what there is now, and the history of each name, is read once in five
    seconds."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._counting = asyncio.Lock()
        self._now: Now | None = None
        self._counted_us = 0
        self._adding = asyncio.Lock()
        self._histories: dict[Asked, tuple[int, list[tuple[Span, Sums]]]] = {}
        """Of each name, and when they were read, the last one last."""

    async def now(self) -> Now:
        async with self._counting:
            now_us = self._clock.now_us()
            if self._now is None or abs(now_us - self._counted_us) >= CACHED_US:
                self._now = await self._count()
                self._counted_us = now_us
            return self._now

    async def _count(self) -> Now:
        # One after the other: whoever else reads comes in between.
        counts = {kind: await self._store.count(kind) for kind in Kind}
        backlog = await self._store.backlog()
        return Now(
            _states(counts),
            sum(one.due for one in backlog),
            min((one.first_due_us for one in backlog), default=None),
            await self._store.fleet(),
            counts[Kind.RUNNING],
        )

    async def history(self, asked: Asked) -> list[tuple[Span, Sums]]:
        """In the order of time, then of names; spans in which nothing was done are left out."""
        if asked.name is not None:
            return await self._store.sums(asked)
        # Until the end of the span that it ends in: whoever asks until now asks the same for as long.
        asked = replace(asked, end_us=asked.end_us + -asked.end_us % (asked.step_seconds * SECOND_US))
        async with self._adding:
            now_us = self._clock.now_us()
            read_us, found = self._histories.pop(asked, (now_us - CACHED_US, []))
            if abs(now_us - read_us) >= CACHED_US:
                read_us, found = now_us, await self._store.sums(asked)
            self._histories[asked] = read_us, found
            while len(self._histories) > MOST_CACHED:
                del self._histories[next(iter(self._histories))]
            return found


def _states(counts: dict[Kind, int]) -> list[Count]:
    def count(state: TaskState, kind: Kind) -> Count:
        return Count(state, counts[kind], counts[kind] >= MOST_COUNTED)

    failed, cancelled = count(TaskState.FAILED, Kind.FAILED), count(TaskState.CANCELLED, Kind.CANCELLED)
    rest = max(0, counts[Kind.FINISHED] - failed.tasks - cancelled.tasks)
    return [
        count(TaskState.SCHEDULED, Kind.SCHEDULED),
        count(TaskState.RUNNING, Kind.RUNNING),
        Count(TaskState.SUCCEEDED, rest, counts[Kind.FINISHED] >= MOST_COUNTED),
        failed,
        cancelled,
    ]


def lateness(sums: Sums) -> Quantiles:
    """From due to dispatched, in seconds."""
    return quantiles(sums.lateness, LATENESS)


def run_time(sums: Sums) -> Quantiles:
    """From sent to reported, in seconds."""
    return quantiles(sums.run, RUN)
