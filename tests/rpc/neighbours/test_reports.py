"""Cancels, reports and heartbeats that come to another server than the one that pushes.

Each sentence holds when servers hear each other's rings, and when they only look, as behind PgBouncer.
"""

from __future__ import annotations

from tests.rpc.neighbours.given import ends
from tests.rpc.support import (
    ACCEPTED,
    ALREADY_ACCEPTED,
    LEASE_LOST,
    OK,
    REREGISTER,
    RUNNING,
    SCHEDULED,
    keys,
    retrying,
    span,
)
from tests.rpc.world import LEASE_SECONDS, Pair


async def test_a_cancel_reaches_a_processor_of_another_server(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor(max_in_flight=1)
    task_id = await there.scheduler.enqueue()
    task = await processor.take_one()

    await here.scheduler.cancel(task_id)
    await there.looks()

    assert keys((await processor.stream.next("cancel")).attempts) == {(task_id, 1)}
    assert keys((await processor.heartbeat(task)).cancelled) == {(task_id, 1)}
    await processor.heartbeat()
    after = await there.scheduler.enqueue()
    assert (await processor.take_one()).task_id == after, "its credit is back"


async def test_a_report_to_another_server_counts_and_brings_the_credit_back(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor(max_in_flight=1)
    first, second = [await there.scheduler.enqueue(), await there.scheduler.enqueue()]
    task = await processor.take_one()

    answer = await here.moved(processor).succeed(task)
    await there.looks()

    assert (task.task_id, answer.status) == (first, ACCEPTED)
    assert (await processor.take_one()).task_id == second
    assert (await processor.succeed(task)).status == ALREADY_ACCEPTED


async def test_heartbeats_to_another_server_keep_a_session_alive(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor()
    await there.scheduler.enqueue()
    task = await processor.take_one()
    elsewhere = here.moved(processor)

    for _ in range(12):  # three leases
        for world in pair:
            await world.server.housekeeper.tick()
            await world.server.neighbours.tick()  # type: ignore[union-attr]
        here.clock.advance(LEASE_SECONDS / 4)
        answer = await elsewhere.heartbeat(task)
        assert (answer.stream, list(answer.lost), list(answer.cancelled)) == (OK, [], [])
    await there.looks()

    assert (await processor.succeed(task)).status == ACCEPTED


async def test_a_heartbeat_to_another_server_tells_what_is_lost_and_what_is_cancelled(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor()
    once = retrying(max_attempts=1)
    ids = [await there.scheduler.enqueue(), await there.scheduler.enqueue(run_timeout=span(2), retry_policy=once)]
    ids.append(await there.scheduler.enqueue())
    cancelled, timed_out, reported = tasks = await processor.take(3)
    assert [task.task_id for task in tasks] == ids
    await here.scheduler.cancel(cancelled.task_id)
    here.clock.advance(2)
    await ends(here, timed_out.task_id)
    await processor.succeed(reported)  # whose answer may still be on its way

    answer = await here.moved(processor).heartbeat(cancelled, timed_out, reported)

    told = answer.stream, keys(answer.cancelled), keys(answer.lost)
    assert told == (OK, {(cancelled.task_id, 1)}, {(timed_out.task_id, 1)})


async def test_what_was_pushed_and_never_arrived_is_found_by_heartbeats_to_another_server(pair: Pair) -> None:
    here, there = pair
    lossy = await there.processor("lossy", max_in_flight=1)
    task_id = await there.scheduler.enqueue()
    await lossy.take_one()  # and forgets it
    elsewhere = here.moved(lossy)
    await elsewhere.heartbeat()
    for _ in range(2):
        here.clock.advance(LEASE_SECONDS / 4)
        for world in pair:
            await world.server.neighbours.tick()  # type: ignore[union-attr]
    assert (await here.scheduler.get(task_id)).state == RUNNING

    await elsewhere.heartbeat()
    await there.looks()

    again = await lossy.take_one()
    assert (again.task_id, again.attempt, again.failed_attempts) == (task_id, 2, 0)


async def test_a_goodbye_to_another_server_ends_the_session_and_its_stream(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor()
    task_id = await there.scheduler.enqueue()
    task = await processor.take_one()

    await here.moved(processor).unregister()
    await there.looks()

    await processor.stream.next("drain")
    assert (await processor.heartbeat()).stream == REREGISTER
    assert (await processor.succeed(task)).status == LEASE_LOST
    assert (await here.scheduler.get(task_id)).state == SCHEDULED


async def test_a_run_timeout_that_another_server_notices_stops_the_processor(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor()
    await there.scheduler.enqueue(run_timeout=span(2), retry_policy=retrying(60))
    task = await processor.take_one()
    here.clock.advance(2)

    await ends(here, task.task_id)
    await there.looks()

    assert keys((await processor.stream.next("cancel")).attempts) == keys([task])
    assert keys((await processor.heartbeat(task)).lost) == keys([task])
