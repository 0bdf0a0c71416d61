"""A database whose server dies at any instant, and another goes on: with no chance to commit or to clean up."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path

from taskq_server.clock import ManualClock
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.sqlite.store import SQLite
from taskq_server.store.store import Store
from taskq_server.store.verbs.end_batch import Rules
from tests.store.rivals import end_connections
from tests.support.console import Console
from tests.support.databases import Databases


class Home(ABC):
    """Where one store after the other is at home."""

    own_clock: bool
    """Whether time is the server's, and goes on over a restart though its clock was set back."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.fatal: list[BaseException] = []
        """Faults after which nothing may be written."""

    @abstractmethod
    async def open(self, clock: ManualClock) -> Store:
        """The first store."""

    @abstractmethod
    def die(self) -> None:
        """What is in the database now, the next server finds; also from inside of a transaction."""

    @abstractmethod
    async def go_on(self, clock: ManualClock) -> Store:
        """The store of the next server, after this one has died or was closed."""

    @abstractmethod
    async def leave(self) -> None:
        """Nothing is kept."""


class SQLiteHome(Home):
    """The files are copied as they are: a process that is killed leaves them so."""

    own_clock = True

    def __init__(self, rules: Rules, empty: Path) -> None:
        super().__init__(rules)
        memory = Path("/dev/shm")
        self._folder = Path(tempfile.mkdtemp(prefix="taskq-model-", dir=memory if memory.is_dir() else None))
        self._many = 0
        self._next = self._new_path()
        shutil.copyfile(empty, self._next)

    def _new_path(self) -> Path:
        self._many += 1
        (self._folder / str(self._many)).mkdir()
        return self._folder / str(self._many) / "taskq.db"

    async def open(self, clock: ManualClock) -> Store:
        self._store = await SQLite.open(self._next, clock, self._rules, self.fatal.append)
        return self._store

    def die(self) -> None:
        self._next = self._new_path()
        for source in self._store._path.parent.glob("taskq.db*"):
            if source.is_file() and not source.name.endswith("-shm"):
                shutil.copyfile(source, self._next.with_name(source.name))

    async def go_on(self, clock: ManualClock) -> Store:
        await self._store.close()
        shutil.rmtree(self._store._path.parent)
        return await self.open(clock)

    async def leave(self) -> None:
        await self._store.close()
        shutil.rmtree(self._folder)


class PostgresHome(Home):
    """The connections are ended, and the store is given up without a word."""

    own_clock = False

    def __init__(self, rules: Rules, databases: Databases) -> None:
        super().__init__(rules)
        self._stack = ExitStack()
        self._url = self._stack.enter_context(databases.fresh())
        self._console = self._stack.enter_context(Console(self._url))

    async def open(self, clock: ManualClock) -> Store:
        self._store = await Postgres.open(self._url, clock, self._rules)
        return self._store

    def die(self) -> None:
        while end_connections(self._console):
            pass

    async def go_on(self, clock: ManualClock) -> Store:
        await abandon(self._store)
        return await self.open(clock)

    async def leave(self) -> None:
        await abandon(self._store)
        self._stack.close()


async def abandon(store: Postgres) -> None:
    """Its process is gone: it says nothing more to the database."""
    if store._bell is not None:
        await store._bell.close()
    for lane in {*store._lanes.values(), store._housekeeping, store._reading, store._looking}:
        lane._worker.cancel()
        await asyncio.gather(lane._worker, return_exceptions=True)
        await lane._drop_connection()
    await store._engine.dispose()
