"""What storage can do with schedules."""

from __future__ import annotations

from functools import partial

from taskq_server.clock import Clock
from taskq_server.core.recurring import Key, Schedule
from taskq_server.store.running import Running, unless_refused
from taskq_server.store.verbs import firing, firing_by_hand, schedules, scheduling
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.firing import Fired, Followed
from taskq_server.store.verbs.firing_by_hand import Backfill, Backfilled, Trigger, Triggered
from taskq_server.store.verbs.schedules import Listed, ToFire
from taskq_server.store.verbs.scheduling import Change, Deletion, NewSchedule, SchedulePause


class ScheduleVerbs(Running):
    """Schedules are kept, and fire."""

    def __init__(self, rules: Rules, clock: Clock) -> None:
        super().__init__(rules, clock)
        self._fire = partial(firing.fire, self.memory, rules)
        self._trigger = partial(firing_by_hand.trigger, self.memory, rules)
        self._backfill = partial(firing_by_hand.backfill, self.memory, rules)

    async def create_schedule(self, new: NewSchedule) -> Schedule:
        """Stores a schedule; answers how it stands, also when it is there already with the same content."""
        return unless_refused((await self.write(scheduling.create, [new]))[0])

    async def change_schedule(self, change: Change) -> Schedule:
        """Replaces what a schedule says, if it still has that etag."""
        return unless_refused((await self.write(scheduling.change, [change]))[0])

    async def delete_schedule(self, deletion: Deletion) -> int:
        """Deletes a schedule; answers how many of its tasks were taken back."""
        return unless_refused((await self.write(scheduling.remove, [deletion]))[0])

    async def pause_schedule(self, pause: SchedulePause) -> Schedule:
        """Lets a schedule fire no more, on any server."""
        return unless_refused((await self.write(scheduling.pause, [pause]))[0])

    async def resume_schedule(self, key: Key) -> Schedule:
        """Lets a schedule fire again."""
        return unless_refused((await self.write(scheduling.resume, [key]))[0])

    async def trigger_schedule(self, trigger: Trigger) -> Triggered:
        """Fires a schedule now, once for each task id."""
        return unless_refused((await self.write(self._trigger, [trigger]))[0])

    async def backfill_schedule(self, backfill: Backfill) -> Backfilled:
        """Fires a schedule at those nominal times of a range at which it has not."""
        return unless_refused((await self.write(self._backfill, [backfill]))[0])

    async def get_schedule(self, key: Key) -> Schedule | None:
        return (await self.read(schedules.get, [key]))[0]

    async def list_schedules(self, listed: Listed) -> list[Schedule]:
        """Schedules in the order of the characters of their names."""
        return (await self.read(schedules.find, [listed]))[0]

    async def to_fire(self) -> ToFire:
        """When there is something to fire, without firing it."""
        return (await self.read(schedules.to_fire, [None]))[0]

    async def fire(self, ahead_us: int) -> Fired:
        """Makes tasks of one batch of what is due, or will be within `ahead_us`."""
        return (await self.write(self._fire, [ahead_us]))[0]

    async def follow_zones(self, after_seq: int = 0) -> Followed:
        """Computes anew when one page of schedules fires that another time zone database has computed."""
        return (await self.write(firing.follow_zones, [after_seq]))[0]
