"""Two servers on one PostgreSQL database, one of which is killed with -9 again and again: nothing that either answered
is lost, and no processor loses a task that it runs.
"""

from __future__ import annotations

import random

from tests.e2e.conftest import StartWorld
from tests.support.waiting import let_pass
from tests.support.world import World


def test_one_of_two_servers_killed_at_random_instants_loses_nothing_and_invents_nothing(
    start_world: StartWorld, durable_postgres_url: str, kills: int, seed: int
) -> None:
    world = start_world(database_url=durable_postgres_url, servers=2, lease_duration="8s", log_level="warning")
    schedulers = [
        world.scheduler("patient", seed=seed, lanes=4, burst=4, pause=0.04),
        world.scheduler("impatient", seed=seed + 1, lanes=8, burst=1, pause=0.03, timeout=0.03),
    ]
    processors = [world.processor(name, concurrency=16) for name in ("first", "second", "third")]
    for program in [*processors, *schedulers]:
        program.start()

    kill_one_at_random_instants(world, kills, random.Random(seed))

    for scheduler in schedulers:
        assert scheduler.stop() == 0, scheduler.read_log()
    world.drain()
    for processor in processors:
        assert processor.stop() == 0, processor.read_log()
    for server in world.servers:
        assert server.stop() == 0, server.read_log()
    floors = {"kills": kills, "acknowledged": 50 * kills, "ambiguous": kills // 2, "existing": kills // 10}
    verdict = world.verdict(floors=floors, kills=kills)
    print(verdict)
    assert verdict.word == "VALID", str(verdict)
    # every processor lived, and found the other server within its lease
    assert (verdict.counts["lost_leases"], verdict.counts["duplicates"]) == (0, 0), str(verdict)


def kill_one_at_random_instants(world: World, times: int, instants: random.Random) -> None:
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
