"""One statement for many rows: the batch is the unit, whatever the database.

SQLite is given the rows as VALUES, hundreds at a time. To run a statement a row is as cheap for it, but not for us:
each run gives Python's lock away, and beside a busy event loop a thousand rows took five seconds to get it back so
often, instead of 33 ms. PostgreSQL is given one array a column, which `unnest` turns into rows: a statement a row would
be planned and answered a row at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain, count
from typing import Any

from sqlalchemy import BigInteger, Connection, Float, Integer, LargeBinary, SmallInteger, Table, Text

_COLUMN = re.compile(r"\{(\w+)\}")
_SOURCE = re.compile(r" ?\{(from|using|into) rows\}")
_ARRAYS = {
    BigInteger: "bigint[]",
    SmallInteger: "smallint[]",
    Integer: "integer[]",
    Float: "double precision[]",
    Text: "text[]",
    LargeBinary: "bytea[]",
}
_SIZES = 512, 128, 32, 8, 1
"""How many rows a statement of SQLite's has: few different ones, so that each is parsed once, and kept."""


class Many:
    """`UPDATE task SET result = {result} {from rows} WHERE task.seq = {seq}`: each `{column}` is one value of a row, in
    the order in which they stand. The rows of the table that it changes are named once each. Whole numbers that all
    rows share are named in `shared`.

    A guard of the state is written `task.state + 0 = 1`, which does not offer the index of all tasks in that state:
    PostgreSQL takes them for few until it has counted them.
    """

    def __init__(self, table: Table, template: str, *, shared: Sequence[str] = ()) -> None:
        self._template = template
        self._shared = shared
        self._columns = [name for name in _COLUMN.findall(_SOURCE.sub("", template)) if name not in shared]
        source = _rows(table, self._columns)
        numbers = {name: f"${i}::bigint" for i, name in enumerate(shared, len(self._columns) + 1)}
        names = {name: f"new.{name}" for name in self._columns}
        self._postgres = _filled(_SOURCE.sub(lambda match: f" {match[1].upper()} {source}", template), names | numbers)

    @classmethod
    def insert(cls, table: Table, columns: Sequence[str], *, order_by: Sequence[str], end: str = "") -> Many:
        """New rows, in PostgreSQL in the order of some columns, so that two that insert the same do not wait for each
        other in a circle."""
        many = cls.__new__(cls)
        many._template = f"INSERT INTO {table.name} {{into rows}} {end}"
        many._shared = ()
        many._columns = list(columns)
        order = ", ".join(f"new.{name}" for name in order_by)
        into = f"INSERT INTO {table.name} ({', '.join(columns)})"
        many._postgres = f"{into} SELECT * FROM {_rows(table, columns)} ORDER BY {order} {end}"  # noqa: S608
        return many

    def run(self, connection: Connection, rows: Sequence[tuple[Any, ...]], *shared: int) -> int:
        """Runs it over `rows`, if there are any; answers how many rows of the table it has touched."""
        if not rows:
            return 0
        columns = list(zip(*rows, strict=True))
        if connection.dialect.name != "sqlite":
            return connection.exec_driver_sql(self._postgres, (*map(array_of, columns), *shared)).rowcount
        if "{using rows}" in self._template:  # SQLite has no DELETE ... USING
            return connection.exec_driver_sql(_COLUMN.sub("?", _SOURCE.sub("", self._template)), rows).rowcount
        used = tuple(i for i, column in enumerate(columns) if not _is_empty(column))
        if len(used) < len(columns):
            rows = list(zip(*(columns[i] for i in used), strict=True))
        touched = 0
        for some in _in_sizes(rows):
            statement = _with_values(self, used, len(some))
            touched += connection.exec_driver_sql(statement, (*shared, *chain.from_iterable(some))).rowcount
        return touched


@lru_cache(maxsize=128)
def _with_values(many: Many, used: tuple[int, ...], rows: int) -> str:
    """For SQLite, without the columns that are empty in all rows."""
    number = count(len(many._shared) + 1)
    values = ", ".join(f"({', '.join(f'?{next(number)}' for _ in used)})" for _ in range(rows))
    names = [many._columns[i] for i in used]
    named = ", ".join(f"column{i} AS {name}" for i, name in enumerate(names, 1))
    new = {name: f"new.{name}" if name in names else "NULL" for name in many._columns}
    shared = {name: f"?{i}" for i, name in enumerate(many._shared, 1)}
    source = {
        "from": f" FROM (SELECT {named} FROM (VALUES {values})) AS new",  # noqa: S608 - our own names
        "into": f" ({', '.join(names)}) VALUES {values}",
    }
    return _filled(_SOURCE.sub(lambda match: source[match[1]], many._template), new | shared)


def _filled(template: str, names: dict[str, str]) -> str:
    return _COLUMN.sub(lambda match: names[match[1]], template)


def _in_sizes(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


def _is_empty(column: tuple[Any, ...]) -> bool:
    return column[0] is None and column.count(None) == len(column)


def array_of(column: tuple[Any, ...]) -> list[Any] | None:
    """`unnest` pads what is shorter with NULLs, so of a column that has nothing else nothing needs to be sent."""
    return None if _is_empty(column) else list(column)


def _rows(table: Table, columns: Sequence[str]) -> str:
    arrays = ", ".join(f"${i}::{_array(table, name)}" for i, name in enumerate(columns, 1))
    return f"unnest({arrays}) AS new ({', '.join(columns)})"


def _array(table: Table, name: str) -> str:
    return next(array for kind, array in _ARRAYS.items() if isinstance(table.c[name].type, kind))
