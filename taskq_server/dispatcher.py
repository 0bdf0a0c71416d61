"""Leases what is due and pushes it: commit first, then push.

To commit takes milliseconds, which whoever waits for a given instant should not notice: what will be due in a moment is
leased to seats that nothing else wants, and kept here until it is due.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

import structlog

from taskq_server.clock import SECOND_US, Alarm, Clock
from taskq_server.core.errors import StorageUnavailable, TaskqError
from taskq_server.core.matching import Demand
from taskq_server.core.task import Assignment
from taskq_server.metrics import Metrics
from taskq_server.session import AttemptKey
from taskq_server.sessions import Sessions
from taskq_server.store.offer import Offer
from taskq_server.store.store import Store
from taskq_server.store.verbs.leasing import Leased
from taskq_server.store.verbs.living import Held

log = structlog.get_logger("taskq.dispatcher")

LEASE_AHEAD_US = 20_000
"""500 tasks/s, each due at an instant of its own, were pushed 3.2 ms late without it (p50), of which commits took 2."""
LEAST_AHEAD_US = LEASE_AHEAD_US // 2
"""How far ahead the next lease is made: what is due in between goes with it."""


class Dispatcher:
    """Sleeps until a task falls due or a credit comes back, then leases as much as the sessions can take."""

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        clock: Clock,
        alarm: Alarm,
        expect: Callable[[int], None],
        metrics: Metrics,
    ) -> None:
        self._metrics = metrics
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._alarm = alarm
        self._expect = expect
        """Told when a leased attempt will have run too long."""
        self._stopping = False
        self._in_doubt = False
        """The last lease may have been committed, or not: nobody was told."""
        self._early: list[tuple[int, int, Assignment]] = []
        """A heap of what is leased and not due yet."""
        self._number = count()
        self._offer: Offer | None = None
        """What is free, left with the store for what is due as soon as it is stored."""
        self._homeless: list[Assignment] = []
        """Leased to sessions to which nothing can be pushed any more, and to be given back."""

    async def run(self) -> None:
        while not self._stopping:
            await self._alarm.wait(await self._tick_safely())
        await self._end_offer()
        self._homeless += [one for _, _, one in self._early]
        self._early = []
        try:
            await self._give_back()
        except TaskqError as error:  # then heartbeats find that they never arrived
            log.error("what was leased and not pushed is not given back", error=error.in_full)

    def stop(self) -> None:
        """Ends `run` after the tick under way: what it leases must be pushed, or given back."""
        self._stopping = True
        self._alarm.ring()

    async def _tick_safely(self) -> int | None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            again_us = await self.tick()
        except TaskqError as error:
            log.error("dispatch failed", error=error.in_full)
            return self._when(self._clock.now_us() + SECOND_US + LEAST_AHEAD_US)
        self._metrics.dispatched(loop.time() - began)
        return again_us

    async def tick(self) -> int | None:
        """Leases and pushes what is due and has a seat. Answers when to come back; None: when something changes."""
        self._push_what_is_due()  # which needs no database
        await self._end_offer()
        if self._in_doubt:
            await self._sessions.take_stock()
            self._in_doubt = False
        demand = self._sessions.demand()
        next_due_us = self._store.next_due_us({route_id for seats in demand.seats for route_id in seats.routes})
        if next_due_us is not None and next_due_us - LEAST_AHEAD_US <= self._clock.now_us():
            demand.ahead_us = LEASE_AHEAD_US
            leased = await self._lease(demand)
            next_due_us = leased.next_due_us
            self._push_or_keep(leased)
            demand = self._sessions.demand()
        if self._homeless:
            await self._give_back()
            return self._clock.now_us()  # another may take them
        if next_due_us is None or next_due_us > self._clock.now_us():
            self._make_offer(demand)
        return self._when(next_due_us)

    def _make_offer(self, demand: Demand) -> None:
        """Leaves what is free with the store, until the next tick."""
        demand.ahead_us = LEASE_AHEAD_US
        if demand.seats:
            self._offer = self._store.offer(demand, self._take_up)

    async def _end_offer(self) -> None:
        if self._offer is not None:
            await self._offer.withdraw()
            self._offer = None

    def _take_up(self, leased: Leased | None) -> None:
        """The offer was taken by somebody who stored something; None: in vain, or so it seems."""
        if leased is None:
            self._in_doubt = True
        else:
            self._push_or_keep(leased)
        self._alarm.ring()

    def _when(self, next_due_us: int | None) -> int | None:
        """To lease what comes next, or to push what is leased already."""
        times = [] if next_due_us is None else [next_due_us - LEAST_AHEAD_US]
        if self._early:
            unsure_us = self._clock.now_us() - self._clock.surely_us()
            times.append(self._early[0][0] + unsure_us)
        return min(times, default=None)

    def _push_or_keep(self, leased: Leased) -> None:
        """Seats are taken from now on, and tasks are pushed when they are due."""
        for assignment in leased.assignments:
            if (session := self._sessions.by_seq(assignment.session_seq)) is not None:
                session.reserve(assignment)
            if assignment.due_time_us <= self._clock.surely_us():
                self._push(assignment)
            else:
                heapq.heappush(self._early, (assignment.due_time_us, next(self._number), assignment))

    def _push_what_is_due(self) -> None:
        """Of what is kept, in the order in which it was leased, most urgent first, unless it has been paused since."""
        due = []
        while self._early and self._early[0][0] <= self._clock.surely_us():
            due.append(heapq.heappop(self._early)[1:])
        paused = self._store.memory.pauses.names
        for _, assignment in sorted(due):
            if assignment.route.name in paused:
                self._homeless.append(assignment)
            else:
                self._push(assignment)

    async def _lease(self, demand: Demand) -> Leased:
        try:
            return await self._store.lease(demand)
        except StorageUnavailable:
            self._in_doubt = True
            raise

    async def _give_back(self) -> None:
        """What is homeless goes to others. Should that fail, it is tried again, and heartbeats find that it never
        arrived."""
        by_session: dict[int, list[AttemptKey]] = {}
        for one in self._homeless:
            by_session.setdefault(one.session_seq, []).append((one.task_id, one.attempt))
            if (session := self._sessions.by_seq(one.session_seq)) is not None:
                session.hold(Held(one.session_seq, one.task_id, one.attempt, one.route.name))
        for session_seq, keys in by_session.items():
            await self._sessions.give_back(session_seq, keys)
            self._homeless = [one for one in self._homeless if one.session_seq != session_seq]

    def _push(self, assignment: Assignment) -> None:
        """To its session's stream. What was cancelled meanwhile goes nowhere; what cannot be pushed any more, since the
        stream has ended or the session was drained or has moved, goes to others."""
        session = self._sessions.by_seq(assignment.session_seq)
        if session is None or session.stream is None or session.is_drained:
            self._homeless.append(assignment)
        elif (assignment.task_id, assignment.attempt) in session.in_flight:
            session.push(assignment)
            if assignment.run_timeout_us is not None:
                self._expect(assignment.lease_time_us + assignment.run_timeout_us)
