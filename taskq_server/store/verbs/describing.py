"""What the database is, and which servers live on it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select, text

from taskq_server.store import migrate, schema
from taskq_server.store.transaction import Transaction

_VERSIONS = {"sqlite": text("SELECT sqlite_version()"), "postgresql": text("SELECT current_setting('server_version')")}


@dataclass(frozen=True, slots=True)
class Description:
    """A database, and its servers by name with the time at which each has come; on SQLite none is written down."""

    kind: str
    version: str
    schema_version: str
    servers: list[tuple[str, int]]


def describe(tx: Transaction, nothing: list[None]) -> list[Description]:
    """The database as it is now."""
    connection, server = tx.connection, schema.server
    kind = connection.dialect.name
    version = str(connection.execute(_VERSIONS[kind]).scalar_one())
    living = select(server.c.name, server.c.start_time_us).where(server.c.alive_until_us > tx.now_us)
    servers = [(row.name, row.start_time_us) for row in connection.execute(living.order_by(server.c.server_seq))]
    return [Description(kind, version, migrate.current(connection) or "", servers)] * len(nothing)
