"""The servers' connections to PostgreSQL are ended at random instants, one or all at a time; now and then one of its
processes is killed, whereupon PostgreSQL ends all others and recovers.
"""

from __future__ import annotations

import random
import signal

from tests.e2e.conftest import StartWorld
from tests.support.console import Console
from tests.support.postgres import PostgresProcess
from tests.support.waiting import let_pass, until
from tests.support.world import World

TERMINATIONS = 30
CRASHES = 2
BACK_SECONDS = 13
"""Ten, and noise."""

OURS = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'taskq/%'"


def test_connections_that_are_ended_at_random_instants_cost_nothing_that_was_answered(
    start_world: StartWorld, durable_postgres: PostgresProcess, seed: int
) -> None:
    instants = random.Random(seed)
    world = start_world(
        database_url=durable_postgres.url("taskq"), servers=2, lease_duration="10s", log_level="warning"
    )
    schedulers = [
        world.scheduler("patient", seed=seed, lanes=4, burst=4, pause=0.04),
        world.scheduler("impatient", seed=seed + 1, lanes=8, burst=1, pause=0.03, timeout=0.25),
    ]
    processors = [world.processor(name, concurrency=16) for name in ("first", "second", "third")]
    for program in [*processors, *schedulers]:
        program.start()
    world.wait_for_activity()

    ended = 0
    outages = []
    for _ in range(CRASHES):
        ended += end_connections(durable_postgres, TERMINATIONS // CRASHES, instants)
        world.wait_for_activity()
        outages.append(kill_one(world, durable_postgres, instants))

    for scheduler in schedulers:
        assert scheduler.stop() == 0, scheduler.read_log()
    world.drain()
    for processor in processors:
        assert processor.stop() == 0, processor.read_log()
    for server in world.servers:
        assert server.stop() == 0, server.read_log()
    floors = {"ended": TERMINATIONS, "acknowledged": 10 * TERMINATIONS}
    verdict = world.verdict(floors=floors, ended=ended, crashes=CRASHES)
    print(verdict)
    print(f"after one of its processes was killed, tasks were taken and run again within {max(outages):.2f} s at most")
    assert verdict.word == "VALID", str(verdict)
    # every processor lived and was heard
    assert (verdict.counts["lost_leases"], verdict.counts["duplicates"]) == (0, 0), str(verdict)


def end_connections(postgres: PostgresProcess, times: int, instants: random.Random) -> int:
    """Answers how many were ended."""
    ended = 0
    with Console(postgres.url()) as console:
        for _ in range(times):
            let_pass(instants.uniform(0, 0.3))
            pids = sorted(pid for (pid,) in console.rows(OURS))
            chosen = pids if instants.random() < 0.25 else instants.sample(pids, min(1, len(pids)))
            ended += sum(
                ok for (ok,) in console.rows("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", chosen)
            )
    return ended


def kill_one(world: World, postgres: PostgresProcess, instants: random.Random) -> float:
    """SIGKILL; answers how long it took from when PostgreSQL had ended all others until the servers served again."""
    with Console(postgres.url()) as console:  # one that stays: others come and go
        ours = sorted(pid for (pid,) in console.rows(OURS))
    before = postgres.backends("taskq")
    postgres.signal(signal.SIGKILL, instants.choice(ours))
    until(lambda: set(before).isdisjoint(postgres.backends("taskq")), "PostgreSQL has ended all connections")
    return world.served_within(BACK_SECONDS)
