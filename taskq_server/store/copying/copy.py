"""A copy of everything that is in one database into another, empty one.

Each chunk is committed together with a note of how far it goes, so a copy that is killed at any instant goes on from
there. It is whole when every row, read back from both sides, adds up to the same; until then no server starts on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import Connection

from taskq_server.core.errors import StoreRefused
from taskq_server.core.task import TaskState
from taskq_server.store.copying import mark as copy_mark
from taskq_server.store.copying.ends import End
from taskq_server.store.copying.mark import Mark
from taskq_server.store.copying.rows import ROWS, Rows, Sums

DIFFERENT = 65
EMPTY_IT = "empty the target (make the database anew, or remove the file and its .lock), then copy again"
_STATES = {state.value: state.name for state in TaskState}
NAME_ANOTHER = "name an empty database"

Tell = Callable[[str, int, int], None]
"""Is told what is going on, how many rows are done, and how many there are."""


class Copied(NamedTuple):
    """The rows of one table; of task, those of one state."""

    table: str
    state: str
    rows: int
    checksum: str

    def __str__(self) -> str:
        return f"{self.table} {self.state}".rstrip() + f": {self.rows} with checksum {self.checksum}"


def copy(source: End, target: End, tell: Tell) -> list[Copied]:
    """Copies, or goes on with it, and answers what is now in both. StoreRefused when that is not the same."""
    mark = _begin(source, target)
    if mark is None:
        return _compare(source, target, tell, "the target is not empty: it is a copy of the source, but was used since")
    mark = _copy_rows(source, target, mark, tell)
    copied = _compare(source, target, tell, "the copy differs from its source", EMPTY_IT, DIFFERENT)
    with target.connection.begin():
        copy_mark.whole(target.connection, mark)
    return copied


def _begin(source: End, target: End) -> Mark | None:
    """Marks an empty target, or answers the mark of a copy of the same source; None when that is already whole."""
    from_it = _signature(source)
    with target.connection.begin():
        mark = copy_mark.read(target.connection)
        if mark is None:
            if (name := _not_empty(target.connection)) is not None:
                if copy_mark.whole_copy_of(target.connection) == from_it:
                    return None
                raise StoreRefused(f"the target is not empty: it has rows in {name}", NAME_ANOTHER)
            mark = Mark(from_it)
            copy_mark.write(target.connection, mark)
        elif mark.source != from_it:
            raise StoreRefused(
                "the target holds half a copy of another database, or of this one as it was before", EMPTY_IT
            )
    return mark


def _not_empty(connection: Connection) -> str | None:
    """A table in which there are rows."""
    for rows in ROWS:
        if connection.exec_driver_sql(f"SELECT 1 FROM {rows.name} LIMIT 1").first():  # noqa: S608
            return rows.name
    return None


def _copy_rows(source: End, target: End, mark: Mark, tell: Tell) -> Mark:
    total, done = _count(source.connection), _count(target.connection)
    for rows in ROWS[_position(mark) :]:
        if rows.name != mark.table:
            mark = replace(mark, table=rows.name, after=[])
        while chunk := source.chunk(rows, mark.after):
            mark = replace(mark, after=rows.key_in(chunk[-1]))
            with target.connection.begin():
                copy_mark.write(target.connection, mark)
                target.insert(rows, rows.without_server(chunk, target.no_server))
            done += len(chunk)
            tell("copied", done, total)
    with target.connection.begin():
        copy_mark.write(target.connection, mark)
        target.number_after(source.last_numbers())
    return mark


def _signature(source: End) -> dict[str, Any]:
    """What a copy must find again to go on with it."""
    signature: dict[str, Any] = {"generation": source.generation()}
    with source.connection.begin():
        for rows in ROWS:
            order = rows.order.replace(",", " DESC,")
            last = source.connection.exec_driver_sql(
                f"SELECT {rows.names} FROM {rows.name} ORDER BY {order} DESC LIMIT 1"  # noqa: S608
            ).first()
            count = _count_of(source.connection, rows)
            signature[rows.name] = [count, None if last is None else f"{rows.digest(tuple(last)):x}"]
    return signature


def _position(mark: Mark) -> int:
    return next((i for i, rows in enumerate(ROWS) if rows.name == mark.table), 0)


def _count(connection: Connection) -> int:
    with connection.begin():
        return sum(_count_of(connection, rows) for rows in ROWS)


def _count_of(connection: Connection, rows: Rows) -> int:
    return int(connection.exec_driver_sql(f"SELECT count(*) FROM {rows.name}").scalar_one())  # noqa: S608


def _sums(end: End, doing: str, total: int, tell: Tell) -> Sums:
    sums, done = Sums(), 0
    for rows in ROWS:
        after: list[Any] = []
        while chunk := end.chunk(rows, after):
            after = rows.key_in(chunk[-1])
            sums.add(rows, chunk)
            done += len(chunk)
            tell(doing, done, total)
    return sums


def _compare(
    source: End, target: End, tell: Tell, else_why: str, hint: str = NAME_ANOTHER, exit_code: int = 78
) -> list[Copied]:
    """What is in both, read back; StoreRefused when that is not the same."""
    total = _count(source.connection)
    there = _lines(_sums(source, "read back from the source", total, tell))
    here = _lines(_sums(target, "read back from the target", total, tell))
    if there != here:
        lost = "".join(f"\n  in the source {line}" for line in there if line not in here)
        found = "".join(f"\n  in the target {line}" for line in here if line not in there)
        raise StoreRefused(f"{else_why}{lost}{found}\n", hint, exit_code)
    return here


def _lines(sums: Sums) -> list[Copied]:
    return [
        Copied(table, "" if state is None else _STATES.get(state, str(state)), count, f"{total:032x}")
        for (table, state), (count, total) in sorted(sums.found.items(), key=str)
    ]
