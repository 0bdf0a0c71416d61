"""Several servers on one database: whichever a caller is connected to, the answer is the same.

Each sentence holds when servers hear each other's rings, and when they only look, as behind PgBouncer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from taskq_server.neighbours import LOOK_US
from taskq_server.store.shared import SharedStore
from taskq_server.store.verbs.servers import News
from tests.rpc.support import (
    ACCEPTED,
    ALREADY_ACCEPTED,
    CANCELLED,
    FAILED,
    LEASE_LOST,
    OK,
    REOPEN,
    REREGISTER,
    RUNNING,
    SCHEDULED,
    SUCCEEDED,
    a_task,
    keys,
    retrying,
    soon,
    span,
    time_at,
)
from tests.rpc.world import LEASE_SECONDS, Neighbour, Pair, World


@asynccontextmanager
async def unheard(world: Neighbour) -> AsyncIterator[None]:
    """Lets it hear nothing of what the others do meanwhile."""
    neighbours = world.server.neighbours
    assert neighbours is not None
    look_around, neighbours._store.look_around = neighbours._store.look_around, nothing_new  # type: ignore[method-assign]
    yield
    neighbours._store.look_around = look_around  # type: ignore[method-assign]


async def nothing_new() -> News:
    return News([], None)


async def ends(world: World, task_id: str) -> None:
    """Returns once an attempt that is out of time has ended, whichever of the servers has noticed."""

    async def notice() -> None:
        while (await world.scheduler.get(task_id)).state == RUNNING:
            await world.server.housekeeper.tick()

    await soon(notice())


@pytest.fixture
def database_url(postgres_url: str) -> str:
    return postgres_url


# ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── cancels, reports and heartbeats that come to another server ──────────────────────────────────────────────────────


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


# ── sessions that move ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_processor_that_opens_its_stream_elsewhere_is_pushed_to_from_there_alone(pair: Pair) -> None:
    here, there = pair
    before = await there.processor(max_in_flight=2)
    first = await there.scheduler.enqueue()
    task = await before.take_one()
    after = here.moved(before)

    await after.open()
    await there.looks()

    await before.stream.next("superseded")
    second, third = await there.scheduler.enqueue(), await there.scheduler.enqueue()
    await here.looks()
    assert (await after.take_one()).task_id == second
    await here.dispatched()
    assert (await here.scheduler.get(third)).state == SCHEDULED, "what it held already takes a seat"
    assert (await after.succeed(task)).status == ACCEPTED
    assert (await after.take_one()).task_id == third
    assert task.task_id == first


async def test_a_processor_that_comes_back_to_the_first_server_is_pushed_to_from_there(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor()
    away = here.moved(processor)
    await away.open()
    await there.looks()
    await processor.stream.next("superseded")

    await processor.open()
    await here.looks()

    await away.stream.next("superseded")
    task_id = await here.scheduler.enqueue()
    await there.looks()
    assert (await processor.take_one()).task_id == task_id


async def test_a_processor_that_is_back_before_the_first_server_knew_that_it_was_away_is_pushed_to_from_there(
    pair: Pair,
) -> None:
    here, there = pair
    processor = await there.processor(max_in_flight=2)
    first = await there.scheduler.enqueue()
    task = await processor.take_one()
    async with unheard(there):
        away = here.moved(processor)
        await away.open()
        await away.close_stream()

        await processor.open()

    await there.looks()
    assert (await processor.heartbeat(task)).stream == OK
    second, third = await there.scheduler.enqueue(), await there.scheduler.enqueue()
    again = await processor.take_one()
    assert (again.task_id, task.task_id) == (second, first)
    await there.dispatched()
    assert (await there.scheduler.get(third)).state == SCHEDULED, "what it held already takes a seat"


async def test_a_session_whose_server_is_gone_goes_on_at_another_with_all_it_holds(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor(max_in_flight=1)
    await there.scheduler.enqueue()
    task = await processor.take_one()
    after = here.moved(processor)

    await there.server.stop()

    assert (await after.heartbeat(task)).stream == REOPEN
    await after.open()
    assert (await after.heartbeat(task)).stream == OK
    second = await here.scheduler.enqueue()
    await here.dispatched()
    assert (await here.scheduler.get(second)).state == SCHEDULED
    assert (await after.succeed(task)).status == ACCEPTED
    assert (await after.take_one()).task_id == second


async def test_a_processor_that_dies_with_its_server_is_noticed_by_another(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor()
    task_id = await there.scheduler.enqueue()
    await processor.take_one()
    await there.server.stop()
    ours = await here.processor("ours")

    await here.let_pass(LEASE_SECONDS * 2, ours)

    again = await ours.take_one()
    assert (again.task_id, again.attempt) == (task_id, 2)


async def test_a_session_that_another_server_has_ended_is_told_so(pair: Pair) -> None:
    here, there = pair
    silent = await there.processor()
    task_id = await there.scheduler.enqueue()
    await silent.take_one()
    for _ in range(12):  # in steps that neither server takes for a pause of its own
        here.clock.advance(LEASE_SECONDS / 8)
        for world in pair:
            await world.server.housekeeper.tick()
    await ends(here, task_id)

    await there.looks()

    await silent.stream.next("drain")
    assert (await silent.heartbeat()).stream == REREGISTER


async def test_a_server_that_was_taken_for_dead_compares_its_sessions_with_the_database(pair: Pair) -> None:
    here, there = pair
    moved, cancelled, kept = [await there.processor(name, can=(name,)) for name in ("moved", "cancelled", "kept")]
    ids = {name: await there.scheduler.enqueue(name) for name in ("cancelled", "kept")}
    await there.looks()
    stopped, running = await cancelled.take_one(), await kept.take_one()
    # given that all signals to it are lost, since it was away for longer than a server may be
    store = here.server._store
    assert isinstance(store, SharedStore)
    await here.moved(moved).open()
    await here.scheduler.cancel(ids["cancelled"])
    here.clock.advance(20)
    await store.renew()

    await there.server.neighbours.tick()  # type: ignore[union-attr]

    assert keys((await cancelled.stream.next("cancel")).attempts) == keys([stopped])
    await moved.stream.next("superseded")
    assert keys((await kept.heartbeat(running)).lost) == set()
    assert (await kept.succeed(running)).status == ACCEPTED


async def test_a_stop_of_one_server_leaves_the_others_as_they_are(pair: Pair) -> None:
    here, there = pair
    processor = await here.processor()
    await soon(there.server.stop())

    task_id = await here.scheduler.enqueue()

    task = await processor.take_one()
    assert task.task_id == task_id
    assert (await here.scheduler.cancel(task_id)).state == CANCELLED


async def test_servers_look_around_at_instants_of_their_own_so_that_many_do_not_ask_at_once(pair: Pair) -> None:
    neighbours, clock = pair[0].server.neighbours, pair[0].clock
    assert neighbours is not None
    for _ in range(10):  # until it looks no oftener, as nothing happens
        await neighbours.tick()

    waits = {await neighbours.tick() - clock.now_us() for _ in range(20)}

    assert len(waits) > 10
    assert max(waits) <= 1.1 * LOOK_US
    assert min(waits) >= 0.9 * LOOK_US
