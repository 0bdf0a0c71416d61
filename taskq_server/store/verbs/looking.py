"""Tasks that a filter matches, those enqueued last first, by looks that are bounded.

However many tasks there are, a look passes by only so many of them, and says where it has ended: the next one goes on
from there. Where an index names what may match, and that is little, one look is enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Select, func, literal_column, null, select, union_all

from taskq_server.core.filter import Filter
from taskq_server.core.task import Task
from taskq_server.store import rows, schema
from taskq_server.store.few import few
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.asking import CHECKED, IN_ORDER, SEQ, Asked, asked, ways

MOST_BY_INDEX = 10_000
"""What an index names is looked at whole, if it is not more."""
CHECKED_AT_ONCE = 500
END = 1 << 62
"""Comes after the number of every task."""

_task = schema.task.c
_NOT_SHOWN = {
    "payload",
    "content_type",
    "payload_metadata",
    "headers",
    "result",
    "result_type",
    "result_metadata",
    "progress_message",
}
_SHOWN = [null().label(name) if name in _NOT_SHOWN else _task[name] for name in rows.TASK_COLUMNS]
"""TASK_COLUMNS without what may be large, but for failures."""


class Look(NamedTuple):
    """A look at tasks with smaller numbers than `before`, at the next `rows` of them at most, for `at_most` matches."""

    filter: Filter
    before: int
    at_most: int
    rows: int
    only_count: bool = False


class Seen(NamedTuple):
    """A task, without what may be large, and its number."""

    seq: int
    task: Task


@dataclass(slots=True)
class Looked:
    """What a look has found."""

    found: list[Seen] = field(default_factory=list)
    many: int = 0
    """How many match, of those looked at."""
    before: int | None = None
    """Where the next look begins; None: there is nothing more."""


def look(memory: Memory, tx: Transaction, looks: list[Look]) -> list[Looked]:
    """The next tasks that match, in the order of their numbers, the largest first."""
    return [_look(memory, tx, one) for one in looks]


def _look(memory: Memory, tx: Transaction, one: Look) -> Looked:
    wanted = asked(memory, tx, one.filter)
    if wanted.is_nothing:
        return Looked()
    matching, floor = _matching(memory, tx, one, wanted)
    if one.only_count and not wanted.checks:
        many = select(func.count()).select_from(matching.subquery("matching"))
        return Looked(many=tx.connection.execute(many).scalar_one(), before=floor)
    looked = Looked(before=floor)
    columns = CHECKED if one.only_count else (*_SHOWN, *(column for column in CHECKED if column not in _SHOWN))
    for row in _passing(tx, one, wanted, matching, columns):
        if looked.many == one.at_most:
            looked.before = looked.found[-1].seq if looked.found else floor
            break
        looked.many += 1
        if not one.only_count:
            route = memory.route(tx.connection, row.route_id)
            looked.found.append(Seen(row.seq, rows.task_of(row[1 : 1 + len(rows.TASK_COLUMNS)], route)))
    return looked


class Named(NamedTuple):
    """A task, by its number and its id."""

    seq: int
    task_id: bytes


def names(memory: Memory, tx: Transaction, one: Look) -> tuple[list[Named], int | None]:
    """The next tasks that match, by their names alone, and where the next look begins; None: there is nothing more."""
    wanted = asked(memory, tx, one.filter)
    if wanted.is_nothing:
        return [], None
    matching, floor = _matching(memory, tx, one, wanted)
    found: list[Named] = []
    for row in _passing(tx, one, wanted, matching, (_task.task_id, *(CHECKED if wanted.checks else ()))):
        found.append(Named(row.seq, row.task_id))
        if len(found) == one.at_most:
            return found, row.seq
    return found, floor


def _matching(memory: Memory, tx: Transaction, one: Look, wanted: Asked) -> tuple[Select[Any], int | None]:
    """The numbers of the tasks for which all conditions hold; and where the look ends, None at the end of all."""
    if (by_index := ways(memory, tx, wanted)) and _are_few(tx, by_index):
        conditions = wanted.conditions(tx, by_state=wanted.few is None)
        found = union_all(*(way.where(*conditions, one.before > SEQ) for way in by_index)).subquery("few")
        # Not in the order of the numbers' own index, which SQLite would rather walk, all of it if need be.
        return select((found.c.seq + 0).label("seq")), None
    along = [IN_ORDER[wanted.states]] if wanted.states in IN_ORDER else []
    walk = select(_task.seq).where(*along, _task.seq < one.before)
    last = walk.order_by(_task.seq.desc()).offset(one.rows - 1).limit(1)
    floor = tx.connection.execute(last).scalar()
    return walk.where(_task.seq >= (floor or 0), *wanted.conditions(tx)), floor


def _are_few(tx: Transaction, by_index: Sequence[Select[Any]]) -> bool:
    left = MOST_BY_INDEX
    for way in by_index:
        some = way.with_only_columns(literal_column("1"), maintain_column_froms=True).limit(left + 1).subquery("some")
        left -= tx.connection.execute(select(func.count()).select_from(some)).scalar_one()
        if left < 0:
            return False
    return True


def _passing(tx: Transaction, one: Look, wanted: Asked, matching: Select[Any], columns: Sequence[Any]) -> Iterator[Any]:
    """The rows that match, in order: each as its number and the columns."""
    at_once = max(one.at_most + 1, CHECKED_AT_ONCE) if wanted.checks else one.at_most + 1
    found = matching.subquery("found")
    before = one.before
    while True:
        page = select(found.c.seq).where(found.c.seq < before).order_by(found.c.seq.desc()).limit(at_once)
        numbers = list(tx.connection.execute(page).scalars())
        for some in few(numbers):
            those = select(_task.seq, *columns).where(tx.sql.among(_task.seq, some))
            yield from filter(wanted.passes, sorted(tx.connection.execute(those), key=_number, reverse=True))
        if len(numbers) < at_once:
            return
        before = numbers[-1]


def _number(row: Any) -> int:
    return int(row.seq)
