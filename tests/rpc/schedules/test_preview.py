"""When a schedule would fire, told before it does."""

from __future__ import annotations

from taskq.v1 import schedule_service_pb2 as schedule_pb2
from tests.rpc.schedules.given import fire
from tests.rpc.support import microseconds, span, time_at
from tests.rpc.world import World
from tests.support.schedules import RawSchedules, a_schedule, every, tasks_of


async def test_a_preview_shows_what_the_clocks_do(schedules: RawSchedules) -> None:
    rule = a_schedule("x", crons=["30 2 * * *"], time_zone="Europe/Berlin").recurrence

    found = await schedules.preview(recurrence=rule, after_time=time_at(1_711_753_200_000_000), count=2)

    assert [one.local_time for one in found.firings] == ["2024-03-30T02:30:00+01:00", "2024-03-31T03:00:00+02:00"]
    assert [one.dst_mark for one in found.firings] == [schedule_pb2.DST_MARK_NORMAL, schedule_pb2.DST_MARK_GAP]
    assert found.time_zone_version and "02:30" in found.explanation


async def test_a_preview_of_a_schedule_shows_when_it_will_fire(world: World, schedules: RawSchedules) -> None:
    made = await schedules.create(every(60, jitter=span(30)))

    found = await schedules.preview(name="nightly")

    assert len(found.firings) == 10
    assert found.firings[0].nominal_time == made.next_fire_time and found.firings[0].due_time == made.next_due_time
    await fire(world, 75)
    assert (await tasks_of(world.server._store, "nightly"))[0].due_us == microseconds(made.next_due_time)
