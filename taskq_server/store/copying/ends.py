"""The two kinds of database at either end of a copy: how each reads and writes many rows fast.

Rows are read in chunks in the order of their key, each from where the last one ended. So nothing is held for longer
than a chunk, neither in memory nor by a cursor, and a copy can go on where another broke off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import Connection

from taskq_server.core.errors import StoreRefused
from taskq_server.store.copying.rows import ROWS, Row, Rows

UNFIT = 65
CHUNK_ROWS = 1_000
CHUNK_BYTES = 8 << 20


class End(Protocol):
    """A database that nobody else uses for as long as it is copied from or to. `connection` is in no transaction."""

    connection: Connection
    no_server: int
    """What stands in a session that no server looks after."""

    def generation(self) -> int:
        """A number that grows whenever a server starts on it."""
        ...

    def chunk(self, rows: Rows, after: Sequence[Any]) -> list[Row]:
        """The next rows after that key, or the first ones; at most CHUNK_ROWS, and few when they are large."""
        ...

    def insert(self, rows: Rows, chunk: list[Row]) -> None:
        """Within the transaction that is open, in which something has been executed before."""
        ...

    def last_numbers(self) -> dict[str, int]:
        """The last number that was given to a row of each table, though the row may be gone."""
        ...

    def number_after(self, last: dict[str, int]) -> None:
        """Numbers that are given from now on come after those, and after those of the rows that are there."""
        ...


class SQLiteEnd:
    no_server = 1

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        driver: Any = connection.connection.driver_connection
        driver.text_factory = _text
        self._driver = driver

    def generation(self) -> int:
        found = self._driver.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
        return int(found[0]) if found else 0

    def chunk(self, rows: Rows, after: Sequence[Any]) -> list[Row]:
        found: list[Row] = []
        size = 0
        for row in self._driver.execute(_select(rows, "?" * len(after), rows.names), after):
            found.append(row)
            if (size := size + rows.size_bytes(row)) >= CHUNK_BYTES:
                break
        return found

    def insert(self, rows: Rows, chunk: list[Row]) -> None:
        _refuse_unfit(rows.misfit(chunk) or rows.unkept_by_sqlite(chunk))
        holes = ", ".join("?" * len(rows.columns))
        self._driver.executemany(f"INSERT INTO {rows.name} ({rows.names}) VALUES ({holes})", chunk)  # noqa: S608

    def last_numbers(self) -> dict[str, int]:
        return dict(self._driver.execute("SELECT name, seq FROM sqlite_sequence"))

    def number_after(self, last: dict[str, int]) -> None:
        """Of tables that never give a number twice; of the others the rows say it."""
        for rows in ROWS:
            if rows.numbers_once and (number := last.get(rows.name, 0)) > self.last_numbers().get(rows.name, 0):
                self._driver.execute("DELETE FROM sqlite_sequence WHERE name = ?", (rows.name,))
                self._driver.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (rows.name, number))


def _text(raw: bytes) -> str | bytes:
    """What is not UTF-8 is told of with its row."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


class PostgresEnd:
    no_server = 0

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def generation(self) -> int:
        with self.connection.begin():
            return self._last("server", "server_seq")

    def chunk(self, rows: Rows, after: Sequence[Any]) -> list[Row]:
        """The database adds up how large the rows are, which it knows without reading what is large."""
        sizes = " + ".join(f'coalesce(octet_length("{rows.columns[i]}"), 0)' for i in rows.sized)
        before = f"sum({sizes}) OVER (ORDER BY {rows.order} ROWS UNBOUNDED PRECEDING) - ({sizes})"
        chunk = _select(rows, [f"${i + 1}" for i in range(len(after))], f"*, {before} AS bytes_before")
        few = f"FROM ({chunk}) AS chunk WHERE bytes_before < {CHUNK_BYTES} ORDER BY {rows.order}"
        with self.connection.begin():
            found = self.connection.exec_driver_sql(f"SELECT {rows.names} {few}", tuple(after))
            return [tuple(row) for row in found]

    def insert(self, rows: Rows, chunk: list[Row]) -> None:
        """By COPY, three times as fast as INSERT. It does not say which row it chokes on."""
        _refuse_unfit(rows.misfit(chunk))
        driver: Any = self.connection.connection.dbapi_connection
        try:
            driver.run_async(
                lambda asyncpg: asyncpg.copy_records_to_table(rows.name, records=chunk, columns=rows.columns)
            )
        except Exception:
            _refuse_unfit(rows.unkept_by_postgresql(chunk))
            raise

    def last_numbers(self) -> dict[str, int]:
        with self.connection.begin():
            return {rows.name: self._last(rows.name, rows.key[0]) for rows in ROWS if rows.is_numbered}

    def number_after(self, last: dict[str, int]) -> None:
        for rows in ROWS:
            if rows.is_numbered:
                highest = self._one(f"SELECT max({rows.key[0]}) FROM {rows.name}") or 0  # noqa: S608
                number = max(highest, last.get(rows.name, 0))
                if number > self._last(rows.name, rows.key[0]):
                    sequence = self._sequence(rows.name, rows.key[0])
                    self.connection.exec_driver_sql("SELECT setval($1::text::regclass, $2)", (sequence, number))

    def _last(self, table: str, column: str) -> int:
        """The last number that a sequence gave."""
        return int(self._one(f"SELECT last_value - (NOT is_called)::int FROM {self._sequence(table, column)}"))  # noqa: S608

    def _sequence(self, table: str, column: str) -> str:
        return str(self._one(f"SELECT pg_get_serial_sequence('{table}', '{column}')"))

    def _one(self, query: str) -> Any:
        return self.connection.exec_driver_sql(query).scalar()


def _refuse_unfit(why: str | None) -> None:
    if why is not None:
        raise StoreRefused(why, "mend that row in the source, then copy again: it goes on", UNFIT)


def _select(rows: Rows, holes: Sequence[str], what: str) -> str:
    """A chunk of the rows whose key is larger than what comes into the holes, in its order."""
    where = f"WHERE ({rows.order}) > ({', '.join(holes)}) " if holes else ""
    return f"SELECT {what} FROM {rows.name} {where}ORDER BY {rows.order} LIMIT {CHUNK_ROWS}"  # noqa: S608
