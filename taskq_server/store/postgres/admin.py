"""What an operator does to a PostgreSQL database: upgrade it while servers are at work on it, or keep them off it.

All of it is called through `run`, in which plain functions may wait for the database: so one copy serves both kinds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, exc, text
from sqlalchemy.util import greenlet_spawn

from taskq_server.core.errors import StoreRefused
from taskq_server.store import migrate
from taskq_server.store.copying import mark as copy_mark
from taskq_server.store.copying.ends import PostgresEnd
from taskq_server.store.copying.rows import ROWS
from taskq_server.store.postgres import faults
from taskq_server.store.postgres import start as postgres_start
from taskq_server.store.postgres.engine import SETTINGS, engine_of
from taskq_server.store.postgres.faults import sqlstate
from taskq_server.store.verbs import tokens
from taskq_server.values import shown

Answer = TypeVar("Answer")

LOCK_SECONDS = 1
"""Who waits for a table's lock makes all others wait behind it: half as long as a server waits before it tells its
callers that the database is away."""
LOCK_SERVERS_SECONDS = 10
"""A copy that was killed may leave its connection behind for a moment."""
PAUSE_SECONDS = 2
TRIES = 20
HEARD_SECONDS = 2
"""By then every server has looked whether there are other tokens, which they do once a second."""
LOCKED_OUT = {"55P03", "40P01"}
"""A lock could not be had in time; a deadlock, of which we were the victim."""

_UNTIMED = {**SETTINGS, "statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}
_NOW_US = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_ALIVE = "SELECT name FROM server WHERE alive_until_us > extract(epoch FROM clock_timestamp()) * 1000000"


def run(work: Callable[[], Answer]) -> Answer:
    return asyncio.run(greenlet_spawn(work))


class PostgresDatabase:
    def __init__(self, url: str, *, pooler: bool = False) -> None:
        self.name = shown(url)
        engine = engine_of(url, pooler=pooler, settings=_UNTIMED, limited=False, hide_parameters=True)
        self._engine = engine.sync_engine

    @contextmanager
    def looking(self) -> Iterator[Connection]:
        with self._connected() as connection:
            yield connection

    def examined(self, connection: Connection, say: Callable[[str], None]) -> Iterator[tuple[str, str]]:
        """What a server would look at; says what it would warn of, and raises StoreRefused where it would refuse."""
        found = postgres_start.facts(connection)
        yield "database", self.name
        yield "PostgreSQL", found.version
        yield "encoding", found.encoding
        yield "standby", "yes" if found.in_recovery else "no"
        yield "fsync", found.fsync
        yield "full_page_writes", found.full_page_writes
        yield "synchronous_commit", found.synchronous_commit
        yield "clock", f"{found.clock_ahead_us / 1_000_000:+.3f} s"
        for warning, _ in postgres_start.warnings(found):
            say(warning)
        postgres_start.refuse(found)

    def upgrade(self, say: Callable[[str], None]) -> tuple[str | None, str | None]:
        """Upgrades in one transaction, which is tried again when others hold locks for long; answers the versions
        before and after."""
        with self._connected() as connection:
            for _ in range(TRIES):
                try:
                    with connection.begin():
                        return _upgrade(connection)
                except exc.DBAPIError as error:
                    if sqlstate(error) not in LOCKED_OUT:
                        raise
                say("others hold locks on the tables; this waits for them")
                with connection.begin():
                    connection.execute(text("SELECT pg_sleep(:pause)"), {"pause": PAUSE_SECONDS})
        raise StoreRefused(
            "the tables could not be locked within a minute", "end what is long in pg_stat_activity, then try again", 75
        )

    def change_tokens(self, change: tokens.Change) -> None:
        """Keeps or revokes API tokens; returns once the servers know."""
        with self._connected() as connection:
            with connection.begin():
                postgres_start.check_schema(connection)
                copy_mark.refuse_half_copied(connection)
                tokens.change(connection, [change], connection.exec_driver_sql(_NOW_US).scalar_one())
            with connection.begin():
                if connection.exec_driver_sql(_ALIVE).first() is not None:
                    connection.execute(text("SELECT pg_sleep(:pause)"), {"pause": HEARD_SECONDS})

    def backup(self, target: Path) -> None:
        """Refuses: PostgreSQL has better means of its own."""
        raise StoreRefused(
            f"{self.name} is backed up by PostgreSQL's own means", "use base backups with WAL, or `pg_dump`", 2
        )

    @contextmanager
    def source(self) -> Iterator[PostgresEnd]:
        """To be copied from. StoreRefused when a server has it, or its schema is another."""
        with self._without_servers() as end:
            with end.connection.begin():
                copy_mark.refuse_half_copied(end.connection)
            yield end

    @contextmanager
    def target(self, say: Callable[[str], None]) -> Iterator[PostgresEnd]:
        """To be copied into; it is upgraded first, and its planner told at the end what is there."""
        self.upgrade(say)
        with self._without_servers() as end:
            yield end
            _analyze(end.connection)

    @contextmanager
    def _without_servers(self) -> Iterator[PostgresEnd]:
        """No server is there, and none can say that it is, until this ends; nor can another copy be made."""
        with self._connected() as guard, guard.begin():
            migrate.must_be_head(guard)
            guard.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SERVERS_SECONDS}s'")
            try:
                guard.exec_driver_sql(postgres_start.KEEP_SERVERS_OFF)
            except exc.DBAPIError as error:
                if sqlstate(error) not in LOCKED_OUT:
                    raise
                raise StoreRefused(f"{self.name} is in use by another copy", "wait for its end", 75) from error
            if names := list(guard.exec_driver_sql(_ALIVE).scalars()):
                raise StoreRefused(
                    f"{self.name} is in use by the server {' and '.join(names)}",
                    "stop it first; one that was killed is forgotten after its lease",
                    75,
                )
            with self._connected() as connection:
                yield PostgresEnd(connection)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        try:
            connection = self._engine.connect()
        except Exception as error:
            if (refused := faults.cannot_connect(error, self.name)) is None:
                raise
            raise refused from error
        try:
            with connection:
                yield connection
        except faults.OF_POSTGRES as error:
            if isinstance(error, exc.DBAPIError) and not hasattr(error.orig, "sqlstate"):
                raise  # of the SQLite file at the other end of a copy
            raise faults.refusal(error) from error


def _analyze(connection: Connection) -> None:
    """Leaves to autovacuum what autovacuum is at."""
    with connection.begin():
        connection.exec_driver_sql(f"ANALYZE (SKIP_LOCKED) {', '.join(rows.name for rows in ROWS)}")


def _upgrade(connection: Connection) -> tuple[str | None, str | None]:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": migrate.UPGRADING})
    postgres_start.refuse(postgres_start.facts(connection))
    before = migrate.current(connection)
    migrate.to_head(connection)
    return before, migrate.current(connection)
