"""What the server's database says once the server is gone: tasks, and every attempt of them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from taskq_server.core.task import Outcome, TaskState
from tests.support.history import digest

TASKS = """SELECT seq, task_id, state, attempt, failed_attempts, lost_leases, due_time_us, lease_time_us,
finish_time_us, last_outcome, last_failure, session_seq, priority, payload, name, processor_name, enqueue_time_us
FROM task JOIN route USING (route_id)"""
ATTEMPTS = "SELECT task_seq, attempt, session_seq, processor_name, lease_time_us, end_time_us, outcome FROM attempt"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One lease of a task. `end_us` is None while it is held."""

    number: int
    session: int
    processor: str
    lease_us: int
    end_us: int | None
    outcome: Outcome | None


@dataclass(slots=True)
class Task:
    """A task as it is stored."""

    task_id: str
    name: str
    state: TaskState
    attempt: int
    failed_attempts: int
    lost_leases: int
    priority: int
    due_us: int
    enqueue_us: int
    payload_digest: str
    failure: str | None
    attempts: list[Attempt] = field(default_factory=list)


def unfinished(database: Path) -> dict[str, int]:
    """How many tasks wait or run, by state; also while the server lives."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as connection:
        found = connection.execute("SELECT state, count(*) FROM task WHERE state < 3 GROUP BY state")
        return {TaskState(state).name: count for state, count in found}


def state_of(database: Path, task_id: str) -> TaskState:
    """Where one task is; also while the server lives."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as connection:
        (state,) = connection.execute("SELECT state FROM task WHERE task_id = ?", (UUID(task_id).bytes,)).fetchone()
        return TaskState(state)


def read(database: Path) -> dict[str, Task]:
    """Every task by its id, with its attempts in order. Only once the server has ended."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
        assert sound == "ok", f"the database is corrupt: {sound}"
        by_seq: dict[int, Task] = {}
        last: dict[int, Attempt] = {}
        for row in connection.execute(TASKS):
            by_seq[row["seq"]] = _task(row)
            if row["attempt"] and row["lease_time_us"] is not None:
                last[row["seq"]] = _last_attempt(row)
        for row in connection.execute(ATTEMPTS + " ORDER BY task_seq, attempt"):
            outcome = Outcome(row["outcome"])
            attempt = Attempt(
                row["attempt"],
                row["session_seq"],
                row["processor_name"],
                row["lease_time_us"],
                row["end_time_us"],
                outcome,
            )
            by_seq[row["task_seq"]].attempts.append(attempt)
    for seq, task in by_seq.items():
        if seq in last and task.attempt not in [attempt.number for attempt in task.attempts]:
            task.attempts.append(last[seq])
    return {task.task_id: task for task in by_seq.values()}


def _task(row: sqlite3.Row) -> Task:
    return Task(
        str(UUID(bytes=row["task_id"])),
        row["name"],
        TaskState(row["state"]),
        row["attempt"],
        row["failed_attempts"],
        row["lost_leases"],
        row["priority"],
        row["due_time_us"],
        row["enqueue_time_us"],
        digest(row["payload"] or b""),
        row["last_failure"],
    )


def _last_attempt(row: sqlite3.Row) -> Attempt:
    outcome = None if row["last_outcome"] is None else Outcome(row["last_outcome"])
    return Attempt(
        row["attempt"], row["session_seq"], row["processor_name"], row["lease_time_us"], row["finish_time_us"], outcome
    )
