"""What must hold before a server may use a PostgreSQL database: it can be written, keeps UTF-8, its schema is known.

Settings by which an operator has chosen speed over safety are warned about, not refused: a database for tests may well
have fsync off.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from sqlalchemy import Connection

from taskq_server.clock import SECOND_US, SystemClock
from taskq_server.core.errors import StoreRefused
from taskq_server.store import migrate
from taskq_server.store.copying import mark as copy_mark

log = structlog.get_logger("taskq.store")

OLDEST_VERSION = 13
CLOCK_DIFFERENCE_US = SECOND_US
"""More is warned about: leases and due times go by the database's clock, logs and metrics by the server's."""

_FACTS = """
SELECT current_setting('server_version_num')::int,
       current_setting('server_version'),
       pg_encoding_to_char(encoding)::text,
       pg_is_in_recovery(),
       current_setting('fsync'),
       current_setting('full_page_writes'),
       current_setting('synchronous_commit'),
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
  FROM pg_database
 WHERE datname = current_database()
"""

KEEP_SERVERS_OFF = "LOCK TABLE server IN SHARE ROW EXCLUSIVE MODE"
_KEPT_OFF = """
SELECT 1
  FROM pg_locks JOIN pg_database ON pg_locks.database = pg_database.oid
 WHERE datname = current_database() AND relation = 'server'::regclass AND mode = 'ShareRowExclusiveLock' AND granted
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a database says of itself."""

    version_number: int
    """130004 is 13.4."""
    version: str
    encoding: str
    in_recovery: bool
    """A standby, which only reads."""
    fsync: str
    full_page_writes: str
    synchronous_commit: str
    clock_ahead_us: int
    """How far its clock is ahead of this machine's, give or take the way there and back."""


def facts(connection: Connection) -> Facts:
    clock = SystemClock()
    asked_us = clock.now_us()
    *settings, their_us = connection.exec_driver_sql(_FACTS).one()
    settings.append(their_us - (asked_us + clock.now_us()) // 2)
    return Facts(*settings)


def check(connection: Connection) -> None:
    """Raises StoreRefused for what an operator must change. Only reads, in whatever transaction is open."""
    found = facts(connection)
    refuse(found)
    check_schema(connection)
    refuse_being_copied(connection)
    copy_mark.refuse_half_copied(connection)
    for warning, details in warnings(found):
        log.warning(warning, **details)


def refuse(found: Facts) -> None:
    """Raises StoreRefused for a database on which nothing of ours may be made."""
    if found.version_number < OLDEST_VERSION * 10_000:
        raise StoreRefused(f"the database is PostgreSQL {found.version}", f"must be {OLDEST_VERSION} or newer")
    if found.encoding != "UTF8":
        raise StoreRefused(
            f"the database has the encoding {found.encoding}",
            "must be UTF8: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
        )
    if found.in_recovery:
        raise StoreRefused("the database is a standby and can only be read", "name the primary in the URL")


def check_schema(connection: Connection) -> None:
    """Raises StoreRefused unless a server of this version can work on the schema; it does not upgrade by itself, since
    other servers may be at work on the database."""
    found = migrate.current(connection)
    if not migrate.serves(connection, found):
        had = "has no tables yet" if found is None else f"has schema {found}, older than {migrate.HEAD}"
        raise StoreRefused(f"the database {had}", "run `taskq db upgrade`")


def refuse_being_copied(connection: Connection) -> None:
    """Raises StoreRefused while `taskq db copy` keeps servers off the database: none could write down that it is here,
    and would only time out."""
    if connection.exec_driver_sql(_KEPT_OFF).first() is not None:
        raise StoreRefused("a copy is being made from or to the database", "wait for its end", exit_code=75)


def warnings(found: Facts) -> list[tuple[str, dict[str, object]]]:
    """What an operator should know, though it is no reason to refuse."""
    told: list[tuple[str, dict[str, object]]] = []
    for setting, value in (("fsync", found.fsync), ("full_page_writes", found.full_page_writes)):
        if value != "on":
            told.append((f"{setting} is {value}: a power failure can corrupt the database", {"setting": setting}))
    if abs(found.clock_ahead_us) > CLOCK_DIFFERENCE_US:
        ahead = round(found.clock_ahead_us / SECOND_US, 1)
        told.append(("the database's clock and this machine's differ", {"database_ahead_seconds": ahead}))
    return told
