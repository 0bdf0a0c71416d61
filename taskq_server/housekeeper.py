"""Takes back what nobody will report, fails what is too late, prunes what is old."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from taskq_server.clock import FAR_FUTURE_US, MILLISECOND_US, SECOND_US, SET_BACK_US, Alarm, Clock
from taskq_server.core.errors import TaskqError
from taskq_server.sessions import Sessions
from taskq_server.store.store import Store
from taskq_server.store.verbs.living import Grace
from taskq_server.store.verbs.pruning import MOST_TASKS_PER_PRUNE

log = structlog.get_logger("taskq.housekeeper")


LOCKED_US = 100 * MILLISECOND_US
"""What is out of time and could not be taken back is in the hands of another server: so long it is left alone."""

FORGET_US = 3_600 * SECOND_US


class Housekeeper:
    """Wakes when the first session or attempt runs out of time.

    A server that was stopped or starved could not hear heartbeats, so after each pause, and at the start, every session
    is spared for half a lease: a processor that lives has been heard by then.
    """

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        clock: Clock,
        alarm: Alarm,
        dispatch: Callable[[], None],
        lease_duration_us: int,
        retention_us: int,
        audit_retention_us: int,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._alarm = alarm
        self._dispatch = dispatch
        self._grace_us = lease_duration_us // 2
        self._pulse_us = lease_duration_us // 8
        self._retention_us = retention_us
        self._audit_retention_us = audit_retention_us
        self._last_tick_us = 0
        self._storage_was_away = False
        self._reclaim_at_us = 0
        self._prune_at_us = 0
        self._forget_at_us = 0

    async def run(self) -> None:
        while True:
            await self._alarm.wait(await self._tick_safely())

    async def _tick_safely(self) -> int:
        try:
            return await self.tick()
        except TaskqError as error:
            log.error("housekeeping failed", error=error.in_full)
            self._last_tick_us = 0  # heartbeats failed as well: it counts as a pause
            self._storage_was_away = True
            return self._clock.now_us() + SECOND_US

    def expect(self, time_us: int) -> None:
        """Something runs out of time then."""
        if time_us < self._reclaim_at_us:
            self._reclaim_at_us = time_us
            self._alarm.ring(time_us)

    async def tick(self) -> int:
        """Does what is due and answers when to come back."""
        now_us = self._clock.now_us()
        if now_us < self._last_tick_us - SET_BACK_US:
            self._reclaim_at_us = self._prune_at_us = self._forget_at_us = 0
        paused = now_us - self._last_tick_us > 2 * self._pulse_us
        if paused:
            await self._store.spare(Grace(self._grace_us, everybody=self._storage_was_away))
            self._storage_was_away = False
        self._last_tick_us = now_us
        if now_us >= self._reclaim_at_us:
            await self._reclaim()
        if now_us >= self._prune_at_us:
            await self._prune_safely(now_us)
        return min(self._reclaim_at_us, self._prune_at_us, self._clock.now_us() + self._pulse_us)

    async def _reclaim(self) -> None:
        self._reclaim_at_us = FAR_FUTURE_US  # whoever calls `expect` meanwhile lowers it again
        await self._sessions.keep_all_heard()
        reclaimed = await self._store.reclaim()
        for session_seq in reclaimed.dead:
            self._sessions.drop(session_seq, "no heartbeat within the lease")
        for held in reclaimed.timed_out:
            log.info("attempt ran too long", task=held.task_id.hex(), attempt=held.attempt, name=held.name)
            if (session := self._sessions.by_seq(held.session_seq)) is not None:
                session.revoke((held.task_id, held.attempt), cancelled=False)
        now_us, next_us = self._clock.now_us(), reclaimed.next_us or FAR_FUTURE_US
        if reclaimed.dead or reclaimed.timed_out:
            self._dispatch()
        else:
            next_us = max(next_us, now_us + LOCKED_US)
        # a session that registers may end before any other
        self._reclaim_at_us = min(self._reclaim_at_us, now_us + 8 * self._pulse_us, next_us)

    async def _prune_safely(self, now_us: int) -> None:
        """What cannot be pruned must not keep those alive who are dead, as a pause does."""
        try:
            await self._prune(now_us)
        except TaskqError as error:
            log.error("pruning failed", error=error.in_full)
            self._prune_at_us = now_us + SECOND_US
            self._storage_was_away = True

    async def _forget(self, now_us: int) -> None:
        """What administrators did long ago: some at a time, as often as tasks are pruned, then again in an hour."""
        gone = await self._store.forget_history(self._audit_retention_us)
        self._forget_at_us = now_us if gone else now_us + FORGET_US

    async def _prune(self, now_us: int) -> None:
        if now_us >= self._forget_at_us:
            await self._forget(now_us)
        pruned = await self._store.prune(self._retention_us)
        if pruned.tasks == MOST_TASKS_PER_PRUNE:
            self._prune_at_us = now_us
        else:  # what finishes from now on is kept for a while; look again when the oldest goes, not before a second
            self._prune_at_us = max(min(pruned.next_us or FAR_FUTURE_US, now_us + 60 * SECOND_US), now_us + SECOND_US)
