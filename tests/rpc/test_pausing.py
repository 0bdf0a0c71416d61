"""A paused name: nothing of it is pushed, and all else goes on."""

from __future__ import annotations

import pytest

from taskq_server.store.store import Store
from tests.rpc.support import ACCEPTED, RUNNING, SCHEDULED, SUCCEEDED, microseconds, retrying, span
from tests.rpc.world import World


async def test_nothing_of_a_paused_name_is_pushed_until_it_is_resumed(world: World) -> None:
    processor = await world.processor(can=("cook", "bake"))
    await world.admin.pause("cook")
    pasta, bread = await world.scheduler.enqueue("cook", priority=9), await world.scheduler.enqueue("bake")

    assert (await processor.take_one()).task_id == bread
    await world.dispatched()
    assert (await world.scheduler.get(pasta)).state == SCHEDULED

    await world.admin.resume("cook")
    assert (await processor.take_one()).task_id == pasta


async def test_a_pause_holds_from_its_answer_on_though_hundreds_are_enqueued_meanwhile(world: World) -> None:
    processor = await world.processor(max_in_flight=1_000)
    before = [await world.scheduler.enqueue() for _ in range(20)]

    await world.admin.pause("cook")
    after = [await world.scheduler.enqueue() for _ in range(20)]
    await world.dispatched()

    assert await world.scheduler.states(after) == [SCHEDULED] * 20
    pushed = [task_id for task_id in before if (await world.scheduler.get(task_id)).state != SCHEDULED]
    assert {task.task_id for task in await processor.take(len(pushed))} == set(pushed)


async def test_what_runs_goes_on_and_its_retry_waits(world: World) -> None:
    processor = await world.processor()
    ids = [await world.scheduler.enqueue(retry_policy=retrying(1)) for _ in range(2)]
    one, two = await processor.take(2)

    await world.admin.pause()

    assert (await processor.succeed(one)).status == ACCEPTED
    assert (await processor.fail(two)).status == ACCEPTED
    world.clock.advance(1)
    await world.dispatched()
    assert await world.scheduler.states(ids) == [SUCCEEDED, SCHEDULED]
    await world.admin.resume()
    assert (await processor.take_one()).attempt == 2


async def test_what_falls_due_while_it_is_paused_is_pushed_when_it_is_resumed(world: World) -> None:
    processor = await world.processor()
    await world.admin.pause()
    task_id = await world.scheduler.enqueue(delay=span(5))
    world.clock.advance(60)
    await world.dispatched()

    await world.admin.resume()

    assert (await processor.take_one()).task_id == task_id


async def test_what_is_leased_but_not_due_yet_when_its_name_is_paused_is_given_back(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue(delay=span(0.001))
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).state == RUNNING

    await world.admin.pause()
    world.clock.advance(us=1_000)
    await world.dispatched()

    assert (await world.scheduler.get(task_id)).state == SCHEDULED
    await world.admin.resume()
    assert (await processor.take_one()).task_id == task_id


async def test_a_pause_answers_since_when_it_is_so_and_a_resume_what_has_ended(world: World) -> None:
    began_us = world.clock.now_us()
    await world.admin.pause("cook", "the oven is hot")
    world.clock.advance(60)

    again = await world.admin.pause("cook", "it is on fire")

    assert (again.reason, microseconds(again.pause_time)) == ("it is on fire", began_us)
    assert (await world.admin.capability("cook")).pause == again
    assert (await world.admin.resume("cook")).pause == again
    assert not (await world.admin.resume("cook")).HasField("pause")
    assert not (await world.admin.capabilities()).capabilities


async def test_a_pause_survives_a_restart_of_the_server(world: World) -> None:
    await world.admin.pause("cook", "why")
    task_id = await world.scheduler.enqueue()

    await world.restart()

    processor = await world.processor()
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).state == SCHEDULED
    assert (await world.admin.capability("cook")).pause.reason == "why"
    await world.admin.resume("cook")
    assert (await processor.take_one()).task_id == task_id


async def test_what_is_due_and_paused_does_not_keep_the_dispatcher_busy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.processor()
    await world.admin.pause()
    await world.scheduler.enqueue()
    await world.dispatched()
    leases: list[object] = []
    lease = Store.lease

    async def counted(self: Store, demand: object) -> object:
        leases.append(demand)
        return await lease(self, demand)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "lease", counted)
    for _ in range(20):
        await world.server.dispatcher.tick()
    assert len(leases) <= 1, "but for one look after the last task of another name"
