"""A task that is due at once is leased by the commit that stores it, and pushed."""

from __future__ import annotations

import pytest

from taskq_server.core.matching import Demand
from taskq_server.store.store import Store
from taskq_server.store.verbs.leasing import Leased
from tests.rpc.support import SCHEDULED
from tests.rpc.world import World
from tests.support.waiting import until_async


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> list[Demand]:
    """Those that the dispatcher makes by itself."""
    made: list[Demand] = []
    lease = Store.lease

    async def note(self: Store, demand: Demand) -> Leased:
        made.append(demand)
        return await lease(self, demand)

    monkeypatch.setattr(Store, "lease", note)
    return made


async def offered(world: World) -> None:
    """Seats are on offer, for whoever stores something that is due."""
    memory = world.server._store.memory
    await until_async(lambda: memory.offer is not None and memory.offer._open, "seats are on offer")


async def test_what_is_due_at_once_needs_no_commit_of_its_own_to_be_leased(world: World, leases: list[Demand]) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue()
    await processor.succeed(await processor.take_one())
    await offered(world)
    leases.clear()

    for _ in range(5):
        await offered(world)
        task_id = await world.scheduler.enqueue()
        task = await processor.take_one()
        assert task.task_id == task_id
        await processor.succeed(task)

    assert leases == []


async def test_what_is_stored_when_all_seats_are_taken_waits_for_one(world: World) -> None:
    processor = await world.processor(max_in_flight=2)
    ids = [await world.scheduler.enqueue() for _ in range(5)]
    got = await processor.take(2)
    await world.dispatched()
    assert await world.scheduler.states(ids[2:]) == [SCHEDULED] * 3

    for _ in range(3):
        await processor.succeed(got.pop(0))
        got += await processor.take(1)
    assert {one.task_id for one in got} == set(ids[3:])


async def test_what_is_leased_to_a_processor_that_has_just_gone_is_given_to_another(world: World) -> None:
    gone = await world.processor("gone")
    await world.scheduler.enqueue()
    await gone.succeed(await gone.take_one())
    await world.dispatched()
    (session,) = [one for one in world.server._sessions.all() if one.processor_name == "gone"]
    session.stream = None  # and nobody has told the dispatcher

    task_id = await world.scheduler.enqueue()
    staying = await world.processor("staying")

    task = await staying.take_one()
    assert (task.task_id, task.failed_attempts) == (task_id, 0)
