"""Others who are at work on the same PostgreSQL database: what they lock, and who waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg

from tests.support.console import Console
from tests.support.waiting import until_async

LOCK_TASK = "SELECT seq FROM task WHERE task_id = $1 FOR UPDATE"
LOCK_SESSION = "SELECT session_seq FROM session WHERE session_seq = $1 FOR UPDATE"
_WAITING = """SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"""


@contextmanager
def holding(console: Console, sql: str, *values: object) -> Iterator[None]:
    """Keeps what a statement has locked or changed, until the end of the block."""
    console.run("BEGIN")
    try:
        console.rows(sql, *values)
        yield
    finally:
        console.run("COMMIT")


async def somebody_waits(console: Console, *, many: int = 1) -> None:
    """Returns once so many transactions wait for a lock. `console` must not have a transaction open, in which it would
    always see the same."""
    await until_async(lambda: console.value(_WAITING) >= many, f"{many} transactions wait for a lock")


def is_locked(console: Console, sql: str, *values: object) -> bool:
    """Whether somebody holds a lock that a statement `… FOR UPDATE` would have to wait for."""
    try:
        console.rows(f"{sql} NOWAIT", *values)
    except asyncpg.LockNotAvailableError:
        return True
    return False


def end_connections(console: Console) -> int:
    """Ends every other connection to the database at once, as `kill -9` of their clients would."""
    ended: Any = console.value(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND application_name LIKE 'taskq/%'"
    )
    return int(ended)
