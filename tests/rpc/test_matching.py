"""Which task goes first, and to whom."""

from __future__ import annotations

import pytest

from tests.rpc.support import SCHEDULED, a_task, time_at
from tests.rpc.world import World


async def test_larger_priority_goes_first_then_earlier_due_time_then_enqueue_order(world: World) -> None:
    now_us = world.clock.now_us()
    order = await world.scheduler.enqueue_all(
        a_task(data=b"5", priority=0),
        a_task(data=b"2", priority=7, due_time=time_at(now_us - 1)),
        a_task(data=b"1", priority=9),
        a_task(data=b"3", priority=7),
        a_task(data=b"6", priority=0),
        a_task(data=b"4", priority=0, due_time=time_at(now_us - 5)),
    )
    processor = await world.processor(max_in_flight=len(order))

    assert [one.payload.data for one in await processor.take(6)] == [b"1", b"2", b"3", b"4", b"5", b"6"]


async def test_order_holds_across_the_names_that_one_processor_runs(world: World) -> None:
    await world.scheduler.enqueue_all(a_task("boil", b"3"), a_task("fry", b"1", priority=2), a_task("boil", b"2"))
    await world.scheduler.enqueue_all(a_task("boil", b"0", priority=9))
    processor = await world.processor(can=("boil", "fry"), max_in_flight=1)

    came = []
    for _ in range(4):
        task = await processor.take_one()
        came.append(task.payload.data)
        await processor.succeed(task)
    assert came == [b"0", b"1", b"3", b"2"]


async def test_a_task_goes_only_to_a_processor_that_has_registered_its_name(world: World) -> None:
    oven = await world.processor("oven", can=("bake",))
    pan = await world.processor("pan", can=("fry", "fry/deep"))
    tasks = {name: await world.scheduler.enqueue(name) for name in ("fry", "bake", "fry/deep", "freeze")}

    assert (await oven.take_one()).task_id == tasks["bake"]
    assert {one.task_id for one in await pan.take(2)} == {tasks["fry"], tasks["fry/deep"]}
    await world.dispatched()
    assert (await world.scheduler.get(tasks["freeze"])).state == SCHEDULED


@pytest.mark.parametrize(
    ("requires", "labels", "others"),
    [
        (["zone = north"], {"zone": "north"}, [{}, {"zone": "south"}, {"Zone": "north"}]),
        (["zone in (north, east)"], {"zone": "east"}, [{}, {"zone": "south"}]),
        (["gpu exists"], {"gpu": ""}, [{}, {"cpu": "x"}]),
        (["!spot"], {"zone": "north"}, [{"spot": "yes"}, {"spot": ""}]),
        (["zone = north", "!spot", "gpu exists"], {"zone": "north", "gpu": "1"}, [{"zone": "north"}, {"gpu": "1"}]),
    ],
)
async def test_a_task_goes_only_to_a_processor_whose_labels_meet_all_that_it_requires(
    world: World, requires: list[str], labels: dict[str, str], others: list[dict[str, str]]
) -> None:
    for other in others:
        await world.processor("wrong", labels=other)
    task_id = await world.scheduler.enqueue(requires=requires)
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).state == SCHEDULED

    right = await world.processor("right", labels=labels)
    assert (await right.take_one()).task_id == task_id
    assert (await world.scheduler.get(task_id)).processor_name == "right"


async def test_many_tasks_are_spread_over_those_who_may_run_them(world: World) -> None:
    first, second = await world.processor("first"), await world.processor("second")
    await world.scheduler.enqueue_all(*(a_task() for _ in range(6)))

    assert len(await first.take(3)) == len(await second.take(3)) == 3


async def test_a_backlog_of_one_name_does_not_hold_up_another(world: World) -> None:
    await world.scheduler.enqueue_all(*(a_task("slow", priority=9) for _ in range(50)))
    both = await world.processor(can={"slow": 1, "fast": 1}, max_in_flight=2)
    fast = await world.scheduler.enqueue("fast")

    came = await both.take(2)
    assert fast in {one.task_id for one in came}
    assert sorted(one.name for one in came) == ["fast", "slow"]
