"""PostgreSQL is stopped without a word and recovers, again and again, under two servers: they go on by themselves, and
nothing that they answered is lost.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from taskq.v1.processor_service_pb2 import REPORT_STATUS_ACCEPTED
from tests.e2e.conftest import StartWorld
from tests.support import truth
from tests.support.console import Console
from tests.support.postgres import PostgresProcess
from tests.support.postgres_proxy import PostgresProxy
from tests.support.raw import RawProcessor, RawScheduler, a_task, connected
from tests.support.waiting import let_pass, until
from tests.support.world import World

BACK_SECONDS = 10
"""The promise, from the moment at which PostgreSQL takes connections again."""
SOON_SECONDS = 2
NOISE_SECONDS = 3
"""Not part of a promise: on two cores that others load too, a process may wait for its turn as long as this."""


def test_servers_outlive_restarts_of_their_database_and_lose_nothing(
    start_world: StartWorld, durable_postgres: PostgresProcess, restarts: int, seed: int
) -> None:
    url = durable_postgres.url("taskq")
    world = start_world(database_url=url, servers=2, lease_duration="10s", log_level="warning")
    schedulers = [
        world.scheduler("patient", seed=seed, lanes=4, burst=4, pause=0.04),
        world.scheduler("impatient", seed=seed + 1, lanes=8, burst=1, pause=0.03, timeout=0.25),
    ]
    processors = [world.processor(name, concurrency=16) for name in ("first", "second", "third")]
    for program in [*processors, *schedulers]:
        program.start()

    outages = [restart(world, durable_postgres, random.Random(seed + i)) for i in range(restarts)]

    for scheduler in schedulers:
        assert scheduler.stop() == 0, scheduler.read_log()
    world.drain()
    for processor in processors:
        assert processor.stop() == 0, processor.read_log()
    for server in world.servers:
        assert server.stop() == 0, server.read_log()
    floors = {"restarts": restarts, "acknowledged": 50 * restarts, "ambiguous": restarts, "existing": restarts // 5}
    verdict = world.verdict(floors=floors, restarts=restarts)
    print(verdict)
    print(f"after PostgreSQL took connections, tasks were taken and run again within {max(outages):.2f} s at most")
    assert verdict.word == "VALID", str(verdict)
    assert max(outages) <= BACK_SECONDS + NOISE_SECONDS, outages
    # it was away for less than a lease, and every processor lived
    assert verdict.counts["lost_leases"] == 0, str(verdict)


def restart(world: World, postgres: PostgresProcess, instants: random.Random) -> float:
    """Within a second of work; answers how long it took until the servers served again."""
    world.wait_for_activity()
    let_pass(instants.uniform(0, 1))
    postgres.stop("immediate")
    if instants.random() < 0.5:
        let_pass(instants.uniform(0, 2))
    postgres.start()
    return world.served_within(BACK_SECONDS + NOISE_SECONDS)


# ── a crash between a COMMIT and its answer ──────────────────────────────────────────────────────────────────────────


def test_a_transaction_that_is_lost_in_a_crash_is_not_taken_for_another_that_gets_its_number(
    start_world: StartWorld, durable_postgres: PostgresProcess, proxy: PostgresProxy
) -> None:
    # given that nothing reaches the disk but what is committed, and as few others as possible who commit
    durable_postgres.settings["wal_writer_delay"] = "10s"
    durable_postgres.restart("fast")
    world = start_world(database_url=durable_postgres.url("taskq"), server_urls=[proxy.url], lease_duration="1h")
    again = 0
    with connected(world.server.address) as channel, ThreadPoolExecutor() as threads:
        scheduler = RawScheduler(channel)
        scheduler.enqueue(a_task())
        for others in (20, 20, 20, 0):
            task = a_task()
            next_before = next_number(world.database_url)
            proxy.refuse()
            proxy.cut_at_commit(before=True, after=b"INSERT INTO task")
            answer = threads.submit(scheduler.enqueue, task, timeout=20)
            until(lambda: not proxy.is_armed, "the COMMIT is cut")

            durable_postgres.restart("immediate")
            again += next_number(world.database_url) <= next_before
            commit_some(world.database_url, others)
            proxy.heal()

            error = answer.exception(timeout=SOON_SECONDS + NOISE_SECONDS)
            assert isinstance(error, grpc.RpcError), "it was answered, and is gone"
            assert error.code() is grpc.StatusCode.UNAVAILABLE, error
            until(lambda: accepted(scheduler), "the server serves again")
            assert task.task_id not in truth.ids(world.database_url)
    assert again, "no number was given twice: nothing was shown"
    assert world.server.stop() == 0, world.server.read_log()


def next_number(url: str) -> int:
    with Console(url) as console:
        return int(console.value("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))


def commit_some(url: str, many: int) -> None:
    with Console(url) as console:
        for _ in range(many):
            console.run("SELECT pg_current_xact_id()")


def accepted(scheduler: RawScheduler) -> bool:
    try:
        scheduler.enqueue(a_task())
    except grpc.RpcError:
        return False
    return True


@pytest.mark.parametrize("due_in", [0, 2], ids=["leased with the enqueue", "leased when due"])
def test_a_lease_of_which_the_server_never_heard_is_given_back_at_once(
    start_world: StartWorld, durable_postgres: PostgresProcess, proxy: PostgresProxy, due_in: int
) -> None:
    world = start_world(database_url=durable_postgres.url("taskq"), server_urls=[proxy.url], lease_duration="1h")
    with connected(world.server.address) as channel, ThreadPoolExecutor() as threads:
        processor, scheduler, task = RawProcessor(channel, "work"), RawScheduler(channel), a_task()
        task.delay.FromSeconds(due_in)
        processor.open_stream()
        scheduler.enqueue(a_task())
        assert processor.succeed(processor.take()) == REPORT_STATUS_ACCEPTED, "all is connected"
        proxy.refuse()
        if due_in:
            scheduler.enqueue(task)
        proxy.cut_at_commit(before=False, after=b"UPDATE task SET state = 2")
        answer = None if due_in else threads.submit(scheduler.enqueue, task, timeout=20)
        until(lambda: not proxy.is_armed, "the answer to a COMMIT is cut")

        durable_postgres.restart("immediate")
        proxy.heal()

        again = processor.take(seconds=BACK_SECONDS)
        assert (again.task_id, again.attempt, again.failed_attempts) == (task.task_id, 2, 0)
        assert processor.succeed(again) == REPORT_STATUS_ACCEPTED
        if answer is not None:  # whether it was stored could be asked in time, or not; never may it be refused
            error = answer.exception(timeout=SOON_SECONDS + NOISE_SECONDS)
            assert error is None or (isinstance(error, grpc.RpcError) and error.code() is grpc.StatusCode.UNAVAILABLE)
        processor.close()
    assert world.server.stop() == 0, world.server.read_log()
