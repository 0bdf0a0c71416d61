"""One statement for many rows: the batch is the unit, whatever the database.

SQLite runs the statement once a row, inside its own library, where a row costs microseconds. PostgreSQL runs it once
for all of them, over one array a column, which `unnest` turns into the rows of a table named `new`: a statement a row
would be planned and answered a row at a time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, Float, Integer, LargeBinary, SmallInteger, Table, Text

_COLUMN = re.compile(r"\{(\w+)\}")
_SOURCE = re.compile(r" ?\{(from|using) rows\}")
_ARRAYS = {
    BigInteger: "bigint[]",
    SmallInteger: "smallint[]",
    Integer: "integer[]",
    Float: "double precision[]",
    Text: "text[]",
    LargeBinary: "bytea[]",
}


class Many:
    """`UPDATE task SET result = {result} {from rows} WHERE task.seq = {seq}`: each `{column}` is one value of a row, in
    the order in which they stand.

    A guard of the state is written `task.state + 0 = 1`, which does not offer the index of all tasks in that state:
    PostgreSQL takes them for few until it has counted them.
    """

    def __init__(self, table: Table, template: str) -> None:
        columns = _COLUMN.findall(_SOURCE.sub("", template))
        self._sqlite = _COLUMN.sub("?", _SOURCE.sub("", template))
        source = _rows(table, columns)
        self._postgres = _COLUMN.sub(r"new.\1", _SOURCE.sub(lambda match: f" {match[1].upper()} {source}", template))

    @classmethod
    def insert(cls, table: Table, columns: Sequence[str], *, order_by: Sequence[str], end: str = "") -> Many:
        """New rows, in PostgreSQL in the order of some columns, so that two that insert the same do not wait for each
        other in a circle."""
        many = cls.__new__(cls)
        order = ", ".join(f"new.{name}" for name in order_by)
        into = f"INSERT INTO {table.name} ({', '.join(columns)})"
        many._sqlite = f"{into} VALUES ({', '.join('?' * len(columns))}) {end}"
        many._postgres = f"{into} SELECT * FROM {_rows(table, columns)} ORDER BY {order} {end}"  # noqa: S608
        return many

    def run(self, connection: Connection, rows: list[tuple[Any, ...]]) -> int:
        """Runs it over `rows`, if there are any; answers how many rows of the table it has touched."""
        if not rows:
            return 0
        if connection.dialect.name == "sqlite":
            return connection.exec_driver_sql(self._sqlite, rows).rowcount
        return connection.exec_driver_sql(self._postgres, tuple(map(_array_of, zip(*rows, strict=True)))).rowcount


def _array_of(column: tuple[Any, ...]) -> list[Any] | None:
    """`unnest` pads what is shorter with NULLs, so of a column that has nothing else nothing needs to be sent."""
    return None if column.count(None) == len(column) else list(column)


def _rows(table: Table, columns: Sequence[str]) -> str:
    arrays = ", ".join(f"${i}::{_array(table, name)}" for i, name in enumerate(columns, 1))
    return f"unnest({arrays}) AS new ({', '.join(columns)})"


def _array(table: Table, name: str) -> str:
    return next(array for kind, array in _ARRAYS.items() if isinstance(table.c[name].type, kind))
