"""What an operator does to a SQLite file while no server, or a server, has it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, exc
from sqlalchemy.pool import NullPool

from taskq_server.clock import SystemClock
from taskq_server.core.errors import StoreRefused
from taskq_server.store import migrate
from taskq_server.store.copying import mark as copy_mark
from taskq_server.store.copying.ends import SQLiteEnd
from taskq_server.store.sqlite import backup
from taskq_server.store.sqlite import start as sqlite_start
from taskq_server.store.sqlite.box import Box
from taskq_server.store.sqlite.store import EVERY_CONNECTION, WRITER
from taskq_server.store.verbs import tokens

_ERRORS = (exc.DBAPIError, sqlite3.Error)
_IN_USE = 75
_UNSOUND = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


class SQLiteFile:
    def __init__(self, path: Path, *, allow_network: bool = False) -> None:
        self.path = path.resolve()  # another name of the file must not get another lock
        self._allow_network = allow_network

    @contextmanager
    def looking(self) -> Iterator[Connection]:
        """A connection that cannot write, and so may stand beside a server's; a file that is not there is empty."""
        where = f"file:{quote(str(self.path))}?mode=ro" if self.path.exists() else "file::memory:"
        engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(where, uri=True), poolclass=NullPool)
        with self._connected(engine) as connection:
            yield connection

    def examined(self, connection: Connection, say: Callable[[str], None]) -> Iterator[tuple[str, str]]:
        """What an operator might want to know of it; a server looks at more when it starts."""
        yield "file", str(self.path)
        yield "SQLite", str(connection.exec_driver_sql("SELECT sqlite_version()").scalar())

    def upgrade(self, say: Callable[[str], None]) -> tuple[str | None, str | None]:
        """Upgrades in one transaction; answers the versions before and after."""
        with self._alone() as connection, connection.begin():
            before = migrate.current(connection)
            migrate.to_head(connection)
            return before, migrate.current(connection)

    def change_tokens(self, change: tokens.Change) -> None:
        """Keeps or revokes API tokens, through the server that has the file if there is one; returns once it knows."""
        try:
            with self._alone() as connection, connection.begin():
                migrate.to_head(connection)
                migrate.must_be_head(connection)
                copy_mark.refuse_half_copied(connection)
                tokens.change(connection, [change], SystemClock().now_us())
        except StoreRefused as refused:
            if refused.exit_code != _IN_USE:
                raise
            Box(self.path).ask(change)

    def backup(self, target: Path) -> None:
        """Copies it as it is at one moment, also beside a server."""
        with self.looking() as connection:
            if migrate.current(connection) is None:
                raise StoreRefused(f"{self.path} has no tables", "name the file that a server has used")
        backup.backup(self.path, target)

    @contextmanager
    def source(self) -> Iterator[SQLiteEnd]:
        """To be copied from. StoreRefused when a server has it, or its schema is another."""
        if not self.path.exists():
            raise StoreRefused(f"{self.path} does not exist", "name the file that a server has used")
        with self._alone() as connection:
            with connection.begin():
                migrate.must_be_head(connection)
                copy_mark.refuse_half_copied(connection)
            yield SQLiteEnd(connection)

    @contextmanager
    def target(self, say: Callable[[str], None]) -> Iterator[SQLiteEnd]:
        """To be copied into; it is made or upgraded first."""
        with self._alone() as connection:
            with connection.begin():
                migrate.to_head(connection)
                migrate.must_be_head(connection)
            yield SQLiteEnd(connection)

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        """The connection that writes, with the lock that a server would have."""
        lock = sqlite_start.take(self.path, allow_network=self._allow_network)
        try:
            with self._connected(_writing(self.path)) as connection:
                yield connection
        finally:
            lock.release()

    @contextmanager
    def _connected(self, engine: Engine) -> Iterator[Connection]:
        try:
            connection = engine.connect()
        except _ERRORS as error:
            raise StoreRefused(f"{self.path} cannot be used: {_original(error)}", "name another file") from error
        try:
            with connection:
                yield connection
        except _ERRORS as error:
            if not isinstance(_original(error), sqlite3.Error):
                raise  # of the database at the other end of a copy
            name = getattr(_original(error), "sqlite_errorname", "")
            hint = "restore the file from a backup" if name in _UNSOUND else "look at the disk, then try again"
            raise StoreRefused(f"SQLite says: {_original(error)}", hint, 78 if name in _UNSOUND else 74) from error


def _original(error: Exception) -> BaseException:
    return (error.orig if isinstance(error, exc.DBAPIError) else None) or error


def _writing(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        with closing(connection.cursor()) as cursor:
            for pragma in EVERY_CONNECTION + WRITER:
                cursor.execute(pragma)

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
