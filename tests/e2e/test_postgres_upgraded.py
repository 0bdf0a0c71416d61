"""The schema is upgraded while servers of the version before are at work, which are then replaced one by one: nobody
who enqueues or runs tasks is told of it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from taskq_server.store import migrate
from tests.e2e.conftest import StartWorld
from tests.support import next_version
from tests.support.console import Console
from tests.support.probes import Probes, probing
from tests.support.process import taskq_db
from tests.support.raw import RawScheduler, a_task, connected
from tests.support.waiting import let_pass, until
from tests.support.world import World

LONGEST_SECONDS = 1
"""The lock timeout of the upgrade: so long who enqueues may have to wait behind it. Servers have more patience."""
NOISE_SECONDS = 2
"""Not part of a promise: on two cores that others load too, a process may wait for its turn as long as this."""
TURNS = 1
"""For so often the upgrade tries to have its locks, not twenty times: the minute is shown elsewhere."""
TRY_AGAIN = 75
AFTER_SECONDS = 1
"""For so long the servers of the version before go on with the new schema."""

TABLES = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"


def test_an_upgrade_under_load_costs_nobody_more_than_the_lock_timeout_and_servers_of_both_versions_serve(
    start_world: StartWorld, durable_postgres_url: str, tmp_path: Path
) -> None:
    # given servers of this version, at work, and the program of the next
    following = next_version.make(tmp_path / "next")
    admin = following / "taskq_server" / "store" / "postgres" / "admin.py"
    next_version.change(admin, "TRIES = 20", f"TRIES = {TURNS}")
    world = start_world(database_url=durable_postgres_url, servers=2, lease_duration="10s", log_level="warning")
    processors = [world.processor(name, concurrency=16).start() for name in ("first", "second")]
    loads = [world.scheduler(name, lanes=4, burst=2, pause=0.05).start() for name in ("load", "more")]
    until(lambda: len(world.runs(ended=True)) >= 100, "tasks run")
    tables = look(durable_postgres_url)

    with single_tries(world) as tries:
        # while somebody holds a lock it gives up, and nothing has changed
        with served(world, "while it could not have its locks"), somebody_at_work(durable_postgres_url):
            code, said = upgrade(following, durable_postgres_url)
        assert (code, said.count("others hold locks")) == (TRY_AGAIN, TURNS), said
        assert look(durable_postgres_url) == tables

        with served(world, "during the upgrade"):
            code, said = upgrade(following, durable_postgres_url)
            let_pass(AFTER_SECONDS)
        assert code == 0, said
        assert ("task", "colour") in look(durable_postgres_url)
    codes = Counter(answer.code for answer in tries.answers)
    print(f"to enqueue, with one try each: {dict(codes)}")
    assert codes.keys() == {None}

    with served(world, "while servers were replaced"):
        for server in world.servers:
            assert server.stop() == 0, server.read_log()
            server.prefix = ["env", "-C", str(following)]
            server.start()

    for load in loads:
        assert load.stop() == 0, load.read_log()
    world.drain()
    for processor in processors:
        assert processor.stop() == 0, processor.read_log()
    for server in world.servers:
        assert server.stop() == 0, server.read_log()
    verdict = world.verdict(floors={"acknowledged": 500, "accepted": 500})
    print(verdict)
    assert verdict.word == "VALID", str(verdict)
    told = [event for event in world.seen().history if event.op == "enqueue" and event.phase in ("info", "fail")]
    assert told == [], "these were told of it"
    assert (verdict.counts["lost_leases"], verdict.counts["duplicates"]) == (0, 0), str(verdict)


def look(url: str) -> list[tuple[str, ...]]:
    """Every column that there is, and the version."""
    with Console(url) as console:
        return [*console.rows(TABLES), *console.rows("SELECT version_num FROM alembic_version")]


@contextmanager
def single_tries(world: World) -> Iterator[Probes]:
    """Those who enqueue at one of the servers, and whom no client helps who tries again."""
    with ExitStack() as stack:
        channels = [stack.enter_context(connected(server.address)) for server in world.servers for _ in range(2)]
        schedulers = [RawScheduler(channel) for channel in channels]
        calls = {f"Enqueue {i}": partial(enqueue_one, world, scheduler) for i, scheduler in enumerate(schedulers)}
        yield stack.enter_context(probing(calls))


def enqueue_one(world: World, scheduler: RawScheduler) -> None:
    world.enqueue_by(scheduler, a_task())


@contextmanager
def somebody_at_work(url: str) -> Iterator[None]:
    """Somebody has looked at a table, and has not ended the transaction."""
    with Console(url) as holder:
        holder.run("BEGIN; SELECT count(*) FROM task")
        yield
        holder.run("ROLLBACK")


def upgrade(program: Path, url: str) -> tuple[int, str]:
    with taskq_db("upgrade", f"--database-url={url}", folder=program) as upgrading:
        out, said = upgrading.communicate(timeout=60)
    assert upgrading.returncode or out == f"{migrate.HEAD} -> {next_version.HEAD}\n"
    return upgrading.returncode, said


@contextmanager
def served(world: World, when: str) -> Iterator[None]:
    """Whoever enqueues meanwhile is answered in time."""
    tail = world.tail()
    yield
    asked: dict[str, float] = {}
    waited = []
    for event in sorted(tail.next(), key=lambda event: event.time):
        if event.op == "enqueue" and event.phase == "invoke":
            asked[event.task] = event.time
        elif event.op == "enqueue" and event.task in asked:
            waited.append(event.time - asked.pop(event.task))
    waited += [time.time() - since for since in asked.values()]
    print(f"{when}: {len(waited)} enqueues took {sorted(waited)[len(waited) // 2]:.3f} s, {max(waited):.2f} s at most")
    assert max(waited) <= LONGEST_SECONDS + NOISE_SECONDS
