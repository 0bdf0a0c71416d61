"""What PostgreSQL and its driver raise, and what those who wait are told: to try again, that the disk is full, or the
very fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from sqlalchemy import exc, text

from taskq_server.clock import ManualClock
from taskq_server.core.errors import StorageFull, StorageUnavailable, TaskNotFound, TaskqError
from taskq_server.store.postgres import engine as postgres_url
from taskq_server.store.postgres import faults
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.transaction import Again, Transaction
from tests.store.conftest import PostgresDatabase
from tests.store.given import a_task, added, rows

TRY_AGAIN = {
    "08006": "connection failure",
    "25006": "the server has become a standby",
    "25P03": "a transaction was idle for too long",
    "40001": "serialization failure",
    "40P01": "deadlock",
    "53000": "insufficient resources",
    "53200": "out of memory",
    "53300": "too many connections",
    "55P03": "lock not available",
    "57014": "statement timeout",
    "57P01": "shutdown",
    "57P02": "crash of a process",
    "57P03": "starting up",
    "58000": "system error",
    "58030": "I/O error",
}
DISK_FULL = "53100"
OF_OURS = {
    "22003": "a number out of range",
    "22021": "NUL in a text",
    "23505": "duplicate key",
    "42601": "syntax",
    "42P01": "no such table",
    "42501": "not allowed",
    "XX000": "internal error",
    "XX001": "a corrupt page",
}


@pytest.fixture
def database(postgres_database: PostgresDatabase) -> PostgresDatabase:
    return postgres_database


@pytest.fixture
async def store(database: PostgresDatabase, clock: ManualClock) -> Postgres:
    return await database.open(clock)


def add_and_raise(store: Postgres, sqlstate: str) -> Callable[[Transaction, list[Any]], list[Any]]:
    """Adds tasks, and then PostgreSQL raises that."""

    def verb(tx: Transaction, items: list[Any]) -> list[Any]:
        store._add(tx, items)
        tx.connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = '{sqlstate}'; END $$"))
        return items

    return verb


@pytest.mark.parametrize("sqlstate", TRY_AGAIN, ids=TRY_AGAIN.values())
async def test_what_may_go_by_is_unavailable(store: Postgres, sqlstate: str) -> None:
    with pytest.raises(StorageUnavailable) as caught:
        await store.write(add_and_raise(store, sqlstate), [a_task("new route")])

    assert "so it is" in caught.value.detail
    assert await rows(store, "SELECT count(*) AS n FROM task") == [{"n": 0}]
    await added(store, a_task("new route"))


async def test_a_full_disk_is_said_to_be_full(store: Postgres) -> None:
    with pytest.raises(StorageFull):
        await store.write(add_and_raise(store, DISK_FULL), [a_task("new route")])

    assert await rows(store, "SELECT count(*) AS n FROM task") == [{"n": 0}]
    await added(store, a_task("new route"))


@pytest.mark.parametrize("sqlstate", OF_OURS, ids=OF_OURS.values())
async def test_a_fault_of_ours_is_not_said_to_go_by(store: Postgres, sqlstate: str) -> None:
    with pytest.raises(exc.DBAPIError) as caught:
        await store.write(add_and_raise(store, sqlstate), [a_task("new route")])

    assert faults.translate(caught.value) is None
    assert await rows(store, "SELECT count(*) AS n FROM task") == [{"n": 0}]
    await added(store, a_task("new route"))


OF_THE_NETWORK = [
    ConnectionRefusedError(111, "refused"),
    ConnectionResetError(104, "reset"),
    TimeoutError(),
    OSError(113, "no route to host"),
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    asyncpg.CannotConnectNowError("the database system is starting up"),
    asyncpg.TooManyConnectionsError("sorry, too many clients already"),
    asyncpg.exceptions.TargetServerAttributeNotMatched("no server is read-write"),
    Again(),
]


@pytest.mark.parametrize("error", OF_THE_NETWORK, ids=lambda error: type(error).__name__)
def test_who_cannot_be_reached_is_unavailable(error: Exception) -> None:
    assert isinstance(faults.translate(error), StorageUnavailable)


@pytest.mark.parametrize("error", [TaskNotFound("t1"), StorageFull()], ids=lambda error: type(error).__name__)
def test_what_is_an_error_of_ours_already_stays_as_it_is(error: TaskqError) -> None:
    assert faults.translate(error) is error


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyError("k"), asyncpg.UniqueViolationError("k")])
def test_any_other_is_nothing_that_would_go_by(error: Exception) -> None:
    assert faults.translate(error) is None


async def test_a_statement_that_takes_too_long_is_unavailable_and_the_next_is_not(
    database: PostgresDatabase, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres_url.SETTINGS, "statement_timeout", "100ms")
    store = await database.open(clock)

    def add_and_sleep(tx: Transaction, items: list[Any]) -> list[Any]:
        store._add(tx, items)
        tx.connection.execute(text("SELECT pg_sleep(60)"))
        return items

    with pytest.raises(StorageUnavailable):
        await store.write(add_and_sleep, [a_task("new route")])

    assert (await rows(store, "SELECT count(*) AS n FROM task"), store.routes) == ([{"n": 0}], {})
    await added(store, a_task("new route"))
