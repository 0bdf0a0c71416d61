"""What a database is while nobody has used it, and how a used one becomes that again.

Tables are emptied, which takes 3 ms; all else that a test may have changed is looked at, and then the database is of
no more use.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Self

import asyncpg

Rows = list[tuple[Any, ...]]

_TERMINATE = """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"""
# The form of the tables, what hangs on them, what the planner and new connections were told. ANALYZE and VACUUM set
# reltuples, which nothing else does. All of this is open to a role that is no superuser.
_SHAPE = """SELECT md5(concat_ws(';',
(SELECT string_agg(concat_ws(' ', relname, relkind, relpersistence, relhastriggers, reloptions,
    CASE relkind WHEN 'r' THEN reltuples END), ',' ORDER BY relname)
    FROM pg_class WHERE relnamespace = 'public'::regnamespace),
(SELECT string_agg(concat_ws(' ', relname, attname, atttypid, attnotnull, atthasdef, attisdropped, attoptions), ','
    ORDER BY relname, attnum) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace = 'public'::regnamespace AND attnum > 0),
(SELECT string_agg(concat_ws(' ', conname, contype, convalidated), ',' ORDER BY conname)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace),
(SELECT string_agg(proname, ',' ORDER BY proname) FROM pg_proc WHERE pronamespace = 'public'::regnamespace),
(SELECT string_agg(nspname, ',' ORDER BY nspname) FROM pg_namespace WHERE nspname !~ '^pg_'),
(SELECT string_agg(tgname, ',' ORDER BY tgname) FROM pg_trigger),
(SELECT count(*) FROM pg_db_role_setting JOIN pg_database ON pg_database.oid = setdatabase
    WHERE datname = current_database())))"""
_TOUCHED = """SELECT quote_ident(relname), pg_table_size(oid) > $1 FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND pg_relation_size(oid) > 0 ORDER BY relname"""
_SEQUENCES = """SELECT format('setval(%L, %s, %L)', format('%I.%I', schemaname, sequencename),
    coalesce(last_value, start_value), last_value IS NOT NULL)
FROM pg_sequences WHERE schemaname = 'public'"""
END_SECONDS = 20
SMALL_BYTES = 96 << 10
"""Up to here, DELETE, which makes no files, is ten times as fast as TRUNCATE; and for the planner a table of less than
ten pages, as that of a new one, is one of ten."""


@dataclass(frozen=True)
class Pristine:
    """`rows` are those that its tables are made with; `rewind` sets its sequences back."""

    shape: str
    rows: dict[str, Rows]
    rewind: str

    @classmethod
    async def look(cls, connection: asyncpg.Connection) -> Self:
        shape = await connection.fetchval(_SHAPE)
        rows = {table: await _rows(connection, table) for table, _ in await _touched(connection)}
        setvals = [setval for (setval,) in await connection.fetch(_SEQUENCES)]
        return cls(shape, rows, f"SELECT {', '.join(setvals) or 'NULL'}")

    async def restore(self, connection: asyncpg.Connection) -> bool:
        """Ends all other connections to that database and empties it; False when that does not make it pristine."""
        await _leave_alone(connection)
        if await connection.fetchval(_SHAPE) != self.shape:
            return False
        changed = {table: rows for table, rows in self.rows.items() if await _rows(connection, table) != rows}
        statements = [self.rewind]
        for table, large in await _touched(connection):
            if table in changed or table not in self.rows:
                statements.append(f"TRUNCATE {table}" if large else f"DELETE FROM {table}")  # noqa: S608 - ours
        await connection.execute("; ".join(statements))
        for table, rows in changed.items():
            marks = ", ".join(f"${number}" for number in range(1, len(rows[0]) + 1))
            await connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608 - ours
        return True


async def _leave_alone(connection: asyncpg.Connection) -> None:
    """Looks again by itself: PostgreSQL's own waiting for an end takes a tenth of a second."""
    async with asyncio.timeout(END_SECONDS):
        while await connection.fetchval(_TERMINATE):
            await asyncio.sleep(0.002)


async def _touched(connection: asyncpg.Connection) -> list[tuple[str, bool]]:
    """The tables that something was ever written to, and whether each is large."""
    return [(table, large) for table, large in await connection.fetch(_TOUCHED, SMALL_BYTES)]


async def _rows(connection: asyncpg.Connection, table: str) -> Rows:
    return sorted(tuple(row) for row in await connection.fetch(f"SELECT * FROM {table}"))  # noqa: S608 - ours
