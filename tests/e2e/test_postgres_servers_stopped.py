"""One of two servers is stopped with SIGSTOP, as by a machine that swaps or a container that is frozen, until everybody
has taken it for dead; then it wakes up and believes that nothing has happened.
"""

from __future__ import annotations

import random
import signal
import time

from taskq_server.core.task import Outcome
from tests.e2e.conftest import StartWorld
from tests.support.process import ServerProcess
from tests.support.program import Program
from tests.support.waiting import let_pass, until
from tests.support.world import World

STOPS = 3
LEASE_SECONDS = 4
MOVED_SECONDS = 6
"""By then a processor that knows both servers has found the other; its lease has not run out meanwhile."""
STOPPED_SECONDS = (MOVED_SECONDS + 2, MOVED_SECONDS + 4)
"""Longer than the lease of its sessions, which is twice its own."""
BACK_SECONDS = 10
NOISE_SECONDS = 3
"""Not part of a promise: on two cores that others load too, a process may wait for its turn as long as this."""


def test_a_server_that_wakes_up_after_everybody_has_taken_it_for_dead_does_no_harm_and_finds_its_place(
    start_world: StartWorld, durable_postgres_url: str, seed: int
) -> None:
    instants = random.Random(seed)
    world = start_world(
        database_url=durable_postgres_url, servers=2, lease_duration=f"{LEASE_SECONDS}s", log_level="warning"
    )
    # given processors that know one server, and some that know both
    bound = [world.processor(f"bound-{i}", address=world.servers[i].address, concurrency=8) for i in range(2)]
    roaming = [world.processor(f"roaming-{i}", concurrency=8) for i in range(3)]
    loads = [
        world.scheduler(f"load-{i}", seed=seed + i, address=world.servers[i].address, lanes=2, pause=0.1, work=0.3)
        for i in range(2)
    ]
    for program in [*bound, *roaming, *loads]:
        program.start()

    outages = []
    for i in range(STOPS):
        victim = i % 2 if i < 2 else instants.randrange(2)
        world.wait_for_activity()
        let_pass(instants.uniform(0, 1))
        outages.append(stop_and_wake(world, world.servers[victim], bound[victim], roaming, instants))

    for program in loads:
        assert program.stop() == 0, program.read_log()
    world.drain()
    for program in [*bound, *roaming]:
        assert program.stop() == 0, program.read_log()
    for server in world.servers:
        assert server.stop() == 0, server.read_log()
    floors = {"stops": STOPS, "acknowledged": 25 * STOPS, "lost_leases": STOPS, "duplicates": STOPS // 2}
    verdict = world.verdict(floors=floors, stops=STOPS)
    print(verdict)
    print(f"after it woke up, a processor that knows no other was served again within {max(outages):.1f} s at most")
    assert verdict.word == "VALID", str(verdict)
    assert max(outages) <= BACK_SECONDS + NOISE_SECONDS, outages
    lost = {
        attempt.processor
        for task in world.seen().tasks.values()
        for attempt in task.attempts
        if attempt.outcome is Outcome.LOST
    }
    assert lost <= {one.name for one in bound}, "those who know both servers keep what they run"


def stop_and_wake(
    world: World, server: ServerProcess, bound: Program, roaming: list[Program], instants: random.Random
) -> float:
    """Answers how long it took until a processor that knows no other server began to run another task."""
    server.signal(signal.SIGSTOP)
    let_pass(MOVED_SECONDS)
    moved = time.time()
    let_pass(instants.uniform(*STOPPED_SECONDS) - MOVED_SECONDS)
    idle = [one.name for one in roaming if not any(run.began > moved for run in world.runs(one.name))]
    began = time.monotonic()
    runs = len(world.runs(bound.name))
    server.signal(signal.SIGCONT)
    assert idle == [], "these did not go on at the other server"
    until(lambda: len(world.runs(bound.name)) > runs, "its processor runs tasks", BACK_SECONDS + NOISE_SECONDS)
    return time.monotonic() - began
