"""The server is told to stop under load, started twice, and comes back to many processors."""

from __future__ import annotations

import asyncio
import concurrent.futures
import statistics
import time

import pytest

from scheduler_client import Scheduler, new_task
from tests.e2e.conftest import StartWorld
from tests.support.process import ServerProcess
from tests.support.raw import a_task
from tests.support.waiting import let_pass, until, until_async
from tests.support.world import World

GRACE_SECONDS = 3
NOISE_SECONDS = 3
"""Not part of a promise: on two cores that others load too, a process may wait for its turn as long as this."""
BACK_SECONDS = 20
"""Ten would be good, and are usual; but a client whose stream failed five times while the server was away has drawn its
next delay from 0 to 16 s, and does not cut it short when its heartbeats are answered again."""
IN_USE = 75


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """Of a database that keeps what it has committed; empty for a file of the world's own."""
    return str(request.getfixturevalue("durable_postgres_url")) if request.param == "postgres" else ""


def test_a_server_told_to_stop_under_load_ends_in_time_and_nothing_waits_for_a_lease_to_expire(
    start_world: StartWorld, url: str, stops: int
) -> None:
    world = start_world(database_url=url, lease_duration="120s", stop_grace=f"{GRACE_SECONDS}s", log_level="warning")
    processors = [world.processor(name, concurrency=16).start() for name in ("first", "second")]
    load = world.scheduler("load", lanes=8, burst=4, pause=0.02).start()
    took = []
    for stop in range(stops):
        wait_for_runs(world, 50)
        told = time.monotonic()
        assert world.server.stop() == 0, world.server.read_log()
        took.append(time.monotonic() - told)
        assert took[-1] <= GRACE_SECONDS + 2 + NOISE_SECONDS, f"stop {stop} took {took[-1]:.1f} s"
        world.server.start()
    print(f"{stops} stops took {statistics.median(took):.2f} s (median), {max(took):.2f} s at most")

    assert load.stop() == 0, load.read_log()
    world.drain(30)  # a quarter of the lease: nothing waited for it, nor for two heartbeats
    for processor in processors:
        assert processor.stop() == 0, processor.read_log()
    assert world.server.stop() == 0
    verdict = world.verdict(floors={"acknowledged": 50 * stops, "stops": stops}, stops=stops)
    print(verdict)
    assert verdict.word == "VALID", str(verdict)
    assert verdict.counts["lost_leases"] == 0


def wait_for_runs(world: World, further: int) -> None:
    enough = len(world.runs(ended=True)) + further
    until(lambda: len(world.runs(ended=True)) >= enough, "tasks run")


async def test_a_scheduler_is_not_told_that_the_server_stops(start_world: StartWorld) -> None:
    world = start_world(stop_grace=f"{GRACE_SECONDS}s", log_level="warning")
    over = asyncio.Event()
    enqueued = 0

    async def keep_enqueueing() -> None:
        nonlocal enqueued
        async with Scheduler(world.server.address, timeout=60) as scheduler:
            while not over.is_set():
                await scheduler.enqueue(new_task("work"))
                enqueued += 1

    async def enough_enqueued(further: int) -> None:
        enough = enqueued + further
        await until_async(lambda: enqueued >= enough, "tasks are enqueued")

    async with asyncio.TaskGroup() as schedulers:
        for _ in range(16):
            schedulers.create_task(keep_enqueueing())
        for _ in range(3):
            await enough_enqueued(200)
            assert await asyncio.to_thread(world.server.stop) == 0
            await asyncio.to_thread(world.server.start)
        over.set()


def test_of_two_servers_started_on_one_file_exactly_one_lives_and_the_other_says_who(database_url: str) -> None:
    for _ in range(5):
        servers = [ServerProcess(database_url), ServerProcess(database_url)]
        try:
            with concurrent.futures.ThreadPoolExecutor() as threads:
                started = [threads.submit(server.start) for server in servers]
            failed = [i for i in (0, 1) if started[i].exception() is not None]
            assert len(failed) == 1, "exactly one lives"
            (loser,) = failed
            winner = servers[1 - loser]
            assert servers[loser].wait() == IN_USE
            assert f"in use by pid {winner.pid} on " in servers[loser].read_log()
            assert winner.stop() == 0, winner.read_log()
        finally:
            for server in servers:
                server.kill()
                server.log.close()


def test_twenty_four_processors_are_all_back_soon_after_the_server_was_killed(start_world: StartWorld) -> None:
    world = start_world(lease_duration="20s", log_level="warning")
    crowds = [world.processor(name, copies=12, concurrency=4).start() for name in ("crowd-a", "crowd-b")]
    names = [f"work.{crowd.name}.{copy}" for crowd in crowds for copy in range(12)]
    world.enqueue(*(a_task(name) for name in names))
    until(lambda: len(world.runs(ended=True)) == 24, "each has run its task")

    world.server.kill()
    let_pass(1.5)  # so that their backoffs have grown
    world.server.start()
    world.enqueue(*(a_task(name) for name in names))
    enqueued = time.monotonic()

    until(lambda: len(world.runs(ended=True)) == 48, "each has run its second task")
    waited = time.monotonic() - enqueued
    print(f"24 processors were all back after {waited:.1f} s")
    assert waited <= BACK_SECONDS + NOISE_SECONDS
    world.drain()
    for crowd in crowds:
        assert crowd.stop() == 0, crowd.read_log()
    assert world.server.stop() == 0
    verdict = world.verdict(floors={"succeeded": 48})
    assert verdict.word == "VALID", str(verdict)
    sessions = {attempt.session for task in world.seen().tasks.values() for attempt in task.attempts}
    assert len(sessions) == 24, "each has kept its session"
