"""Two servers on one PostgreSQL database, one of which is killed with -9 again and again: nothing that either answered
is lost, and no processor loses a task that it runs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import StartWorld
from tests.support.pooler import Pooler
from tests.support.program import Program
from tests.support.raw import a_task
from tests.support.verdict import Verdict
from tests.support.waiting import let_pass
from tests.support.world import World

LEASE = "8s"


def test_one_of_two_servers_killed_at_random_instants_loses_nothing_and_invents_nothing(
    start_world: StartWorld, durable_postgres_url: str, kills: int, seed: int
) -> None:
    world = start_world(database_url=durable_postgres_url, servers=2, lease_duration=LEASE, log_level="warning")
    processors = [world.processor(name, concurrency=16) for name in ("first", "second", "third")]

    kill_under_load(world, processors, kills, seed)

    verdict = what_came_of_it(world, processors, kills)
    assert verdict.word == "VALID", str(verdict)
    # every processor lived, and found the other server within its lease
    assert (verdict.counts["lost_leases"], verdict.counts["duplicates"]) == (0, 0), str(verdict)


@pytest.fixture
def pooler(durable_postgres_url: str) -> Iterator[Pooler]:
    with Pooler(durable_postgres_url) as pooler:
        yield pooler


def test_behind_a_pooler_that_changes_connections_with_each_transaction_the_same_is_true(
    start_world: StartWorld, durable_postgres_url: str, pooler: Pooler, kills: int, seed: int
) -> None:
    world = start_world(
        database_url=durable_postgres_url,
        server_urls=[pooler.url, pooler.url],
        pgbouncer="true",
        lease_duration=LEASE,
        log_level="warning",
    )
    # given one that knows both servers, one that knows the first, and one that knows the second and can do more
    here, there = (server.address for server in world.servers)
    bound = [world.processor("here", address=here), world.processor("there", address=there, tasks="work,hog")]
    processors = [world.processor("roaming"), *bound]
    kills = max(3, kills // 10)

    kill_under_load(world, processors, kills, seed, bound=True)
    world.drain()
    world.enqueue(*(a_task("hog") for _ in range(5)))  # at the first; the second has nothing to do, and hears no ring

    verdict = what_came_of_it(world, processors, kills)
    print(f"{pooler.transactions} transactions ran on {len(pooler.backends)} connections")
    assert verdict.word == "VALID", str(verdict)
    assert (verdict.counts["lost_leases"], verdict.counts["duplicates"]) == (0, 0), str(verdict)
    shares = {one.name: len(world.runs(one.name, ended=True)) for one in bound}
    assert min(shares.values()) >= verdict.counts["runs"] // 20, f"both servers dispatch: {shares}"


def kill_under_load(world: World, processors: list[Program], kills: int, seed: int, *, bound: bool = False) -> None:
    """`bound`: some know one server only, and must be heard before that is killed again."""
    schedulers = [
        world.scheduler("patient", seed=seed, lanes=4, burst=4, pause=0.04),
        world.scheduler("impatient", seed=seed + 1, lanes=8, burst=1, pause=0.03, timeout=0.03),
    ]
    for program in [*processors, *schedulers]:
        program.start()
    kill_one_at_random_instants(world, kills, random.Random(seed), bound=bound)
    for scheduler in schedulers:
        assert scheduler.stop() == 0, scheduler.read_log()


def what_came_of_it(world: World, processors: list[Program], kills: int) -> Verdict:
    """Once all is done and everybody has stopped."""
    world.drain()
    for processor in processors:
        assert processor.stop() == 0, processor.read_log()
    for server in world.servers:
        assert server.stop() == 0, server.read_log()
    floors = {"kills": kills, "acknowledged": 50 * kills, "ambiguous": kills // 2, "existing": kills // 30}
    verdict = world.verdict(floors=floors, kills=kills)
    print(verdict)
    return verdict


def kill_one_at_random_instants(world: World, times: int, instants: random.Random, *, bound: bool) -> None:
    """SIGKILL to either of them within half a second of work, and start it again, now and then only after a while."""
    for _ in range(times):
        victim = instants.choice(world.servers)
        world.wait_for_activity()
        let_pass(instants.uniform(0, 0.5))
        victim.kill()
        if instants.random() < 0.5:
            world.wait_for_activity()
            let_pass(instants.uniform(0, 1))
        victim.start()
        if bound:
            world.wait_until_all_are_heard()
