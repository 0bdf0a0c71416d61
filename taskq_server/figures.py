"""What this server has done, written down once a second: sums by minute and hour, failures that are alike, and hints
for those who watch.

It is gathered in memory from what is committed, so nothing waits for it, and what is never written is what a server
that is killed did in its last second. While there is nothing to tell, nothing is asked of the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress

import structlog

from taskq_server.clock import SECOND_US, Clock
from taskq_server.core.errors import TaskqError
from taskq_server.core.sums import OF_ALL, Sums
from taskq_server.events import Events
from taskq_server.metrics import LATENESS, RUN, Names, count_into
from taskq_server.store.store import Store
from taskq_server.store.transaction import Failed, Transaction
from taskq_server.store.verbs.failures import MOST_NAMED, Failures
from taskq_server.store.verbs.figures import HOUR_SECONDS, MINUTE_SECONDS, Round, Span

log = structlog.get_logger("taskq.figures")

ROUND_SECONDS = 1.0
WATCHED_SECONDS = 0.5
"""While somebody watches."""
MOST_REGISTERED = 300
"""Names that processors have registered for, in the life of a server; all others are one, `_other`."""
MOST_UNREGISTERED = 100
"""Names that only tasks have."""
MOST_GROUPS = 200
"""Of failures that are alike, in a round: whoever makes each message another fills neither memory nor the database."""
MOST_MESSAGE = 1_024

_MINUTE_US = MINUTE_SECONDS * SECOND_US
_ENDED_BADLY = {"failed", "lost", "timed_out"}


class Figures:
    """Gathers, and writes in rounds."""

    def __init__(self, store: Store, clock: Clock, events: Events, build_of: Callable[[int], str]) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._build_of = build_of
        """Answers the build of a session, empty when it is not known here."""
        self._names = Names(MOST_REGISTERED, MOST_UNREGISTERED)
        self._sums: dict[tuple[int, str], Sums] = {}
        """By the minute and the name."""
        self._failures: dict[str, Failures] = {}
        self._summed_at = 0.0
        self._pruned_us = 0
        self._writing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        events.on_hint = self._wake.set

    def register(self, names: Iterable[str]) -> None:
        """A processor runs these."""
        self._names.register(names)

    # ── what is told ─────────────────────────────────────────────────────────────────────────────────────────────────

    def committed(self, transaction: Transaction) -> None:
        """Something is safe."""
        minute_us = transaction.now_us - transaction.now_us % _MINUTE_US
        for name, count in transaction.added.items():
            self._of(minute_us, name).enqueued += count
        for name, count in transaction.leased.items():
            self._of(minute_us, name).leased += count
        for (name, outcome, finished), count in transaction.ended.items():
            sums = self._of(minute_us, name)
            if finished:
                setattr(sums, finished, getattr(sums, finished) + count)
            elif outcome in _ENDED_BADLY:
                sums.retried += count
        for failed in transaction.failures:
            self._fail(failed, transaction.now_us)
        self._events.committed(transaction)

    def pushed(self, lateness: Mapping[str, Collection[float]]) -> None:
        """How many seconds late tasks were sent, by name."""
        minute_us = self._minute_us()
        for name, seconds in lateness.items():
            count_into(self._of(minute_us, name).lateness, LATENESS, seconds)

    def ran(self, spans: Mapping[tuple[str, str], Collection[float]]) -> None:
        """How many seconds attempts took, by name and outcome."""
        minute_us = self._minute_us()
        for (name, _), seconds in spans.items():
            count_into(self._of(minute_us, name).run, RUN, seconds)

    def _minute_us(self) -> int:
        now_us = self._clock.now_us()
        return now_us - now_us % _MINUTE_US

    def _of(self, minute_us: int, name: str) -> Sums:
        key = minute_us, self._names.waiting(name)
        if (sums := self._sums.get(key)) is None:
            sums = self._sums[key] = _nothing()
            self._wake.set()
        return sums

    def _fail(self, failed: Failed, now_us: int) -> None:
        fingerprint = failed.alike.fingerprint
        group = self._failures.get(fingerprint)
        if group is None:
            if len(self._failures) >= MOST_GROUPS:
                return
            facts = failed.name, failed.error_type, failed.alike.pattern
            group = self._failures[fingerprint] = Failures(fingerprint, *facts, first_time_us=now_us)
            self._wake.set()
        group.failures += 1
        group.last_time_us = max(now_us, group.last_time_us)
        group.last_message = failed.message[:MOST_MESSAGE]
        group.top_frame = failed.alike.top_frame
        group.last_task_id = failed.task_id
        _name(group.processor_names, failed.processor_name)
        _name(group.build_ids, self._build_of(failed.session_seq))

    # ── what is written ──────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Writes until `stop`, and what is left then."""
        while not self._stopping.is_set():
            await self._wake.wait()
            self._wake.clear()
            await self._rest()
            await self._tick_safely()
        self._summed_at = 0.0
        await self._tick_safely()

    async def _rest(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(WATCHED_SECONDS if self._events.is_watched else ROUND_SECONDS):
                await self._stopping.wait()

    def stop(self) -> None:
        """Lets `run` end."""
        self._stopping.set()
        self._wake.set()

    async def _tick_safely(self) -> None:
        try:
            await self.tick()
        except TaskqError as error:
            log.warning("what was done cannot be written down yet", error=error.in_full)

    async def tick(self) -> None:
        """Writes what there is. What could not be written is written with the next."""
        async with self._writing:
            await self._tick()

    async def _tick(self) -> None:
        sums, failures = self._take()
        hints = self._events.take()
        if not sums and not failures and not hints:
            return
        now_us = self._clock.now_us()
        round = Round(_expanded(sums), list(failures.values()), hints, self._events.is_watched)
        round.prunes = abs(now_us - self._pruned_us) >= _MINUTE_US
        try:
            await self._store.keep_figures(round)
        except TaskqError:
            self._take_back(sums, failures)
            self._events.lost()
            raise
        if round.prunes:
            self._pruned_us = now_us

    def _take(self) -> tuple[dict[tuple[int, str], Sums], dict[str, Failures]]:
        """Once a second at most, however often hints are written."""
        now = asyncio.get_running_loop().time()
        if (self._sums or self._failures) and now - self._summed_at < ROUND_SECONDS * 0.9:
            self._wake.set()
            return {}, {}
        self._summed_at = now
        sums, failures, self._sums, self._failures = self._sums, self._failures, {}, {}
        return sums, failures

    def _take_back(self, sums: dict[tuple[int, str], Sums], failures: dict[str, Failures]) -> None:
        for key, one in sums.items():
            self._of(*key).add(one)
        for fingerprint, group in failures.items():
            if (newer := self._failures.get(fingerprint)) is not None:
                group.failures, group.last_time_us = group.failures + newer.failures, newer.last_time_us
                group.last_message, group.top_frame = newer.last_message, newer.top_frame
                group.last_task_id = newer.last_task_id
                for name in newer.processor_names:
                    _name(group.processor_names, name)
                for build_id in newer.build_ids:
                    _name(group.build_ids, build_id)
        self._failures = failures | {key: one for key, one in self._failures.items() if key not in failures}
        self._wake.set()


def _nothing() -> Sums:
    return Sums(lateness=[0] * (len(LATENESS) + 1), run=[0] * (len(RUN) + 1))


def _name(names: list[str], name: str) -> None:
    """The last one first."""
    if name and names[:1] != [name]:
        if name in names:
            names.remove(name)
        names.insert(0, name)
        del names[MOST_NAMED:]


def _expanded(sums: dict[tuple[int, str], Sums]) -> dict[Span, Sums]:
    """By minute and hour, by name and all together."""
    expanded: dict[Span, Sums] = {}
    for (minute_us, name), one in sums.items():
        for step_seconds in (MINUTE_SECONDS, HOUR_SECONDS):
            start_us = minute_us - minute_us % (step_seconds * SECOND_US)
            for about in (name, OF_ALL):
                span = Span(step_seconds, start_us, about)
                if span not in expanded:
                    expanded[span] = _nothing()
                expanded[span].add(one)
    return expanded
