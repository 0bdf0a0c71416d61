"""What is done with a schedule at one server holds on all of them, whether they hear each other or only look."""

from __future__ import annotations

from taskq.v1 import schedule_service_pb2 as schedule_pb2
from tests.rpc.support import CANCELLED, microseconds
from tests.rpc.world import Pair, World
from tests.support.schedules import RawSchedules, every, tasks_of


async def fire(*worlds: World, seconds: float = 0) -> None:
    """Moves the clock, which all share, and lets these servers fire what is due."""
    worlds[0].clock.advance(seconds)
    for world in worlds:
        await world.server.firer.tick()


async def fired(world: World) -> list[int]:
    return [one.nominal_us for one in await tasks_of(world.server._store, "nightly")]


async def test_what_is_created_at_one_server_is_fired_by_another_and_once_by_both(pair: Pair) -> None:
    here, there = pair
    made = await RawSchedules(here.channel()).create(every(60, overlap=schedule_pb2.OVERLAP_ALLOW_ALL))

    await fire(there, seconds=60)
    await fire(here, there)

    assert await fired(here) == [microseconds(made.next_fire_time)]


async def test_a_schedule_goes_on_at_another_server_when_the_first_has_gone(pair: Pair) -> None:
    here, there = pair
    await RawSchedules(here.channel()).create(every(60, overlap=schedule_pb2.OVERLAP_ALLOW_ALL))
    await fire(here, seconds=60)
    await here.server.stop()

    await fire(there, seconds=60)

    first, second = await fired(there)
    assert second - first == 60_000_000


async def test_what_another_server_has_made_to_fire_sooner_is_heard(pair: Pair) -> None:
    here, there = pair
    await fire(here, there)
    asleep_until_us = there.server.firer._again_us

    await RawSchedules(here.channel()).create(every(2))
    await there.looks()
    await there.server.neighbours.tick()  # type: ignore[union-attr]

    assert there.server.firer._again_us < asleep_until_us


async def test_a_pause_at_one_server_holds_at_another_that_has_not_heard_of_it(pair: Pair) -> None:
    here, there = pair
    schedules = RawSchedules(here.channel())
    await schedules.create(every(60))
    await fire(there)

    await schedules.pause(name="nightly", note="why")
    await fire(there, seconds=60)

    assert await fired(here) == []
    assert (await RawSchedules(there.channel()).get(name="nightly")).pause.note == "why"


async def test_who_runs_what_is_to_be_cancelled_is_told_by_the_server_that_pushes_to_it(pair: Pair) -> None:
    here, there = pair
    schedules = RawSchedules(here.channel())
    await schedules.create(every(3600, overlap=schedule_pb2.OVERLAP_CANCEL_OTHER))
    processor = await there.processor()
    await schedules.trigger(name="nightly")
    await there.looks()
    before = await processor.take_one()

    await schedules.trigger(name="nightly")
    await there.looks()

    assert [one.task_id for one in (await processor.stream.next("cancel")).attempts] == [before.task_id]
    assert (await here.scheduler.get(before.task_id)).state == CANCELLED
