"""A store to say sentences about, on each database that there is; another one is added here, and in no other place."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from taskq_server.clock import ManualClock
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.sqlite.store import SQLite
from taskq_server.store.store import Store
from taskq_server.store.verbs.end_batch import Rules
from tests.store.given import days
from tests.support.console import Console

RULES = Rules(retention_us=days(7), max_lost_leases=3)


class SQLiteFile:
    """A database that outlives the stores that are opened on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fatal: list[BaseException] = []
        """What the stores have said about faults after which nothing may be written."""
        self._open: list[SQLite] = []

    async def open(self, clock: ManualClock, rules: Rules = RULES) -> SQLite:
        store = await SQLite.open(self.path, clock, rules, self.fatal.append)
        self._open.append(store)
        return store

    async def close(self) -> None:
        for store in self._open:
            await store.close()
        self._open.clear()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that has its tables and nothing else: to copy it is ten times as fast as to migrate another."""
    path = tmp_path_factory.mktemp("empty") / "taskq.db"

    async def make() -> None:
        database = SQLiteFile(path)
        await database.open(ManualClock())
        await database.close()

    asyncio.run(make())
    return path


class PostgresDatabase:
    """A database that outlives the stores that are opened on it; several may be open at once, as on several servers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.fatal: list[BaseException] = []
        self._open: list[Postgres] = []

    async def open(self, clock: ManualClock, rules: Rules = RULES) -> Postgres:
        store = await Postgres.open(self.url, clock, rules)
        self._open.append(store)
        return store

    async def close(self) -> None:
        for store in self._open:
            await store.close()
        self._open.clear()


Database = SQLiteFile | PostgresDatabase


@pytest.fixture
async def sqlite_database(tmp_path: Path, empty_sqlite: Path) -> AsyncIterator[SQLiteFile]:
    shutil.copyfile(empty_sqlite, tmp_path / "taskq.db")
    database = SQLiteFile(tmp_path / "taskq.db")
    yield database
    await database.close()


@pytest.fixture
async def postgres_database(postgres_url: str) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(postgres_url)
    yield database
    await database.close()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """Every sentence holds for each of these; what only one of them promises stands in test_<its name>_*.py, where
    `database` is that one."""
    return request.getfixturevalue(f"{request.param}_database")  # type: ignore[no-any-return]


@pytest.fixture
async def store(database: Database, clock: ManualClock) -> Store:
    return await database.open(clock)


Reopen = Callable[[], Awaitable[Store]]


@pytest.fixture
def reopen(database: Database, clock: ManualClock) -> Reopen:
    """Stops the server and starts another on the same database, on the same clock. Sessions become its own when it
    takes them over."""

    async def reopen() -> Store:
        await database.close()
        return await database.open(clock)

    return reopen


Servers = Callable[[int], Awaitable[list[Postgres]]]


@pytest.fixture
def servers(postgres_database: PostgresDatabase, clock: ManualClock) -> Servers:
    """Several servers on one database, which know of each other, on one clock."""

    async def open_several(many: int) -> list[Postgres]:
        stores = [await postgres_database.open(clock) for _ in range(many)]
        for store in stores:
            await store.renew()
        return stores

    return open_several


@pytest.fixture
def console(postgres_url: str) -> Iterator[Console]:
    """Another client of the PostgreSQL database."""
    with Console(postgres_url) as console:
        yield console
