"""What is copied from one database to another, and when two rows are the same whatever the database."""

from __future__ import annotations

import hashlib
import marshal
import math
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Boolean, Column, Float, Integer, LargeBinary, SmallInteger, Table, Text
from sqlalchemy.types import BigInteger

from taskq_server.store import schema

Row = tuple[Any, ...]

OF_A_DATABASE = {"server", "signal", "meta"}
"""What is said in them of a database and of the servers on it is not true of another."""
OF_A_SERVER = "server_seq"

_TYPES: dict[type[Any], type[Any]] = {Text: str, LargeBinary: bytes, Float: float, Boolean: bool}
_BITS: dict[type[Any], int] = {SmallInteger: 15, BigInteger: 63, Integer: 31}
_MODULUS = 1 << 128


class Rows:
    """The rows of one table, as tuples of all its columns."""

    def __init__(self, table: Table) -> None:
        columns = list(table.columns)
        self.name = table.name
        self.columns = [column.name for column in columns]
        self.key = [column.name for column in table.primary_key]
        self.names = ", ".join(map(_quoted, self.columns))
        self.order = ", ".join(map(_quoted, self.key))
        self.sized = [i for i, column in enumerate(columns) if isinstance(column.type, Text | LargeBinary)]
        """The columns that may be large."""
        self.is_numbered = len(self.key) == 1
        """Whether the database itself numbers its rows."""
        self.numbers_once = bool(table.dialect_kwargs.get("sqlite_autoincrement"))
        """Whether a number is never given again, even when its row is gone."""
        self._key_of = [self.columns.index(name) for name in self.key]
        self._states = self.columns.index("state") if table is schema.task else None
        self._server = self.columns.index(OF_A_SERVER) if OF_A_SERVER in self.columns else None
        self._table = table
        self._floats = [i for i, column in enumerate(columns) if isinstance(column.type, Float)]
        self._booleans = [i for i, column in enumerate(columns) if isinstance(column.type, Boolean)]
        self._large = itemgetter(*self.sized, 0, 0)
        self._fit: set[tuple[type, ...]] = set()

    def key_in(self, row: Row) -> list[Any]:
        return [row[i] for i in self._key_of]

    def group(self, row: Row) -> int | None:
        """What it is counted with: its state, in tables where that is what counts."""
        return None if self._states is None else row[self._states]

    def size_bytes(self, row: Row) -> int:
        """About how large a row is."""
        *large, _, _ = self._large(row)
        return sum(map(len, filter(None, large)))

    def without_server(self, rows: list[Row], server_seq: int) -> list[Row]:
        """The rows, as those of a database on which no server has been yet."""
        at = self._server
        return rows if at is None else [(*row[:at], server_seq, *row[at + 1 :]) for row in rows]

    def digest(self, row: Row) -> int:
        """A number that two rows share only when they say the same: in order of the columns, each with its type and
        all its bits. What is not the row's but a server's is left out."""
        if self._server is not None or self._floats or self._booleans:
            row = self._canonical(row)
        return int.from_bytes(hashlib.blake2b(marshal.dumps(row, 2), digest_size=16).digest())

    def _canonical(self, row: Row) -> Row:
        values = list(row)
        if self._server is not None:
            values[self._server] = 0
        for i in self._floats:
            if isinstance(values[i], float):
                values[i] += 0.0  # SQLite keeps no negative zero
        for i in self._booleans:
            if values[i] is not None:
                values[i] = bool(values[i])  # SQLite has numbers only
        return tuple(values)

    def misfit(self, rows: Iterable[Row]) -> str | None:
        """The first row of which a database with types can say that it was never written by us, and why; quick, since
        rows of the same types are looked at once."""
        for row in rows:
            types = tuple(map(type, row))
            if types not in self._fit:
                if (why := self.fault(row)) is not None:
                    return why
                self._fit.add(types)
            for i in self._floats:
                if row[i] is not None and math.isnan(row[i]):
                    return self._says(row, i, "is not a number, which SQLite does not keep")
        return None

    def fault(self, row: Row) -> str | None:
        """Why PostgreSQL cannot hold the row: its table, its key, the column and the reason."""
        for i, column in enumerate(self._table.columns):
            if row[i] is not None and (why := _fault(column, row[i])) is not None:
                return self._says(row, i, why)
        return None

    def _says(self, row: Row, i: int, why: str) -> str:
        key = ", ".join(f"{name} = {value!r}" for name, value in zip(self.key, self.key_in(row), strict=True))
        return f"{self.columns[i]} of the row of {self.name} with {key} {why}"


def _quoted(name: str) -> str:
    return f'"{name}"'


def _fault(column: Column[Any], value: object) -> str | None:
    kind = next((known for known in (*_TYPES, *_BITS) if isinstance(column.type, known)), None)
    assert kind is not None, f"{column} has a type that has not been thought of here"
    if kind in _BITS:
        if type(value) is not int:
            return f"is {type(value).__name__}, not a whole number"
        return None if -(1 << _BITS[kind]) <= value < 1 << _BITS[kind] else "is too large a number"
    if type(value) is not _TYPES[kind] and not (kind is Boolean and value in (0, 1)):
        return "is not UTF-8" if kind is Text and type(value) is bytes else f"is {type(value).__name__}"
    return "holds U+0000, which PostgreSQL does not keep in text" if type(value) is str and "\0" in value else None


ROWS = [Rows(table) for table in schema.metadata.tables.values() if table.name not in OF_A_DATABASE]
"""Every table that is copied, in the order in which it is."""


class Sums:
    """Counts and checksums, which do not depend on the order of the rows: databases sort text in different ways."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, int | None], tuple[int, int]] = {}

    def add(self, rows: Rows, chunk: Sequence[Row]) -> None:
        for row in chunk:
            group = rows.name, rows.group(row)
            count, total = self.found.get(group, (0, 0))
            self.found[group] = count + 1, (total + rows.digest(row)) % _MODULUS
