"""What becomes of a firing while a task of its schedule is unfinished."""

from __future__ import annotations

from taskq.v1 import schedule_service_pb2 as schedule_pb2
from tests.rpc.schedules.given import MINUTE, counted, fire
from tests.rpc.support import CANCELLED, RUNNING, microseconds, span
from tests.rpc.world import World
from tests.support.schedules import RawSchedules, every


async def test_with_skip_nothing_fires_while_a_task_is_unfinished(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(60))
    processor = await world.processor()
    await fire(world, 60)
    task = await processor.take_one()

    await fire(world, 60)
    await fire(world, 60)
    assert await counted(schedules) == (1, 2, 2)

    await processor.succeed(task)
    await fire(world, 60)
    assert await counted(schedules) == (2, 2, 2)


async def test_a_retry_that_waits_is_unfinished_too(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(60))
    processor = await world.processor()
    await fire(world, 60)
    await processor.fail(await processor.take_one(), retry_delay=span(3600))

    await fire(world, 60)

    assert await counted(schedules) == (1, 1, 1)


async def test_with_buffer_one_the_next_starts_when_the_one_before_it_has_finished(
    world: World, schedules: RawSchedules
) -> None:
    await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_BUFFER_ONE))
    processor = await world.processor()
    await fire(world, 60)
    task = await processor.take_one()
    for _ in range(3):
        again_us = await fire(world, 60)
    assert again_us <= world.clock.now_us() + 250_000
    assert await counted(schedules) == (1, 2, 3)
    assert (await schedules.get(name="nightly")).buffered_firings == 1

    await processor.succeed(task)
    await fire(world, 0.25)

    buffered = await processor.take_one()
    assert microseconds(buffered.due_time) - microseconds(task.due_time) == MINUTE, "the first that had to wait"
    assert await counted(schedules) == (2, 2, 3)


async def test_with_buffer_all_firings_run_one_after_the_other_in_their_order(
    world: World, schedules: RawSchedules
) -> None:
    await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_BUFFER_ALL, max_buffered=3))
    processor = await world.processor()
    for _ in range(6):
        await fire(world, 60)
    assert await counted(schedules) == (1, 2, 5)

    times = []
    for _ in range(4):
        task = await processor.take_one()
        times.append(microseconds(task.due_time))
        await world.dispatched()
        assert not processor.stream.tasks, "one at a time"
        await processor.succeed(task)
        await fire(world, 0.25)

    assert times == [times[0] + i * MINUTE for i in range(4)]


async def test_with_cancel_other_the_one_before_is_cancelled_and_its_processor_told(
    world: World, schedules: RawSchedules
) -> None:
    await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_CANCEL_OTHER))
    processor = await world.processor()
    await fire(world, 60)
    before = await processor.take_one()

    await fire(world, 60)

    assert [one.task_id for one in (await processor.stream.next("cancel")).attempts] == [before.task_id]
    assert (await world.scheduler.get(before.task_id)).state == CANCELLED
    assert (await processor.take_one()).task_id != before.task_id
    assert await counted(schedules) == (2, 0, 1)


async def test_with_allow_all_firings_run_beside_each_other(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_ALLOW_ALL))
    processor = await world.processor()
    for _ in range(3):
        await fire(world, 60)

    tasks = await processor.take(3)
    assert await world.scheduler.states([one.task_id for one in tasks]) == [RUNNING] * 3
