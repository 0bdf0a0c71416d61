"""Leases what is due and pushes it: commit first, then push.

To commit takes milliseconds, which whoever waits for a given instant should not notice: what will be due in a moment is
leased to seats that nothing else wants, and kept here until it is due.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from itertools import count

import structlog

from taskq_server.clock import SECOND_US, Alarm, Clock
from taskq_server.core.errors import StorageUnavailable, TaskqError
from taskq_server.core.matching import Demand
from taskq_server.core.task import Assignment
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
        self, store: Store, sessions: Sessions, clock: Clock, alarm: Alarm, expect: Callable[[int], None]
    ) -> None:
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
        """Leased by way of an offer, to sessions that nothing can be pushed to any more."""

    async def run(self) -> None:
        while not self._stopping:
            await self._alarm.wait(await self._tick_safely())
        await self._end_offer()
        early, self._early = self._early, []
        await self._give_back([*self._homeless, *(one for _, _, one in early)])

    def stop(self) -> None:
        """Ends `run` after the tick under way: what it leases must be pushed, or given back."""
        self._stopping = True
        self._alarm.ring()

    async def _tick_safely(self) -> int | None:
        try:
            return await self.tick()
        except TaskqError as error:
            log.error("dispatch failed", error=error.in_full)
            return self._clock.now_us() + SECOND_US

    async def tick(self) -> int | None:
        """Leases and pushes what is due and has a seat. Answers when to come back; None: when something changes."""
        await self._end_offer()
        if self._in_doubt:
            await self._sessions.take_stock()
            self._in_doubt = False
        gone, self._homeless = [*self._homeless, *self._push_what_is_due()], []
        demand = self._sessions.demand()
        next_due_us = self._store.next_due_us({route_id for seats in demand.seats for route_id in seats.routes})
        if next_due_us is not None and next_due_us - LEAST_AHEAD_US <= self._clock.now_us():
            demand.ahead_us = LEASE_AHEAD_US
            leased = await self._lease(demand)
            next_due_us = leased.next_due_us
            gone += [assignment for assignment in leased.assignments if not self._push_or_keep(assignment)]
            demand = self._sessions.demand()
        if gone:
            await self._give_back(gone)
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
        """The offer was taken by somebody who stored something; None: in vain."""
        if leased is not None:
            self._homeless += [one for one in leased.assignments if not self._push_or_keep(one)]
        self._alarm.ring()

    def _when(self, next_due_us: int | None) -> int | None:
        """To lease what comes next, or to push what is leased already."""
        times = [] if next_due_us is None else [next_due_us - LEAST_AHEAD_US]
        if self._early:
            unsure_us = self._clock.now_us() - self._clock.surely_us()
            times.append(self._early[0][0] + unsure_us)
        return min(times, default=None)

    def _push_or_keep(self, assignment: Assignment) -> bool:
        """Its seat is taken from now on, and it is pushed when it is due; False when it has nowhere to go."""
        if (session := self._sessions.by_seq(assignment.session_seq)) is not None:
            session.reserve(assignment)
        if assignment.due_time_us <= self._clock.surely_us():
            return self._push(assignment)
        heapq.heappush(self._early, (assignment.due_time_us, next(self._number), assignment))
        return True

    def _push_what_is_due(self) -> list[Assignment]:
        """Of what is kept, in the order in which it was leased, most urgent first; answers what has nowhere to go, or
        has been paused meanwhile."""
        due = []
        while self._early and self._early[0][0] <= self._clock.surely_us():
            due.append(heapq.heappop(self._early)[1:])
        paused = self._store.memory.pauses.names
        return [one for _, one in sorted(due) if one.route.name in paused or not self._push(one)]

    async def _lease(self, demand: Demand) -> Leased:
        try:
            return await self._store.lease(demand)
        except StorageUnavailable:
            self._in_doubt = True
            raise

    async def _give_back(self, gone: Iterable[Assignment]) -> None:
        """Their streams ended, or they were drained, before they could be pushed."""
        by_session: dict[int, list[Assignment]] = {}
        for assignment in gone:
            by_session.setdefault(assignment.session_seq, []).append(assignment)
        for session_seq, assignments in by_session.items():
            if (session := self._sessions.by_seq(session_seq)) is None:
                continue  # whoever ended it has given them back, or the lease will
            for one in assignments:  # held, should giving back fail: then heartbeats find that they never arrived
                session.hold(Held(session_seq, one.task_id, one.attempt, one.route.name))
            await self._sessions.give_back(session, [(one.task_id, one.attempt) for one in assignments])

    def _push(self, assignment: Assignment) -> bool:
        session = self._sessions.by_seq(assignment.session_seq)
        if session is None or session.stream is None or session.is_drained:
            return False
        if (assignment.task_id, assignment.attempt) not in session.in_flight:
            return True  # it was cancelled meanwhile
        session.push(assignment)
        if assignment.run_timeout_us is not None:
            self._expect(assignment.lease_time_us + assignment.run_timeout_us)
        return True
