"""Whichever of several servers a caller is connected to, the answer is the same.

Each sentence holds when servers hear each other's rings, and when they only look, as behind PgBouncer.
"""

from __future__ import annotations

from tests.rpc.support import ACCEPTED, FAILED, RUNNING, SCHEDULED, SUCCEEDED, a_task, retrying, span, time_at
from tests.rpc.world import Pair


async def test_a_task_that_is_enqueued_at_one_server_is_pushed_by_another(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor()

    task_id = await here.scheduler.enqueue(data=b"pasta")
    await there.looks()

    task = await processor.take_one()
    assert (task.task_id, task.payload.data) == (task_id, b"pasta")
    assert (await processor.succeed(task)).status == ACCEPTED
    assert (await here.scheduler.get(task_id)).state == SUCCEEDED


async def test_what_nobody_had_asked_for_before_is_found_by_the_others(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor(can=("brand.new",), labels={"zone": "eu"})

    task_id = await here.scheduler.enqueue("brand.new", requires=["zone = eu"], priority=7)
    await there.looks()

    assert (await processor.take_one()).task_id == task_id


async def test_a_task_that_was_scheduled_elsewhere_is_pushed_when_it_falls_due_and_not_before(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor()
    task_id = await here.scheduler.enqueue(delay=span(5))
    await there.looks()
    there.clock.advance(4.999_999)
    await there.dispatched()
    assert not there.has_pushed(task_id)

    there.clock.advance(0.000_001)

    assert (await processor.take_one()).task_id == task_id


async def test_what_is_leased_early_to_a_processor_that_moves_comes_to_it_by_the_other_server(pair: Pair) -> None:
    here, there = pair
    processor = await here.processor()
    task_id = await here.scheduler.enqueue(delay=span(0.001))
    await here.dispatched()
    assert (await here.scheduler.get(task_id)).state == RUNNING
    moved = there.moved(processor)
    await moved.open()
    await here.looks()
    await processor.stream.next("superseded")

    here.clock.advance(0.001)
    await here.dispatched()
    await there.looks()

    assert (await moved.take_one()).task_id == task_id


async def test_two_servers_push_what_is_due_to_both_their_processors_and_no_task_twice(pair: Pair) -> None:
    here, there = pair
    ours, theirs = await here.processor("ours", max_in_flight=20), await there.processor("theirs", max_in_flight=20)

    results = await here.scheduler.enqueue_all(*(a_task() for _ in range(40)))
    await there.looks()

    came = [*await ours.take(20), *await theirs.take(20)]
    assert sorted(task.task_id for task in came) == sorted(result.task_id for result in results)
    assert {task.attempt for task in came} == {1}


async def test_a_retry_goes_to_the_processor_of_another_server(pair: Pair) -> None:
    here, there = pair
    ours = await here.processor(max_in_flight=1)
    task_id = await here.scheduler.enqueue(retry_policy=retrying(1))
    first = await ours.take_one()
    await ours.fail(first)
    await ours.unregister()
    theirs = await there.processor()
    await there.looks()

    here.clock.advance(1)

    second = await theirs.take_one()
    assert (second.task_id, second.attempt) == (task_id, 2)


async def test_a_task_that_expires_is_not_pushed_by_a_server_that_had_not_heard_of_it(pair: Pair) -> None:
    here, there = pair
    task_id = await here.scheduler.enqueue(expire_time=time_at(here.clock.now_us() + 5_000_000))
    await there.looks()
    here.clock.advance(5)
    processor = await there.processor()

    await there.dispatched()

    await there.server.housekeeper.tick()
    assert (await here.scheduler.get(task_id)).state in (SCHEDULED, FAILED)
    assert processor.stream.tasks == []


async def test_who_watches_at_one_server_sees_what_happens_at_another(pair: Pair) -> None:
    here, there = pair
    processor = await there.registered()
    task_id = await here.scheduler.enqueue()
    watch = here.scheduler.watch(task_id)
    assert (await watch.next()).state == SCHEDULED
    await processor.open()
    await there.looks()
    task = await processor.take_one()
    await here.looks()
    assert (await watch.next()).state == RUNNING

    await processor.succeed(task, b"done")
    await here.looks()

    rest = await watch.rest()
    assert (rest[-1].state, rest[-1].result.data) == (SUCCEEDED, b"done")


async def test_an_enqueue_that_is_repeated_at_another_server_is_the_same_task(pair: Pair) -> None:
    here, there = pair
    task = a_task(task_id="01935000-0000-7000-8000-000000000001")
    (first,) = await here.scheduler.enqueue_all(task)
    (second,) = await there.scheduler.enqueue_all(task)

    assert (second.task_id, second.due_time) == (first.task_id, first.due_time)
    assert first.outcome != second.outcome
