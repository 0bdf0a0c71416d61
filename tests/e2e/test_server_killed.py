"""The server is killed with -9 at random instants under load: nothing that it answered is lost."""

from __future__ import annotations

import contextlib
import random
import signal
import threading

from tests.e2e.conftest import StartWorld
from tests.support.process import ServerProcess
from tests.support.waiting import let_pass
from tests.support.world import World


def test_a_server_killed_at_random_instants_loses_nothing_and_invents_nothing(
    start_world: StartWorld, kills: int, seed: int
) -> None:
    world = start_world(lease_duration="8s", log_level="warning")
    schedulers = [
        world.scheduler("patient", seed=seed, lanes=4, burst=4, pause=0.04),
        world.scheduler("impatient", seed=seed + 1, lanes=8, burst=1, pause=0.03, timeout=0.25),
    ]
    processors = [world.processor("first", concurrency=16), world.processor("second", concurrency=16)]
    for program in [*processors, *schedulers]:
        program.start()

    kill_at_random_instants(world, kills, random.Random(seed))

    for scheduler in schedulers:
        assert scheduler.stop() == 0, scheduler.read_log()
    world.drain()
    for processor in processors:
        assert processor.stop() == 0, processor.read_log()
    assert world.server.stop() == 0, world.server.read_log()
    floors = {"kills": kills, "acknowledged": 50 * kills, "ambiguous": kills, "existing": kills // 30}
    verdict = world.verdict(floors=floors, kills=kills)
    print(verdict)
    assert verdict.word == "VALID", str(verdict)
    # each server was away for less than a lease, and every processor lived: none of them may have lost anything
    assert (verdict.counts["lost_leases"], verdict.counts["duplicates"]) == (0, 0), str(verdict)


def kill_at_random_instants(world: World, times: int, instants: random.Random) -> None:
    """SIGKILL within half a second of work, and start again; one in five times already while it starts."""
    for _ in range(times):
        if instants.random() < 0.2:
            kill_while_it_starts(world.server, instants.uniform(0, 0.8))
        else:
            world.wait_for_activity()
            let_pass(instants.uniform(0, 0.5))
            world.server.kill()
        world.server.start()


def kill_while_it_starts(server: ServerProcess, seconds: float) -> None:
    server.kill()

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            server.signal(signal.SIGKILL)

    killer = threading.Timer(0.05 + seconds, kill)
    killer.start()
    with contextlib.suppress(AssertionError):  # it was killed before it listened
        server.start()
    killer.join()
    server.kill()
