"""The use cases of a schedule: create, get, list, update, delete, pause, resume, trigger, backfill, preview."""

from __future__ import annotations

import asyncio

import structlog

from taskq_server.clock import Clock
from taskq_server.core.errors import ScheduleNotFound
from taskq_server.core.recurring import Key, Schedule
from taskq_server.core.schedule import Preview, Recurrence, Rule
from taskq_server.firing import Firer
from taskq_server.sessions import Sessions
from taskq_server.store.store import Store
from taskq_server.store.verbs.firing_by_hand import Backfill, Backfilled, Trigger, Triggered
from taskq_server.store.verbs.schedules import Listed
from taskq_server.store.verbs.scheduling import Change, Deletion, NewSchedule, SchedulePause
from taskq_server.task_id import to_text

log = structlog.get_logger("taskq.schedules")


class Schedules:
    """What may be done with schedules. All of it holds on every server of the database."""

    def __init__(self, store: Store, sessions: Sessions, firer: Firer, clock: Clock) -> None:
        self._store = store
        self._sessions = sessions
        self._firer = firer
        self._clock = clock

    async def create(self, new: NewSchedule) -> Schedule:
        """Stores a schedule; ScheduleExists when there is another of its id or name."""
        return self._expected(await self._store.create_schedule(new))

    async def get(self, key: Key) -> Schedule:
        """The schedule as it stands, or ScheduleNotFound."""
        found = await self._store.get_schedule(key)
        if found is None:
            raise missing(key)
        return found

    async def find(self, listed: Listed) -> list[Schedule]:
        """Schedules in the order of the characters of their names."""
        return await self._store.list_schedules(listed)

    async def update(self, change: Change) -> Schedule:
        """Replaces what a schedule says; ScheduleChanged when its etag is another by now."""
        return self._expected(await self._store.change_schedule(change))

    async def delete(self, deletion: Deletion) -> int:
        """Deletes a schedule; answers how many of its tasks were taken back."""
        return await self._store.delete_schedule(deletion)

    async def pause(self, pause: SchedulePause) -> Schedule:
        """Lets a schedule fire no more, on any server, from when this returns."""
        paused = await self._store.pause_schedule(pause)
        log.info("schedule paused", name=paused.definition.name, note=pause.note)
        return paused

    async def resume(self, key: Key) -> Schedule:
        """Lets a schedule fire again."""
        resumed = self._expected(await self._store.resume_schedule(key))
        log.info("schedule resumed", name=resumed.definition.name)
        return resumed

    async def trigger(self, trigger: Trigger) -> Triggered:
        """Fires a schedule now."""
        return await asyncio.shield(self._trigger(trigger))

    async def _trigger(self, trigger: Trigger) -> Triggered:
        """Shielded: whoever asked may go away during the commit, and processors must be told all the same."""
        triggered = await self._store.trigger_schedule(trigger)
        self._sessions.stop(triggered.stopped)
        self._expected(triggered.schedule)
        return triggered

    async def backfill(self, backfill: Backfill) -> Backfilled:
        """Fires a schedule at those nominal times of a range at which it has not."""
        return await asyncio.shield(self._backfill(backfill))

    async def _backfill(self, backfill: Backfill) -> Backfilled:
        """Shielded as a trigger is."""
        backfilled = await self._store.backfill_schedule(backfill)
        self._sessions.stop(backfilled.stopped)
        self._expected(backfilled.schedule)
        return backfilled

    def _expected(self, schedule: Schedule) -> Schedule:
        if schedule.pause_time_us is None:
            self._firer.expect(0 if schedule.buffered else schedule.next_due_us)
        return schedule

    async def preview(self, of: Key | Rule, after_us: int | None, count: int) -> tuple[Recurrence, list[Preview]]:
        """When a schedule fires next, or one would that is not stored."""
        if isinstance(of, Rule):
            recurrence = Recurrence(of, bytes(16))
        else:
            found = await self.get(of)
            recurrence = Recurrence(found.definition.rule, found.schedule_id)
        return recurrence, recurrence.preview(self._clock.now_us() if after_us is None else after_us, count)


def missing(key: Key) -> ScheduleNotFound:
    """What is said of a schedule that does not exist, and of one that the caller may not see."""
    return ScheduleNotFound(key.name if key.schedule_id is None else to_text(key.schedule_id))
