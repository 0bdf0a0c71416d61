"""Credits of a session to which one server pushes, and whose processor speaks to another: none is lost for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conftest import StartServer
from tests.rpc.support import ACCEPTED, LEASE_LOST, SCHEDULED, keys
from tests.rpc.world import LEASE_SECONDS, Neighbour, Pair


@pytest.fixture
async def pair(start_server: StartServer) -> AsyncIterator[Pair]:
    """Two servers that hear of each other when the test lets them look."""
    here, there = Neighbour(start_server), Neighbour(start_server)
    there.clock = here.clock
    for world in (here, there):
        world.rings = False
        await world.begin(pgbouncer=True)
    for world in (here, there):
        await world.server.neighbours.tick()  # type: ignore[union-attr]
    yield here, there
    for world in (here, there):
        await world.end()


async def is_pushed(world: Neighbour, task_id: str) -> bool:
    await world.dispatched()
    return (await world.scheduler.get(task_id)).state != SCHEDULED


async def test_a_report_to_the_server_that_has_not_heard_yet_that_the_session_moved_brings_the_credit_back(
    pair: Pair,
) -> None:
    here, there = pair
    before = await here.processor(max_in_flight=1)
    await here.scheduler.enqueue()
    task = await before.take_one()
    after = there.moved(before)
    await after.open()

    assert (await before.succeed(task)).status == ACCEPTED

    await there.looks()
    second = await there.scheduler.enqueue()
    assert await is_pushed(there, second)


async def test_an_attempt_that_was_cancelled_frees_its_credit_though_its_report_comes_to_another_server(
    pair: Pair,
) -> None:
    here, there = pair
    processor = await there.processor(max_in_flight=1)
    elsewhere = here.moved(processor)
    task_id = await there.scheduler.enqueue()
    task = await processor.take_one()
    await there.scheduler.cancel(task_id)
    assert keys((await processor.stream.next("cancel")).attempts) == keys([task])

    await elsewhere.heartbeat()
    assert (await elsewhere.succeed(task)).status == LEASE_LOST

    await there.looks()
    second = await there.scheduler.enqueue()
    assert await is_pushed(there, second)


async def test_an_attempt_that_was_stopped_and_not_reported_frees_its_credit_though_heartbeats_go_elsewhere(
    pair: Pair,
) -> None:
    """That it is not listed any more is all that its processor says."""
    here, there = pair
    processor = await there.processor(max_in_flight=1)
    elsewhere = here.moved(processor)
    task_id = await there.scheduler.enqueue()
    await processor.take_one()
    await there.scheduler.cancel(task_id)

    for _ in range(12):
        here.clock.advance(LEASE_SECONDS / 8)
        for world in pair:
            await world.server.housekeeper.tick()
            await world.server.neighbours.tick()  # type: ignore[union-attr]
        await elsewhere.heartbeat()

    second = await there.scheduler.enqueue()
    assert await is_pushed(there, second)


async def test_a_processor_that_says_to_another_server_that_it_drains_is_given_nothing_more(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor()

    await here.moved(processor).heartbeat(draining=True)

    await there.looks()
    task_id = await there.scheduler.enqueue()
    assert not await is_pushed(there, task_id)
