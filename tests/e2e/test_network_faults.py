"""Connections that are cut between any two bytes, reset, or swallowed without a word."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from processor_client import Context, Processor
from scheduler_client import Scheduler, new_task
from tests.e2e.conftest import StartWorld
from tests.support import truth
from tests.support.proxy import Proxy
from tests.support.raw import a_task
from tests.support.waiting import until_async
from tests.support.world import World

NOISE_SECONDS = 3
"""Not part of a promise: on two cores that others load too, a process may wait for its turn as long as this."""
LANES = 4
TASKS_PER_LANE = 60


async def test_connections_cut_after_any_number_of_bytes_leave_exactly_one_task_for_each_id(
    start_world: StartWorld, seed: int
) -> None:
    world = start_world(log_level="error")
    instants = random.Random(seed)

    def after_some_bytes() -> int:
        # the handshake of HTTP/2 is about 200 bytes, a request of one task as many; now and then it does not even come
        return instants.choice((instants.randrange(1, 400), instants.randrange(200, 3_000)))

    ids: list[str] = []
    cuts = 0

    async def enqueue_through_cuts() -> None:
        nonlocal cuts
        async with Proxy(world.server.address, after_some_bytes) as proxy, Scheduler(proxy.address, timeout=60) as one:
            for _ in range(TASKS_PER_LANE):
                task = new_task("work", {"seconds": 0})
                ids.append(task.task_id)
                handle = await one.enqueue(task)
                assert handle.task_id == task.task_id
            cuts += proxy.cuts

    await asyncio.gather(*(enqueue_through_cuts() for _ in range(LANES)))

    assert world.server.stop() == 0
    print(f"{cuts} connections were cut while {len(ids)} tasks were enqueued")
    assert cuts >= 20, "too few were cut to show anything"
    stored = truth.read(world.database_url)
    assert sorted(stored) == sorted(ids)


class Kitchen:
    """A processor behind a proxy, and what it has received."""

    def __init__(self, world: World, proxy: Proxy) -> None:
        self.proxy = proxy
        self._world = world
        self._received: set[str] = set()
        self.processor = Processor(proxy.address, name="kitchen", drain_timeout=1)
        self.processor.task("work")(self._work)

    async def _work(self, ctx: Context) -> None:
        self._received.add(ctx.task_id)

    async def receives(self, within: float) -> float:
        """Enqueues a task and waits for it; answers how long that took."""
        task = a_task()
        began = time.monotonic()
        await asyncio.to_thread(self._world.enqueue, task)
        await until_async(lambda: task.task_id in self._received, "the processor receives the task", within)
        return time.monotonic() - began


@asynccontextmanager
async def kitchen(world: World) -> AsyncIterator[Kitchen]:
    async with Proxy(world.server.address) as proxy:
        kitchen = Kitchen(world, proxy)
        async with kitchen.processor:
            await kitchen.receives(within=10)
            yield kitchen


async def test_a_processor_whose_connections_are_reset_receives_again_within_five_seconds(
    start_world: StartWorld,
) -> None:
    world = start_world(lease_duration="20s", log_level="error")
    async with kitchen(world) as one:
        longest = 0.0
        for _ in range(5):
            assert one.proxy.reset_all() >= 1
            longest = max(longest, await one.receives(within=5 + NOISE_SECONDS))
        print(f"after a reset it received again within {longest:.2f} s")


async def test_a_processor_whose_connections_swallow_everything_receives_again(start_world: StartWorld) -> None:
    world = start_world(lease_duration="4s", ping_interval="500ms", log_level="error")
    async with kitchen(world) as one:
        assert one.proxy.swallow_all() >= 2
        waited = await one.receives(within=45)
        print(f"after a black hole it received again after {waited:.1f} s")


async def test_with_the_default_intervals_a_black_hole_costs_at_most_45_seconds(
    slow: None, start_world: StartWorld
) -> None:
    world = start_world(log_level="error")
    async with kitchen(world) as one:
        assert one.proxy.swallow_all() >= 2
        waited = await one.receives(within=45 + NOISE_SECONDS)
        print(f"after a black hole it received again after {waited:.1f} s")
