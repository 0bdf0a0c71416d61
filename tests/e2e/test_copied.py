"""A queue moves from SQLite to PostgreSQL by `taskq db copy`, and back: to its schedulers and processors the server was
away for a while, and to nobody else did anything happen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from taskq.v1.scheduler_service_pb2 import CancelTaskRequest, NewTask
from taskq.v1.task_pb2 import RetryPolicy, Task
from taskq_server.core.task import TaskState
from tests.e2e.conftest import StartWorld
from tests.support import history, ledger, truth
from tests.support.console import Console
from tests.support.process import ServerProcess, taskq_db
from tests.support.raw import RawScheduler, a_task, connected
from tests.support.waiting import until
from tests.support.world import World

LEASE = "20s"
"""Longer than the way into the other database takes."""
MOVE_SECONDS = 4
"""About what that way takes: so long what waits should still wait, and what runs should still run."""
MUST_NOT_BE_USED = 78
WAIT_FOR_LOCK = "SELECT count(*) FROM pg_locks WHERE relation = 'attempt'::regclass AND NOT granted"


def test_tasks_in_every_state_go_on_in_the_other_database_and_back_again(
    start_world: StartWorld, durable_postgres_url: str, tmp_path: Path
) -> None:
    # given a queue on SQLite, in which something of everything has happened, waits and runs
    world = start_world(lease_duration=LEASE, log_level="warning")
    first = world.processor("first", tasks="work,flaky", concurrency=16).start()
    load = world.scheduler("load", lanes=2, burst=4, pause=0.05, spread=MOVE_SECONDS).start()
    until(lambda: len(world.runs(ended=True)) >= 50, "tasks run")
    finished = finish_some(world)
    assert load.stop() == 0, load.read_log()
    leave_some(world)
    stored = stop_all(world)

    # when it is copied to PostgreSQL, at the second try
    break_off_a_copy(world, durable_postgres_url)
    copied(world, durable_postgres_url)

    # then all is there as it was, the rest is done there, by two servers, and what was finished can still be read
    assert truth.read(durable_postgres_url) == stored
    there = ServerProcess(durable_postgres_url, **world.server.settings)
    world.servers.append(there)
    start_all(world)
    second = world.processor("second", address=there.address, tasks="hog").start()
    world.drain()
    told = read(world, stored)
    assert told == told | finished
    assert {run.processor for run in world.runs(ended=True)} == {"first", "second"}

    # and all the same on the way back
    assert second.stop() == 0, second.read_log()
    leave_some(world)
    stored = stop_all(world)
    world.servers.remove(there)
    there.log.close()
    copied(world, f"sqlite:///{tmp_path}/back.db")
    assert truth.read(world.database_url) == stored
    start_all(world)
    hog = world.processor("third", tasks="hog").start()
    world.drain()
    assert read(world, told) == told

    for program in (first, hog):
        assert program.stop() == 0, program.read_log()
    assert world.server.stop() == 0, world.server.read_log()
    verdict = world.verdict(floors={"acknowledged": 60, "accepted": 60, "failed": 4})
    print(verdict)
    assert verdict.word == "VALID", str(verdict)
    # the processors lived, and were heard in time in each of the databases
    assert verdict.counts["lost_leases"] == 0, str(verdict)


# ── what there is to be copied ───────────────────────────────────────────────────────────────────────────────────────


def flaky(delay: float = 0, max_attempts: int = 2) -> NewTask:
    """One that fails the first time, and is then tried again after so many seconds."""
    task = a_task("flaky")
    seconds = Duration(nanos=round(delay * 1e9) % 10**9, seconds=int(delay))
    policy = RetryPolicy(max_attempts=max_attempts, initial_delay=seconds, jitter=RetryPolicy.JITTER_NONE)
    task.retry_policy.CopyFrom(policy)
    return task


def finish_some(world: World) -> dict[str, Task]:
    """A result, one of a second attempt, a failure, one that was cancelled; as they are told to whoever asks."""
    succeeds, again, fails = a_task(seconds=0.25), flaky(), flaky(max_attempts=1)
    never = a_task("nobody")
    world.enqueue(succeeds, again, fails, never)
    with connected(world.server.address) as channel:
        RawScheduler(channel).stub.CancelTask(CancelTaskRequest(task_id=never.task_id), timeout=10)
    ids = [task.task_id for task in (succeeds, again, fails, never)]
    until(lambda: all(task.HasField("finish_time") for task in read(world, ids).values()), "they are finished")
    told = read(world, ids)
    result, second, failure, cancelled = told.values()
    assert result.result.data == b"0.25"
    assert (second.attempt, second.failed_attempts) == (2, 1)
    assert failure.last_failure.message == "the first attempt fails"
    assert [task.state for task in (second, failure, cancelled)] == [3, 4, 5]
    return told


def leave_some(world: World) -> None:
    """Some that run, that wait for their second attempt, that are not due yet, and that are due and have nobody."""
    runs = [a_task(seconds=seconds) for seconds in (1, MOVE_SECONDS, 1.5 * MOVE_SECONDS)]
    later, retried, unattended = a_task(), flaky(delay=MOVE_SECONDS), [a_task("hog") for _ in range(3)]
    later.delay.CopyFrom(Duration(seconds=MOVE_SECONDS))
    world.enqueue(*runs, later, retried)
    until(lambda: {task.task_id for task in runs} <= begun(world), "they run")
    until(lambda: has_failed(world, retried), "its first attempt has failed")
    world.enqueue(*unattended)


def begun(world: World) -> set[str]:
    return set(ledger.runs_of(history.read(world.ledger_folder)))


def has_failed(world: World, task: NewTask) -> bool:
    return read(world, [task.task_id])[task.task_id].failed_attempts == 1


def read(world: World, ids: Iterable[str]) -> dict[str, Task]:
    """What the server says of these tasks."""
    with connected(world.server.address) as channel:
        scheduler = RawScheduler(channel)
        return {task_id: scheduler.get(task_id) for task_id in ids}


# ── the way from one database into another ───────────────────────────────────────────────────────────────────────────


def stop_all(world: World) -> dict[str, truth.Task]:
    """Stops the servers; answers what is then stored, of which some must have been left."""
    for server in world.servers:
        assert server.stop() == 0, server.read_log()
    stored = truth.read(world.database_url)
    states = Counter(task.state for task in stored.values())
    assert states[TaskState.RUNNING] >= 2, states
    assert states[TaskState.SCHEDULED] >= 5, states
    assert any(task.state is TaskState.SCHEDULED and task.failed_attempts for task in stored.values())
    return stored


def start_all(world: World) -> None:
    """Starts the servers where the queue is now, the first at the address that all know."""
    for server in world.servers:
        server.database_url = world.database_url
        server.start()


def copied(world: World, target: str) -> None:
    """From now on the queue is there."""
    with taskq_db("copy", world.database_url, target) as copy:
        _, said = copy.communicate(timeout=60)
    assert copy.returncode == 0, said
    world.database_url = target


def break_off_a_copy(world: World, target: str) -> None:
    """SIGKILL to a copy of which a part is done; no server starts on that."""
    with Console(target) as holder, Console(target) as console:
        holder.run("BEGIN; LOCK TABLE attempt IN SHARE MODE")
        with taskq_db("copy", world.database_url, target) as copy:
            until(lambda: console.value(WAIT_FOR_LOCK), "the copy comes to the third table")
            copy.kill()
        holder.run("ROLLBACK")
        done = console.value("SELECT count(*) FROM task")
    assert done == truth.count(world.database_url)
    server = ServerProcess(target)
    with server.log, pytest.raises(AssertionError, match="half a copy"):
        server.start()
    assert server.wait() == MUST_NOT_BE_USED
