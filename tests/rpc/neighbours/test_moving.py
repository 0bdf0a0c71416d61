"""Sessions that move from one server to another, and servers that are gone.

Each sentence holds when servers hear each other's rings, and when they only look, as behind PgBouncer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taskq_server.neighbours import LOOK_US
from taskq_server.store.shared import SharedStore
from taskq_server.store.verbs.servers import News
from tests.rpc.neighbours.given import ends
from tests.rpc.support import ACCEPTED, CANCELLED, OK, REOPEN, REREGISTER, SCHEDULED, keys, soon
from tests.rpc.world import LEASE_SECONDS, Neighbour, Pair


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
