"""What the server's database says behind its back: tasks, and every attempt of them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from taskq_server.core.task import Outcome, TaskState
from tests.support.console import Console
from tests.support.history import digest

TASK_COLUMNS = (
    "seq", "task_id", "state", "attempt", "failed_attempts", "lost_leases", "due_time_us", "lease_time_us",
    "finish_time_us", "last_outcome", "last_failure", "session_seq", "priority", "payload", "name", "processor_name",
    "enqueue_time_us",
)  # fmt: skip
TASKS = f"SELECT {', '.join(TASK_COLUMNS)} FROM task JOIN route USING (route_id)"  # noqa: S608 - our own names
ATTEMPTS = (
    "SELECT task_seq, attempt, session_seq, processor_name, lease_time_us, end_time_us, outcome FROM attempt "
    "ORDER BY task_seq, attempt"
)


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


Row = tuple[Any, ...]


def rows(url: str, sql: str) -> list[Row]:
    """What a query finds; also while the server lives, which this process never is."""
    if not url.startswith("sqlite:///"):
        with Console(url) as console:
            return console.rows(sql)
    path = url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
        return list(connection.execute(sql))


def count(url: str) -> int:
    """How many tasks there are."""
    return int(rows(url, "SELECT count(*) FROM task")[0][0])


def ids(url: str) -> set[str]:
    """The ids of all tasks."""
    return {str(UUID(bytes=bytes(task_id))) for (task_id,) in rows(url, "SELECT task_id FROM task")}


def leases(url: str) -> dict[int, int]:
    """Until when each living session lives, if it is not heard before: microseconds since 1970, by its number."""
    return dict(rows(url, "SELECT session_seq, alive_until_us FROM session WHERE end_time_us IS NULL"))


def unfinished(url: str) -> dict[str, int]:
    """How many tasks wait or run, by state."""
    found = rows(url, "SELECT state, count(*) FROM task WHERE state < 3 GROUP BY state")
    return {TaskState(state).name: count for state, count in found}


def state_of(url: str, task_id: str) -> TaskState:
    """Where one task is."""
    found = {bytes(known): state for known, state in rows(url, "SELECT task_id, state FROM task")}
    return TaskState(found[UUID(task_id).bytes])


def read(url: str) -> dict[str, Task]:
    """Every task by its id, with its attempts in order. Only once the server has ended."""
    if url.startswith("sqlite:///"):
        assert rows(url, "PRAGMA integrity_check") == [("ok",)], "the database is corrupt"
    by_seq: dict[int, Task] = {}
    last: dict[int, Attempt] = {}
    for found in rows(url, TASKS):
        row = dict(zip(TASK_COLUMNS, found, strict=True))
        by_seq[row["seq"]] = _task(row)
        if row["attempt"] and row["lease_time_us"] is not None:
            last[row["seq"]] = _last_attempt(row)
    for seq, number, session_seq, processor, lease_us, end_us, outcome in rows(url, ATTEMPTS):
        attempt = Attempt(number, session_seq, processor, lease_us, end_us, Outcome(outcome))
        by_seq[seq].attempts.append(attempt)
    for seq, task in by_seq.items():
        if seq in last and task.attempt not in [attempt.number for attempt in task.attempts]:
            task.attempts.append(last[seq])
    return {task.task_id: task for task in by_seq.values()}


def _task(row: dict[str, Any]) -> Task:
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


def _last_attempt(row: dict[str, Any]) -> Attempt:
    outcome = None if row["last_outcome"] is None else Outcome(row["last_outcome"])
    return Attempt(
        row["attempt"], row["session_seq"], row["processor_name"], row["lease_time_us"], row["finish_time_us"], outcome
    )
