"""When a task is pushed: not before its due time, and at it."""

from __future__ import annotations

import asyncio

import pytest

from taskq_server.core.errors import StorageUnavailable
from taskq_server.core.task import Ended, Ending, Outcome
from taskq_server.dispatcher import LEASE_AHEAD_US, LEAST_AHEAD_US
from taskq_server.store.store import Store
from tests.rpc.support import RUNNING, SCHEDULED, a_task, microseconds, span, time_at
from tests.rpc.world import World


async def test_a_task_is_not_pushed_a_microsecond_before_its_due_time(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue(due_time=time_at(world.clock.now_us() + 5_000_000))

    world.clock.advance(us=4_999_999)
    await world.dispatched()
    assert not world.has_pushed(task_id)

    world.clock.advance(us=1)
    assigned = await processor.take_one()
    assert assigned.task_id == task_id
    assert world.has_pushed(task_id)
    assert microseconds(assigned.lease_time) == microseconds(assigned.due_time) == world.clock.now_us()


async def test_a_task_that_is_due_takes_none_along_that_is_not(world: World) -> None:
    processor = await world.processor()
    now_us = world.clock.now_us()
    due, not_yet = await world.scheduler.enqueue_all(a_task(), a_task(due_time=time_at(now_us + 1)))
    assert (await processor.take_one()).task_id == due.task_id
    await world.dispatched()
    assert not world.has_pushed(not_yet.task_id)


async def test_what_is_due_in_a_moment_is_leased_and_its_lease_begins_when_it_is_due(world: World) -> None:
    processor = await world.processor()
    due_us = world.clock.now_us() + 5_000_000
    task_id = await world.scheduler.enqueue(due_time=time_at(due_us), run_timeout=span(2))

    world.clock.advance(us=5_000_000 - LEASE_AHEAD_US - 1)
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).state == SCHEDULED
    world.clock.advance(us=LEAST_AHEAD_US)
    await world.dispatched()
    task = await world.scheduler.get(task_id)
    assert (task.state, microseconds(task.lease_time)) == (RUNNING, due_us)

    world.clock.advance(us=LEASE_AHEAD_US)
    assert microseconds((await processor.take_one()).run_deadline) == due_us + 2_000_000


async def test_what_is_cancelled_between_its_lease_and_its_due_time_is_never_pushed(world: World) -> None:
    processor = await world.processor(max_in_flight=1)
    task_id = await world.scheduler.enqueue(delay=span(0.001))
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).state == RUNNING

    await world.scheduler.cancel(task_id)
    other = await world.scheduler.enqueue()

    assert (await processor.take_one()).task_id == other, "the credit is back"
    world.clock.advance(1)
    await world.dispatched()
    assert not world.has_pushed(task_id)


async def test_what_is_leased_early_to_a_processor_that_leaves_goes_to_another_when_it_is_due(world: World) -> None:
    leaving = await world.processor(max_in_flight=1)
    task_id = await world.scheduler.enqueue(delay=span(0.001))
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).state == RUNNING
    await leaving.close_stream()
    staying = await world.processor("pan")

    world.clock.advance(us=1_000)

    assert (await staying.take_one()).task_id == task_id


async def test_what_could_not_be_given_back_at_first_is_given_back_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = await world.processor()
    task_id = await world.scheduler.enqueue(delay=span(0.001))
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).state == RUNNING
    await leaving.close_stream()
    end, failures = Store.end, [StorageUnavailable("for a moment")] * 2

    async def end_or_fail(self: Store, endings: list[Ending]) -> list[Ended]:
        if failures and endings[0].outcome is Outcome.NOT_RECEIVED:
            raise failures.pop()
        return await end(self, endings)

    monkeypatch.setattr(Store, "end", end_or_fail)
    staying = await world.processor("pan")
    while failures:
        world.clock.advance(2)
        await asyncio.sleep(0)
    world.clock.advance(2)

    assert (await staying.take_one()).task_id == task_id


async def test_a_server_that_stops_gives_back_what_it_has_leased_early(world: World) -> None:
    await world.processor()
    task_id = await world.scheduler.enqueue(delay=span(0.001))
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).state == RUNNING

    await world.restart()

    task = await world.scheduler.get(task_id)
    assert (task.state, task.failed_attempts) == (SCHEDULED, 0)
    world.clock.advance(us=1_000)
    assert (await (await world.processor("pan")).take_one()).task_id == task_id


