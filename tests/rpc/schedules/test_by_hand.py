"""Schedules are triggered and backfilled, over the wire."""

from __future__ import annotations

import uuid
from typing import Any

import grpc

from taskq.v1 import schedule_service_pb2 as schedule_pb2
from taskq_server.core.recurring import firing_task_id
from tests.rpc.schedules.given import MINUTE, fire, nominal_times, until
from tests.rpc.support import SCHEDULED, microseconds, refused, time_at
from tests.rpc.world import World
from tests.support.schedules import BUFFERED, FIRED, SKIPPED, RawSchedules, every, tasks_of


async def test_a_trigger_fires_once_however_often_it_is_sent(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(3600))
    task_id = str(uuid.uuid4())

    first = await schedules.trigger(name="nightly", task_id=task_id)
    again = await schedules.trigger(name="nightly", task_id=task_id)

    assert (first.outcome, first.firing) == (again.outcome, again.firing) and first.outcome == FIRED
    assert first.firing.task_id == task_id
    assert (await world.scheduler.get(task_id)).state == SCHEDULED
    assert again.schedule.counters.fired == 1


async def test_a_trigger_goes_by_the_overlap_policy_or_by_another(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(3600))
    await schedules.trigger(name="nightly")

    by_own = await schedules.trigger(name="nightly")
    waiting = await schedules.trigger(name="nightly", overlap=schedule_pb2.OVERLAP_BUFFER_ONE)
    beside = await schedules.trigger(name="nightly", overlap=schedule_pb2.OVERLAP_ALLOW_ALL)

    assert (by_own.outcome, waiting.outcome, beside.outcome) == (SKIPPED, BUFFERED, FIRED)
    assert not by_own.HasField("firing")
    assert beside.schedule.buffered_firings == 1 and beside.schedule.unfinished_tasks == 2


async def test_a_buffered_trigger_keeps_its_task_id_and_is_not_made_twice(
    world: World, schedules: RawSchedules
) -> None:
    await schedules.create(every(3600, overlap=schedule_pb2.OVERLAP_BUFFER_ALL))
    processor = await world.processor()
    await schedules.trigger(name="nightly")
    task_id = str(uuid.uuid4())

    outcomes = [(await schedules.trigger(name="nightly", task_id=task_id)).outcome for _ in range(2)]
    await processor.succeed(await processor.take_one())
    await fire(world, 0.25)

    assert outcomes == [BUFFERED, BUFFERED]
    assert (await processor.take_one()).task_id == task_id


async def test_a_trigger_cannot_take_the_id_of_another_task(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(3600))
    task_id = await world.scheduler.enqueue()

    refusal = await refused(schedules.trigger(name="nightly", task_id=task_id))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "TASK_EXISTS")


async def test_a_trigger_fires_what_is_paused_or_has_ended(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(60, max_firings=1, overlap=schedule_pb2.OVERLAP_ALLOW_ALL))
    await fire(world, 60)
    await schedules.pause(name="nightly")

    assert (await schedules.trigger(name="nightly")).outcome == FIRED


async def test_a_backfill_fires_what_has_not_fired_in_a_range_and_nothing_twice(
    world: World, schedules: RawSchedules
) -> None:
    now_us = world.clock.now_us()
    await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_ALLOW_ALL))
    await fire(world, 60)
    (fired_us,) = await nominal_times(world)
    world.clock.advance(1)
    times = {"start_time": time_at(fired_us - 4 * MINUTE), "end_time": time_at(world.clock.now_us())}

    first = await schedules.backfill(name="nightly", **times)
    again = await schedules.backfill(name="nightly", **times)

    assert (first.fired, first.existing) == (4, 1) and (again.fired, again.existing) == (0, 5)
    assert await nominal_times(world) == [fired_us - i * MINUTE for i in (4, 3, 2, 1, 0)]
    assert fired_us - 4 * MINUTE < now_us, "before the schedule was made"


async def test_a_backfill_goes_by_the_overlap_policy(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_BUFFER_ALL, max_buffered=2))
    now_us = world.clock.now_us()

    done = await schedules.backfill(name="nightly", start_time=time_at(now_us - 5 * MINUTE), end_time=time_at(now_us))

    assert (done.fired, done.buffered, done.skipped) == (1, 2, 2)


async def test_a_range_must_be_over_and_not_too_long(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(1))
    now_us = world.clock.now_us()

    refusal = await refused(
        schedules.backfill(name="nightly", start_time=time_at(now_us - 1_001_000_000), end_time=time_at(now_us + 1))
    )

    assert set(refusal.faults) == {"end_time"}
    assert "later than now" in refusal.message and "1,000 nominal times" in refusal.message


async def test_a_backfill_does_not_fire_what_has_been_pruned(world: World, schedules: RawSchedules) -> None:
    new = every(60)
    new.task.retention.seconds = 1
    await schedules.create(new)
    processor = await world.processor()
    await fire(world, 60)
    (fired_us,) = await nominal_times(world)
    await processor.succeed(await processor.take_one())
    world.clock.advance(5)
    await world.server._store.prune(0)
    assert await nominal_times(world) == []

    async def backfill(start_us: int) -> Any:
        end = time_at(world.clock.now_us())
        return await schedules.backfill(name="nightly", start_time=time_at(start_us), end_time=end)

    refusal = await refused(backfill(fired_us))
    after = await backfill(fired_us + 1)

    assert set(refusal.faults) == {"start_time"}
    assert after.fired == 0


async def test_what_a_pause_has_left_out_is_backfilled_once_and_goes_on_from_there(
    world: World, schedules: RawSchedules
) -> None:
    made = await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_CANCEL_OTHER, max_firings=10))
    first_us = microseconds(made.next_fire_time)
    await schedules.pause(name="nightly")
    world.clock.advance(until(world, made) + 4 * 60 + 30)
    now = time_at(world.clock.now_us())

    refusal = await refused(
        schedules.backfill(name="nightly", start_time=time_at(first_us + MINUTE), end_time=now),
    )
    done = await schedules.backfill(name="nightly", start_time=time_at(first_us), end_time=now)
    resumed = await schedules.resume(name="nightly")
    await fire(world)

    assert set(refusal.faults) == {"start_time"}, "what is before it would be caught up with afterwards"
    assert microseconds(resumed.next_fire_time) == first_us + 5 * MINUTE
    assert resumed.remaining_firings == 10
    tasks = await tasks_of(world.server._store, "nightly")
    assert [(one.nominal_us, one.state) for one in tasks] == [(first_us + 4 * MINUTE, SCHEDULED)]
    assert (done.fired, done.skipped) == (1, 4), "each was superseded by the next"


async def test_a_firing_whose_id_somebody_has_taken_fires_all_the_same(world: World, schedules: RawSchedules) -> None:
    made = await schedules.create(every(60))
    nominal_us = microseconds(made.next_fire_time)
    taken = firing_task_id(uuid.UUID(made.schedule_id).bytes, nominal_us)
    await world.scheduler.enqueue("bake", task_id=str(uuid.UUID(bytes=taken)))

    await fire(world, until(world, made))

    (fired,) = await tasks_of(world.server._store, "nightly")
    assert fired.nominal_us == nominal_us
    assert uuid.UUID(fired.task_id).bytes != taken
    stands = await schedules.get(name="nightly")
    assert (stands.counters.fired, stands.last_firing.task_id) == (1, fired.task_id)
