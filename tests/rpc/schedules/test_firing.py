"""Schedules fire, catch up with what they have missed, and rest while they are paused."""

from __future__ import annotations

from typing import Any

import pytest

from taskq.v1 import schedule_service_pb2 as schedule_pb2
from tests.rpc.schedules.given import MINUTE, fire, nominal_times, until
from tests.rpc.support import microseconds, span
from tests.rpc.world import World
from tests.support.schedules import RawSchedules, a_schedule, every, tasks_of

# ── firing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_each_firing_is_a_task_that_says_what_it_is_and_is_pushed_when_it_is_due(
    world: World, schedules: RawSchedules
) -> None:
    made = await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_ALLOW_ALL, data=b"pasta", headers={"a": "b"}))
    processor = await world.processor()
    due_us = microseconds(made.next_fire_time)

    await fire(world, until(world, made) - 0.4)
    await world.dispatched()
    (one,) = await tasks_of(world.server._store, "nightly")
    assert not world.has_pushed(one.task_id), "stored before its time, and not pushed before it"
    await fire(world, 0.4)
    task = await processor.take_one()

    assert (task.task_id, task.payload.data, microseconds(task.due_time)) == (one.task_id, b"pasta", due_us)
    assert task.headers == {
        "a": "b",
        "taskq-schedule": "nightly",
        "taskq-schedule-id": made.schedule_id,
        "taskq-nominal-time": made.next_fire_time.ToJsonString(),
    }
    now = await schedules.get(name="nightly")
    assert now.last_firing.task_id == task.task_id and now.last_firing.nominal_time == made.next_fire_time
    assert now.counters.fired == 1 and now.unfinished_tasks == 1


async def test_a_schedule_ends_after_as_many_firings_as_it_may_have(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(60, max_firings=2, overlap=schedule_pb2.OVERLAP_ALLOW_ALL))
    for _ in range(4):
        await fire(world, 60)

    ended = await schedules.get(name="nightly")
    assert len(await nominal_times(world)) == 2 == ended.counters.fired
    assert ended.remaining_firings == 0 and not ended.HasField("next_fire_time")


async def test_a_schedule_that_has_nothing_to_do_sleeps(world: World, schedules: RawSchedules) -> None:
    await schedules.create(a_schedule("nightly", interval=span(3600)))

    assert await fire(world) == world.clock.now_us() + MINUTE, "but for a look once a minute"


# ── missed firings ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("catch_up", "fired", "missed"),
    [
        (schedule_pb2.CATCH_UP_SKIP, 0, 5),
        (schedule_pb2.CATCH_UP_LAST, 1, 4),
        (schedule_pb2.CATCH_UP_FIRST, 1, 4),
        (schedule_pb2.CATCH_UP_ALL, 3, 2),
    ],
)
async def test_what_was_missed_is_made_up_for_as_far_as_the_policy_and_the_window_say(
    world: World, schedules: RawSchedules, catch_up: Any, fired: int, missed: int
) -> None:
    """Five are missed, the last of them 30 s ago; the window holds three."""
    made = await schedules.create(
        every(60, catch_up=catch_up, catch_up_window=span(160), overlap=schedule_pb2.OVERLAP_ALLOW_ALL)
    )
    await world.server.stop()
    first_us = microseconds(made.next_fire_time)
    world.clock.advance(us=first_us + 4 * MINUTE + MINUTE // 2 - world.clock.now_us())
    await world.begin()
    schedules = RawSchedules(world.channel())
    await fire(world)

    counters = (await schedules.get(name="nightly")).counters
    assert (counters.fired, counters.missed) == (fired, missed)
    if catch_up == schedule_pb2.CATCH_UP_LAST:
        assert await nominal_times(world) == [first_us + 4 * MINUTE]
    if catch_up == schedule_pb2.CATCH_UP_FIRST:
        assert await nominal_times(world) == [first_us + 2 * MINUTE]


async def test_a_server_that_is_back_at_once_has_missed_nothing(world: World, schedules: RawSchedules) -> None:
    made = await schedules.create(every(60, catch_up=schedule_pb2.CATCH_UP_SKIP))
    await world.server.stop()
    world.clock.advance(us=microseconds(made.next_fire_time) + 9_000_000 - world.clock.now_us())
    await world.begin()
    await fire(world)

    assert await nominal_times(world) == [microseconds(made.next_fire_time)]


# ── pause, resume ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_paused_schedule_does_not_fire_and_goes_on_when_it_is_resumed(
    world: World, schedules: RawSchedules
) -> None:
    made = await schedules.create(every(60))
    began_us = world.clock.now_us()
    await schedules.pause(name="nightly", note="the oven is hot")
    await fire(world, 90)

    again = await schedules.pause(name="nightly", note="it is on fire")
    assert (again.pause.note, microseconds(again.pause.pause_time)) == ("it is on fire", began_us)
    assert await nominal_times(world) == []
    resumed = await schedules.resume(name="nightly")
    await fire(world)

    assert not resumed.HasField("pause")
    assert await nominal_times(world) == [microseconds(made.next_fire_time)], "as the catch-up policy says"
    assert (await schedules.resume(name="nightly")).etag == resumed.etag


async def test_a_pause_takes_back_what_is_not_due_yet_and_a_resume_fires_it(
    world: World, schedules: RawSchedules
) -> None:
    made = await schedules.create(every(60))
    await fire(world, until(world, made) - 0.4)
    assert len(await nominal_times(world)) == 1

    paused = await schedules.pause(name="nightly")

    assert await nominal_times(world) == [] and paused.counters.fired == 0
    assert paused.next_fire_time == made.next_fire_time
    await schedules.resume(name="nightly")
    await fire(world, 0.4)
    assert await nominal_times(world) == [microseconds(made.next_fire_time)]


async def test_what_waits_in_the_buffer_stays_there_while_the_schedule_is_paused(
    world: World, schedules: RawSchedules
) -> None:
    await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_BUFFER_ONE))
    processor = await world.processor()
    await fire(world, 60)
    await fire(world, 60)
    await schedules.pause(name="nightly")
    await processor.succeed(await processor.take_one())

    assert await fire(world, 0.25) > world.clock.now_us() + 30_000_000, "there is nothing to look for"
    assert len(await nominal_times(world)) == 1
    await schedules.resume(name="nightly")
    await fire(world)
    assert len(await nominal_times(world)) == 2
