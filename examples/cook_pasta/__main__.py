"""The demo: dinner is ordered, cooked and served, although a cook is killed on the way.

Exit code 0 only if every dish was served exactly once and none was begun early.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median

from examples.cook_pasta.display import Display, lateness_ms
from examples.cook_pasta.kitchen import Kitchen
from examples.cook_pasta.orders import dinner
from scheduler_client import Handle, Scheduler, TaskState, TaskView

VICTIM = "mario"
AFTER_SERVED = 4
"""The victim dies once this many dishes are served and he is at work on another."""
REPLACED_AFTER_SECONDS = 3


async def demo() -> bool:
    with tempfile.TemporaryDirectory(prefix="cook_pasta-") as folder:
        kitchen = Kitchen(Path(folder))
        try:
            await kitchen.open()
            return await evening(kitchen)
        finally:
            await kitchen.close()


async def evening(kitchen: Kitchen) -> bool:
    for name in ("mario", "luigi"):
        await kitchen.hire(name)
    async with Scheduler(kitchen.address) as scheduler:
        with Display() as display:
            orders = await scheduler.enqueue_many(dinner())
            display.note(f"{len(orders)} dishes are ordered; mario boils and stirs, luigi boils and bakes")
            following = [asyncio.create_task(follow(order, display)) for order in orders]
            accident = asyncio.create_task(kill_and_replace(kitchen, display, scheduler, orders))
            watching = asyncio.create_task(show_progress(scheduler, orders, display))
            dishes = await asyncio.gather(*following)
            await accident
            watching.cancel()
        await kitchen.close()
        return summary(dishes, kitchen)


async def follow(order: Handle, display: Display) -> TaskView:
    """Shows each change of a dish until it is served."""
    async for view in order.watch():
        display.show(view)
    return view  # the last one: it is finished


async def show_progress(scheduler: Scheduler, orders: list[Handle], display: Display) -> None:
    """Progress is not a change of state, so it is asked for."""
    while True:
        await asyncio.sleep(0.5)
        for order in orders:
            view = await scheduler.get(order.task_id)
            if view.state is TaskState.RUNNING:
                display.show(view)


async def kill_and_replace(kitchen: Kitchen, display: Display, scheduler: Scheduler, orders: list[Handle]) -> None:
    while True:
        await asyncio.sleep(0.05)
        views = [await scheduler.get(order.task_id) for order in orders]
        at_work = [view for view in views if view.state is TaskState.RUNNING and view.processor_name == VICTIM]
        if at_work and sum(view.state is TaskState.SUCCEEDED for view in views) >= AFTER_SERVED:
            break
    pid = kitchen.kill(VICTIM)
    dishes = ", ".join(view.payload()["dish"] for view in at_work)
    display.note(f"kill -9 {pid}: {VICTIM} dies at work on {dishes}")
    await asyncio.sleep(REPLACED_AFTER_SECONDS)
    await kitchen.hire(VICTIM)
    display.note(f"another {VICTIM} is hired")


def summary(dishes: list[TaskView], kitchen: Kitchen) -> bool:
    """Says how the evening went; whether it went well."""
    begun = [line for line in kitchen.said if line["event"] == "started"]
    served = Counter(line["task_id"] for line in kitchen.said if line["event"] == "served")
    early = [line for line in begun if line["time"] < line["due"]]
    late = sorted(late for dish in dishes if (late := lateness_ms(dish)) is not None)
    succeeded = [dish for dish in dishes if dish.state is TaskState.SUCCEEDED]
    twice = [dish for dish in dishes if served[dish.task_id] > 1]
    again = [dish for dish in dishes if dish.attempt > 1]
    print()
    print(f"dishes ordered             {len(dishes):4}")
    print(f"served                     {len(succeeded):4}")
    print(f"served twice               {len(twice):4}")
    print(f"begun early                {len(early):4}")
    print(f"begun again by another     {len(again):4}   {', '.join(dish.payload()['dish'] for dish in again)}")
    print(f"lateness of last attempts       median {median(late):.1f} ms, most {late[-1]:.0f} ms")
    well = len(succeeded) == len(dishes) and not twice and not early and bool(again)
    print("every dish was served exactly once, none was begun early" if well else "the evening was a failure")
    return well


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(demo()) else 1)
