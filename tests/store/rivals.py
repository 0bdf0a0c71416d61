"""Several at work on one PostgreSQL database: who is stopped where, what he has locked, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
from sqlalchemy import Connection, event

from taskq_server.store.postgres.store import Postgres
from taskq_server.store.transaction import Transaction, Verb
from tests.store.given import Gate, replace_verb
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


class Stopped:
    """A call that was stopped in the midst of its transaction: `await call.goes_on()` lets it end, and answers."""

    def __init__(self, gate: Gate, call: asyncio.Task[Any]) -> None:
        self._gate = gate
        self._call = call

    @property
    def done(self) -> bool:
        return self._call.done()

    async def goes_on(self) -> Any:
        self._gate.open()
        return await self._call


async def stopped_at(
    store: Postgres, words: str, call: Coroutine[Any, Any, Any], *, after: bool = False, times: int = 1
) -> Stopped:
    """Starts a call, which stops before (or `after`) the statement in which these words stand for the so-manieth time;
    what it has locked until then it keeps. Other calls pass."""
    gate, engine = Gate(), store._engine.sync_engine
    when = "after_cursor_execute" if after else "before_cursor_execute"
    left = [times]

    def stop(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if words in statement and left[0]:
            left[0] -= 1
            if not left[0]:
                gate.pass_by(connection)

    event.listen(engine, when, stop)
    task = asyncio.create_task(call)
    reached = asyncio.create_task(gate.reached.wait())
    await asyncio.wait([task, reached], return_when=asyncio.FIRST_COMPLETED)
    if not gate.reached.is_set():
        reached.cancel()
        raise AssertionError(f"ended without having said {words}: {task}")
    return Stopped(gate, task)


async def stopped_before_commit(store: Postgres, name: str, call: Callable[[], Coroutine[Any, Any, Any]]) -> Stopped:
    """Starts a call, which stops when that verb has done all its work."""
    verb, gate, first = getattr(store, name), Gate(), [True]

    def stop(tx: Transaction, items: list[Any]) -> list[Any]:
        answers = verb(tx, items)
        if first:
            first.clear()
            gate.pass_by(tx.connection)
        return list(answers)

    replace_verb(store, name, stop)
    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    replace_verb(store, name, verb)
    reached = asyncio.create_task(gate.reached.wait())
    await asyncio.wait([task, reached], return_when=asyncio.FIRST_COMPLETED)
    if not gate.reached.is_set():
        reached.cancel()
        raise AssertionError(f"ended before it was stopped: {task}")
    return Stopped(gate, task)


def each_run(name: str, *stores: Postgres) -> list[Transaction]:
    """The transactions in which a verb runs from now on: one more when PostgreSQL has undone one to end a deadlock."""
    runs: list[Transaction] = []

    def noted(verb: Verb[Any, Any]) -> Verb[Any, Any]:
        def note(tx: Transaction, items: list[Any]) -> list[Any]:
            runs.append(tx)
            return verb(tx, items)

        return note

    for store in stores:
        replace_verb(store, name, noted(getattr(store, name)))
    return runs


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
