"""What runs too long, what is not started in time, and what a task may say about it."""

from __future__ import annotations

from taskq.v1 import task_pb2
from tests.rpc.support import (
    FAILED,
    LEASE_LOST,
    RUNNING,
    SCHEDULED,
    keys,
    microseconds,
    retrying,
    span,
    time_at,
)
from tests.rpc.world import World


async def test_an_attempt_that_runs_too_long_is_ended_and_another_comes(world: World) -> None:
    # given a processor that lives, and an attempt that it does not end
    processor = await world.processor(max_in_flight=2)
    task_id = await world.scheduler.enqueue(run_timeout=span(5), retry_policy=retrying(1))
    task = await processor.take_one()
    world.clock.advance(us=4_999_999)
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).state == RUNNING

    # when its time is over, then the processor is told to stop it
    world.clock.advance(us=1)
    stop = await processor.stream.next("cancel")
    assert keys(stop.attempts) == {(task_id, 1)}
    found = await world.scheduler.get(task_id)
    assert (found.state, found.failed_attempts) == (SCHEDULED, 1)
    assert found.last_failure.error_type == "RUN_TIMEOUT"
    assert found.last_failure.attempt == 1
    assert microseconds(found.last_failure.failure_time) == world.clock.now_us()

    # then heartbeats say lost, its report is stale, and the next attempt comes after the delay
    assert keys((await processor.heartbeat(task)).lost) == {(task_id, 1)}
    assert (await processor.succeed(task)).status == LEASE_LOST
    world.clock.advance(1)
    again = await processor.take_one()
    assert (again.attempt, again.last_failure.error_type) == (2, "RUN_TIMEOUT")
    assert microseconds(again.run_deadline) == world.clock.now_us() + 5_000_000


async def test_an_attempt_that_ran_too_long_keeps_its_credit_until_the_processor_lets_go(world: World) -> None:
    processor = await world.processor(max_in_flight=1)
    task_id = await world.scheduler.enqueue(run_timeout=span(2), retry_policy=retrying(0))
    task = await processor.take_one()
    await world.let_pass(2)
    await processor.stream.next("cancel")
    await processor.heartbeat(task)
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).state == SCHEDULED

    await processor.heartbeat()
    assert (await processor.take_one()).attempt == 2


async def test_run_timeouts_end_the_task_when_no_attempts_are_left(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue(run_timeout=span(1), retry_policy=retrying(0, max_attempts=2))
    for _ in range(2):
        await processor.take_one()
        await world.let_pass(1, processor)
        await processor.stream.next("cancel")
    found = await world.scheduler.get(task_id)
    assert (found.state, found.failed_attempts, found.last_failure.error_type) == (FAILED, 2, "RUN_TIMEOUT")


async def test_run_timeout_may_be_an_error_that_is_not_retried(world: World) -> None:
    processor = await world.processor()
    policy = task_pb2.RetryPolicy(non_retryable_errors=["RUN_TIMEOUT"])
    task_id = await world.scheduler.enqueue(run_timeout=span(1), retry_policy=policy)
    await processor.take_one()
    await world.let_pass(1)
    assert (await world.scheduler.get(task_id)).state == FAILED


async def test_a_report_in_time_is_not_touched_by_the_run_timeout(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue(run_timeout=span(5))
    await processor.succeed(await processor.take_one(), b"in time")
    await world.let_pass(10, processor)
    assert (await world.scheduler.get(task_id)).result.data == b"in time"


async def test_a_task_that_was_not_started_by_its_expire_time_is_failed(world: World) -> None:
    await world.registered()
    expiry = time_at(world.clock.now_us() + 3_000_000)
    task_id = await world.scheduler.enqueue(expire_time=expiry)
    world.clock.advance(us=2_999_999)
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).state == SCHEDULED

    world.clock.advance(us=1)
    found = (await world.scheduler.watch(task_id).rest())[-1]
    assert (found.state, found.last_failure.error_type, found.attempt) == (FAILED, "EXPIRED", 0)


async def test_a_task_expires_at_its_time_though_nobody_calls_and_nothing_is_due(world: World) -> None:
    task_id = await world.scheduler.enqueue(expire_time=time_at(world.clock.now_us() + 3_000_000))
    watch = world.scheduler.watch(task_id)
    assert (await watch.next()).state == SCHEDULED
    world.clock.advance(3)
    (seen,) = await watch.rest()
    assert (seen.state, seen.last_failure.error_type) == (FAILED, "EXPIRED")


async def test_an_expired_task_is_not_given_to_a_processor_that_comes_in_the_same_instant(world: World) -> None:
    task_id = await world.scheduler.enqueue(expire_time=time_at(world.clock.now_us() + 1))
    world.clock.advance(us=1)
    await world.processor()
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).state == FAILED


async def test_a_task_that_has_failed_once_does_not_expire(world: World) -> None:
    processor = await world.processor()
    expiry = time_at(world.clock.now_us() + 1_000_000)
    task_id = await world.scheduler.enqueue(expire_time=expiry, retry_policy=retrying(3))
    await processor.fail(await processor.take_one())
    await world.let_pass(3, processor)
    again = await processor.take_one()
    assert (again.task_id, again.attempt) == (task_id, 2)


async def test_a_task_that_is_already_too_late_when_it_is_enqueued_is_failed(world: World) -> None:
    await world.processor()
    task_id = await world.scheduler.enqueue(expire_time=time_at(1))
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).last_failure.error_type == "EXPIRED"
