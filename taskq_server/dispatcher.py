"""Leases what is due and pushes it: commit first, then push."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from taskq_server.clock import SECOND_US, Alarm, Clock
from taskq_server.core.errors import StorageUnavailable, TaskqError
from taskq_server.core.matching import Demand
from taskq_server.core.task import Assignment
from taskq_server.sessions import Sessions
from taskq_server.store.store import Store
from taskq_server.store.verbs.leasing import Leased
from taskq_server.store.verbs.living import Held

log = structlog.get_logger("taskq.dispatcher")


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

    async def run(self) -> None:
        while not self._stopping:
            await self._alarm.wait(await self._tick_safely())

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
        if self._in_doubt:
            await self._sessions.take_stock()
            self._in_doubt = False
        demand = self._sessions.demand()
        next_due_us = self._store.next_due_us({route_id for seats in demand.seats for route_id in seats.routes})
        if next_due_us is None or next_due_us > self._clock.now_us():
            return next_due_us
        leased = await self._lease(demand)
        gone = [assignment for assignment in leased.assignments if not self._push(assignment)]
        if gone:
            await self._give_back(gone)
            return self._clock.now_us()  # another may take them
        return leased.next_due_us

    async def _lease(self, demand: Demand) -> Leased:
        try:
            return await self._store.lease(demand)
        except StorageUnavailable:
            self._in_doubt = True
            raise

    async def _give_back(self, gone: list[Assignment]) -> None:
        """Their streams ended, or they were drained, while the leases were being committed."""
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
        if session is None or session.stream is None or session.drain_reason is not None:
            return False
        session.push(assignment)
        if assignment.run_timeout_us is not None:
            self._expect(assignment.lease_time_us + assignment.run_timeout_us)
        return True