async def test_a_delay_is_counted_on_the_servers_clock_to_the_microsecond(world: World) -> None:
    processor = await world.processor()
    before_us = world.clock.now_us()
    task_id = await world.scheduler.enqueue(delay=span(2.000001))
    assert microseconds((await world.scheduler.get(task_id)).due_time) == before_us + 2_000_001

    world.clock.advance(us=2_000_000)
    await world.dispatched()
    assert not world.has_pushed(task_id)
    world.clock.advance(us=1)
    assert (await processor.take_one()).task_id == task_id


async def test_a_due_time_keeps_its_microseconds_and_drops_what_is_finer(world: World) -> None:
    due = time_at(world.clock.now_us() + 1_234_567)
    due.nanos += 999
    task_id = await world.scheduler.enqueue(due_time=due)
    assert (await world.scheduler.get(task_id)).due_time.nanos == 234_567_000


async def test_a_task_without_a_time_is_due_now_and_one_of_the_past_too(world: World) -> None:
    processor = await world.processor()
    now = await world.scheduler.enqueue()
    past = await world.scheduler.enqueue(due_time=time_at(1))
    assert {one.task_id for one in await processor.take(2)} == {now, past}


async def test_an_earlier_enqueue_wakes_the_dispatcher_that_sleeps_for_a_later_one(world: World) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue(delay=span(3600))
    await world.dispatched()

    soon_due = await world.scheduler.enqueue(delay=span(1))
    now_due = await world.scheduler.enqueue()
    assert (await processor.take_one()).task_id == now_due
    world.clock.advance(1)
    assert (await processor.take_one()).task_id == soon_due


async def test_each_of_many_due_times_wakes_the_dispatcher_in_turn(world: World) -> None:
    processor = await world.processor()
    delays = [7, 1, 4, 2, 6, 3, 5]
    results = await world.scheduler.enqueue_all(*(a_task(delay=span(delay)) for delay in delays))
    by_delay = {delay: result.task_id for delay, result in zip(delays, results, strict=True)}

    for delay in sorted(delays):
        world.clock.advance(1)
        assert (await processor.take_one()).task_id == by_delay[delay]


async def test_what_fell_due_while_nobody_could_run_it_is_pushed_when_somebody_comes(world: World) -> None:
    task_id = await world.scheduler.enqueue(delay=span(1))
    world.clock.advance(3600)
    await world.dispatched()

    processor = await world.processor()
    assert (await processor.take_one()).task_id == task_id


async def test_a_session_without_a_stream_gets_nothing_until_it_opens_one(world: World) -> None:
    processor = await world.registered()
    task_id = await world.scheduler.enqueue()
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).state == SCHEDULED

    await processor.open()
    assert (await processor.take_one()).task_id == task_id
    assert (await world.scheduler.get(task_id)).state == RUNNING


async def test_an_assigned_task_carries_all_that_was_enqueued(world: World) -> None:
    processor = await world.processor()
    new = a_task(data=b"\x00\xff pasta", priority=3, headers={"traceparent": "00-1"}, tags=["vip", "b"])
    new.payload.content_type = "text/plain"
    new.payload.metadata["key"] = "k1"
    new.run_timeout.CopyFrom(span(1.5))
    new.dedup.key = "table-7"
    new.retry_policy.max_attempts = 9
    await world.scheduler.enqueue_all(new)

    assigned = await processor.take_one()
    assert assigned.name == "cook"
    assert assigned.attempt == 1
    assert assigned.payload == new.payload
    assert assigned.priority == 3
    assert dict(assigned.headers) == {"traceparent": "00-1"}
    assert list(assigned.tags) == ["vip", "b"]
    assert assigned.dedup_key == "table-7"
    assert (assigned.failed_attempts, assigned.max_attempts) == (0, 9)
    assert microseconds(assigned.enqueue_time) == microseconds(assigned.lease_time) == world.clock.now_us()
    assert microseconds(assigned.run_deadline) == world.clock.now_us() + 1_500_000
    assert assigned.run_timeout == span(1.5)
    assert not assigned.HasField("last_failure") and not assigned.HasField("checkpoint")
