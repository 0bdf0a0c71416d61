"""A database with the server's tables and nothing in them, for every test that asks.

A used one, emptied: that takes 4 ms. To make one from a template takes 16, to drop it 6, and the first connection to it
is slow. So each is looked after by one connection, `taskq tests` in pg_stat_activity, which stays.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import asyncpg

from taskq_server.store.migrate import to_head
from taskq_server.store.postgres.engine import engine_of
from tests.support.console import connect
from tests.support.loop_thread import LoopThread
from tests.support.postgres import PostgresProcess
from tests.support.pristine import Pristine

FAST: dict[str, str | int] = {
    "autovacuum": "off",
    "max_connections": 200,
    "max_wal_senders": 0,
    "max_wal_size": "4GB",
    "wal_level": "minimal",
}
ENDED = (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError)
"""What a connection raises that a test has ended, as some end all that they see."""


class Databases:
    """Those of one run of the tests, on a cluster of its own or on the server that TASKQ_TEST_PG_URL names.

    `process` is that cluster; None when it is somebody else's.
    """

    def __init__(self) -> None:
        self.process: PostgresProcess | None = None
        self._prefix = f"taskq_test_{uuid.uuid4().hex[:8]}"
        self._carers: dict[str, asyncpg.Connection] = {}
        """The connection that looks after each."""
        self._free: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._thread = stack.enter_context(LoopThread("databases"))
            self._url = os.environ.get("TASKQ_TEST_PG_URL", "")
            if not self._url:
                self.process = stack.enter_context(PostgresProcess(fsync=False, **FAST))
                self._url = self.process.url()
            stack.callback(lambda: self._thread.call(self._drop_all()))
            self._pristine = self._thread.call(self._make_template())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """The URL of a database with the schema at head, as if it were new; nobody else has it meanwhile."""
        name = self._thread.call(self._take())
        try:
            yield self.url(name)
        finally:
            self._free.append(name)

    @contextmanager
    def bare(self) -> Iterator[str]:
        """The URL of a database in which nothing was ever made; it is dropped."""
        name = self._thread.call(self._make(self._new_name(), "template0"))
        try:
            yield self.url(name)
        finally:
            self._thread.call(self._drop(name))

    def url(self, database: str) -> str:
        return urlsplit(self._url)._replace(path=f"/{database}").geturl()

    async def _take(self) -> str:
        while self._free:
            name = self._free.pop()
            try:
                if await self._is_restored(name):
                    return name
            except asyncpg.InvalidCatalogNameError:
                pass  # its test has dropped it
            await self._drop(name)
        return await self._make(self._new_name(), self._prefix)

    async def _is_restored(self, name: str) -> bool:
        try:
            return await self._pristine.restore(self._carers[name])
        except ENDED:
            self._carers[name].terminate()
            self._carers[name] = await connect(self.url(name))
            return await self._pristine.restore(self._carers[name])

    def _new_name(self) -> str:
        return f"{self._prefix}_{uuid.uuid4().hex[:8]}"

    async def _make_template(self) -> Pristine:
        name = await self._make(self._prefix, "template0")
        engine = engine_of(self.url(name), settings={})
        async with engine.begin() as connection:
            await connection.run_sync(to_head)
        await engine.dispose()
        try:
            return await Pristine.look(self._carers[name])
        finally:
            await self._carers[name].close()  # a template must be alone

    async def _make(self, name: str, template: str) -> str:
        # Its files are copied; to write each page into the log, as is the default, takes twice as long.
        await self._administer(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        self._carers[name] = await connect(self.url(name))
        return name

    async def _drop(self, name: str) -> None:
        await self._carers.pop(name).close()
        await self._administer(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    async def _drop_all(self) -> None:
        for name in list(self._carers):
            await self._drop(name)

    async def _administer(self, sql: str) -> None:
        connection = await connect(self._url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()
