"""Whichever server is asked, it knows who could run a task on any of them."""

from __future__ import annotations

from tests.rpc.test_explaining import explained, kinds, only
from tests.rpc.world import Pair


async def test_a_processor_of_another_server_counts_with_what_it_holds(pair: Pair) -> None:
    here, there = pair
    oven = await there.processor("oven", max_in_flight=1)
    await there.scheduler.enqueue()
    await oven.take_one()
    task_id = await there.scheduler.enqueue()

    reason = only(await explained(here, task_id), "NO_CREDITS")

    assert reason.text == "the one credit of oven, which may run it, is in use"


async def test_what_is_ahead_is_counted_though_only_the_other_server_has_heard_of_it(pair: Pair) -> None:
    here, there = pair
    oven = await there.processor("oven", can=("bake", "cook", "wash"), max_in_flight=1)
    await there.scheduler.enqueue("bake")
    await oven.take_one()
    await there.scheduler.enqueue("wash")
    task_id = await there.scheduler.enqueue("cook")

    behind = (await explained(here, task_id)).reasons[1]

    assert behind.facts["ahead"] == "1"


async def test_what_keeps_a_task_is_the_same_for_both(pair: Pair) -> None:
    here, there = pair
    task_id = await here.scheduler.enqueue("bake")
    for world in pair:
        assert kinds(await explained(world, task_id)) == ["NO_PROCESSOR"]
    oven = await there.processor("oven", can=("bake",), labels={"zone": "eu"})
    elsewhere = await here.scheduler.enqueue("bake", requires=["zone = us"])
    for world in pair:
        assert kinds(await explained(world, elsewhere)) == ["REQUIREMENTS_NOT_MET"]
    await here.admin.drain(oven.session_id)
    fits = await here.scheduler.enqueue("bake", requires=["zone = eu"])
    for world in pair:
        assert kinds(await explained(world, fits)) == ["DRAINED"]
