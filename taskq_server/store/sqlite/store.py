"""SQLite: one file, one connection that writes, one that reads, each shared by everybody who waits.

Durability is `journal_mode=WAL` with `synchronous=FULL`: about one fdatasync a commit, and nothing that was answered is
lost to power loss. SQLite before 3.51.3 can corrupt a WAL that two connections write or checkpoint at once, so exactly
one connection writes and checkpoints, for as long as the server lives; readers may do neither.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, create_engine, event, exc
from sqlalchemy.pool import NullPool

from taskq_server.clock import SECOND_US, OwnClock
from taskq_server.core.errors import StorageFull, StorageUnavailable, StoreRefused
from taskq_server.store.sqlite import start as sqlite_start
from taskq_server.store.sqlite.box import Box
from taskq_server.store.sqlite.shared_connection import SharedConnection
from taskq_server.store.sqlite.sql import SQLiteSql
from taskq_server.store.store import Store
from taskq_server.store.transaction import Transaction, Verb
from taskq_server.store.verbs import pausing, reading, tokens
from taskq_server.store.verbs.end_batch import Rules

Item = TypeVar("Item")
Answer = TypeVar("Answer")

log = structlog.get_logger("taskq.store")

EVERY_CONNECTION = (
    "PRAGMA busy_timeout = 5000",  # first: the next ones may have to wait
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA mmap_size = 0",
    "PRAGMA temp_store = MEMORY",
)
WRITER = ("PRAGMA wal_autocheckpoint = 1000", "PRAGMA journal_size_limit = 67108864", "PRAGMA cache_size = -32768")
READER = ("PRAGMA query_only = 1", "PRAGMA wal_autocheckpoint = 0")
BELIEVED_AHEAD_US = 60 * SECOND_US

_DEVICE_FAILS = ("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_READONLY")


class SQLite(Store):
    """A store in one file. `open` makes it."""

    def __init__(self, path: Path, clock: OwnClock, rules: Rules, on_fatal: Callable[[BaseException], None]) -> None:
        super().__init__(rules, clock)
        self._own_clock = clock
        path = path.resolve()  # another name of the file must not get another lock
        self._path = path
        self._box = Box(path)
        self._sql = SQLiteSql()
        self._on_fatal = on_fatal
        self._high_water_us = 0
        self._lock: sqlite_start.Lock | None = None
        self._writer: SharedConnection | None = None
        self._reader: SharedConnection | None = None
        self._write_engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
        self._read_engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
        _prepare(self._write_engine, EVERY_CONNECTION + WRITER, "BEGIN IMMEDIATE")
        _prepare(self._read_engine, EVERY_CONNECTION + READER, "BEGIN")

    @classmethod
    async def open(
        cls,
        path: Path,
        clock: OwnClock,
        rules: Rules,
        on_fatal: Callable[[BaseException], None],
        *,
        allow_network: bool = False,
    ) -> SQLite:
        """Opens the file, or makes it, upgrades its schema and checks it; StoreRefused says why it must not be used.

        `on_fatal` is told, on the event loop, of a fault after which nothing may be written any more: a failed fsync is
        not retried, since the pages it lost would be taken for safe (PostgreSQL's "fsyncgate", 2018).
        """
        store = cls(path, clock, rules, on_fatal)
        try:
            store._lock = sqlite_start.take(store._path, allow_network=allow_network)
            store._writer = SharedConnection(
                "taskq-writer", store._connect, store._begin, store._translate, store._on_fatal, store._after_commit
            )
            await store._writer.started()
            store._reader = SharedConnection(
                "taskq-reader", store._connect_reader, store._look, store._translate, store._on_fatal
            )
            await store._reader.started()
            store._box.open()
        except BaseException:
            await store.close()
            raise
        return store

    def _connect(self) -> Connection:
        """Opens the one connection that writes; runs in the writing thread."""
        assert self._lock is not None
        connection = None
        try:
            connection = self._write_engine.connect()
            connection.connection.driver_connection.text_factory = _text  # type: ignore[union-attr]
            sqlite_start.check(connection, self._lock)
            with connection.begin():
                self._sql.begin(connection)
                self.memory.learn_routes(connection)
                self.memory.pauses.change(paused=pausing.paused_names(connection))
                self._look_at_all(connection)
                self._resume_time(sqlite_start.high_water_us(connection))
        except BaseException as error:
            if connection is not None:
                connection.close()
            if self._translate(error)[0] is not error:
                detail = getattr(error, "orig", error)
                if getattr(detail, "sqlite_errorname", "").startswith(("SQLITE_FULL", "SQLITE_IOERR")):
                    why = f"the disk under {self._path} fails: {detail}"
                    raise StoreRefused(why, "make room on it or mend it, then start again", exit_code=74) from error
            if isinstance(error, exc.DatabaseError | ValueError):  # ValueError: what is there is not what was written
                why = f"{self._path} cannot be used: {getattr(error, 'orig', error)}"
                raise StoreRefused(why, "restore it from a backup, or name another file") from error
            raise
        return connection

    def _connect_reader(self) -> Connection:
        """Opens the connection that only reads; runs in the reading thread."""
        connection = self._read_engine.connect()
        connection.connection.driver_connection.text_factory = _text  # type: ignore[union-attr]
        return connection

    def _look(self, connection: Connection) -> Transaction:
        return Transaction(connection, self._clock.now_us(), self._sql)

    def _look_at_all(self, connection: Connection) -> None:
        for place in self._sql.first_due(connection):
            self.memory.waiting.note(*place)
        if (expires_us := connection.execute(reading.FIRST_EXPIRY).scalar()) is not None:
            self.memory.note_expiry(expires_us)

    def _resume_time(self, high_water_us: int) -> None:
        """Time does not go back over a restart, unless the clock was far ahead and somebody has put it right."""
        ahead_us = high_water_us - self._clock.now_us()
        if ahead_us <= BELIEVED_AHEAD_US:
            self._own_clock.not_before(high_water_us)
            self._high_water_us = high_water_us
        else:
            log.warning("the clock was ahead when this database was last used", seconds=ahead_us / SECOND_US)

    def _begin(self, connection: Connection) -> Transaction:
        transaction = Transaction(connection, self._clock.now_us(), self._sql)
        if transaction.now_us > self._high_water_us + SECOND_US:
            sqlite_start.save_high_water(connection, transaction.now_us)
            transaction.after_commit.append(partial(setattr, self, "_high_water_us", transaction.now_us))
        return transaction

    def _translate(self, error: BaseException) -> tuple[BaseException, bool]:
        if not isinstance(error, exc.DBAPIError) or not isinstance(error.orig, sqlite3.Error):
            return error, False
        name = getattr(error.orig, "sqlite_errorname", "")
        if name.startswith("SQLITE_FULL"):
            return StorageFull(), False
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StorageUnavailable(str(error.orig)), False
        if name.startswith(_DEVICE_FAILS):
            return StorageUnavailable(f"{name}: {error.orig}"), True
        return error, False

    async def write(self, verb: Verb[Item, Answer], items: list[Item], size_bytes: int = 0) -> list[Answer]:
        assert self._writer is not None
        return await self._timed(verb, self._writer.run(verb, items, size_bytes))

    async def read(self, verb: Verb[Item, Answer], items: list[Item]) -> list[Answer]:
        assert self._reader is not None
        return await self._timed(verb, self._reader.run(verb, items))

    async def take_requests(self) -> Callable[[], None]:
        """Operators cannot write while this server does, and leave what they want in a box beside the file."""
        requests = self._box.requests()
        for request in requests:
            try:
                await self.write(tokens.apply, [request.change])
            except StoreRefused as refused:  # whoever asked finds that it was not done
                log.warning("a request is refused", why=str(refused))

        def tell() -> None:
            for request in requests:
                request.done()

        return tell

    async def close(self) -> None:
        try:
            for shared in (self._reader, self._writer):  # the last to close the file is the one that may checkpoint
                if shared is not None:
                    await shared.close()
        finally:
            if self._lock is not None:
                self._lock.release()


def _text(raw: bytes) -> str | bytes:
    """What is not UTF-8 fails where its row is read, so that it does not fail the rows that are fetched with it."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _prepare(engine: Any, pragmas: tuple[str, ...], begin: str) -> None:
    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
