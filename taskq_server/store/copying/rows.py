"""What is copied from one database to another, and when two rows are the same whatever the database."""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Boolean, Column, Float, Integer, LargeBinary, SmallInteger, Table, Text
from sqlalchemy.types import BigInteger

from taskq_server.store import schema

Row = tuple[Any, ...]

OF_A_DATABASE = {"server", "signal", "event", "meta"}
"""What is said in them of a database, of the servers on it, and to those who watch it, is not true of another."""
OF_A_SERVER = "server_seq"

_TYPES: dict[type[Any], tuple[type[Any], ...]] = {
    Text: (str,),
    LargeBinary: (bytes,),
    Float: (float,),
    Boolean: (bool, int),
    Integer: (int,),
}
_BITS: dict[type[Any], int] = {SmallInteger: 15, BigInteger: 63, Integer: 31}  # both others are Integer, too
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
        """The columns that may be large; every table has one of them or more."""
        self.is_numbered = len(self.key) == 1 and isinstance(table.c[self.key[0]].type, Integer)
        """Whether the database itself numbers its rows."""
        self.numbers_once = bool(table.dialect_kwargs.get("sqlite_autoincrement"))
        """Whether a number is never given again, even when its row is gone."""
        self._key_of = [self.columns.index(name) for name in self.key]
        self._states = self.columns.index("state") if table is schema.task else None
        self._server = self.columns.index(OF_A_SERVER) if OF_A_SERVER in self.columns else None
        self._table = table
        self._floats = [i for i, column in enumerate(columns) if isinstance(column.type, Float)]
        self._booleans = [i for i, column in enumerate(columns) if isinstance(column.type, Boolean)]
        self._large = itemgetter(*self.sized, self.sized[0])  # twice: of a single one it would give no tuple
        self._fit: set[tuple[type, ...]] = set()

    def key_in(self, row: Row) -> list[Any]:
        return [row[i] for i in self._key_of]

    def group(self, row: Row) -> int | None:
        """What it is counted with: its state, in tables where that is what counts."""
        return None if self._states is None else row[self._states]

    def size_bytes(self, row: Row) -> int:
        """About how large a row is."""
        return sum(map(len, filter(None, self._large(row))))

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
        """The first row in which a column has a value that is not of its type, as SQLite allows. Quick: of rows that
        have the same types one is looked at."""
        for row in rows:
            types = tuple(map(type, row))
            if types not in self._fit:
                if (why := self._fault(row, _of_another_type)) is not None:
                    return why
                self._fit.add(types)
        return None

    def unkept_by_sqlite(self, rows: Iterable[Row]) -> str | None:
        return next(filter(None, (self._fault(row, _not_a_number) for row in rows)), None) if self._floats else None

    def unkept_by_postgresql(self, rows: Iterable[Row]) -> str | None:
        return next(filter(None, (self._fault(row, _too_much) for row in rows)), None)

    def _fault(self, row: Row, look: Callable[[Column[Any], Any], str | None]) -> str | None:
        """A fault of a row: where it stands, and why it is one."""
        for value, column in zip(row, self._table.columns, strict=True):
            if value is not None and (why := look(column, value)) is not None:
                key = ", ".join(f"{name} = {part!r}" for name, part in zip(self.key, self.key_in(row), strict=True))
                return f"{column.name} of the row of {self.name} with {key} {why}"
        return None


def _quoted(name: str) -> str:
    return f'"{name}"'


def _of_another_type(column: Column[Any], value: object) -> str | None:
    wanted = next(wanted for kind, wanted in _TYPES.items() if isinstance(column.type, kind))
    if type(value) in wanted:
        return None
    if wanted == (str,) and type(value) is bytes:
        return "is not UTF-8"
    return f"is {type(value).__name__}, not {wanted[0].__name__}"


def _not_a_number(column: Column[Any], value: object) -> str | None:
    return "is not a number, which SQLite does not keep" if value != value else None


def _too_much(column: Column[Any], value: object) -> str | None:
    if type(value) is str and "\0" in value:
        return "holds U+0000, which PostgreSQL does not keep in text"
    bits = next((bits for kind, bits in _BITS.items() if isinstance(column.type, kind)), 0)
    return "is too large a number" if bits and type(value) is int and not -(1 << bits) <= value < 1 << bits else None


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
