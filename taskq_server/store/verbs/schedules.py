"""Looking at schedules, without changing them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from sqlalchemy import ColumnElement, Integer, Select, false, literal_column, or_, select

from taskq_server.core.recurring import Key, Schedule
from taskq_server.store import schedule_rows, schema
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs import reading
from taskq_server.store.verbs.listing import MOST_COUNTED, Page

log = structlog.get_logger("taskq.store")

LAST_CHARACTER = "\U0010ffff"
_COUNT = "(SELECT count(*) FROM (SELECT 1 FROM {of} LIMIT {most}) AS counted)"
UNFINISHED = "task WHERE task.schedule_seq = schedule.schedule_seq AND task.schedule_seq IS NOT NULL AND task.state < 3"
BUFFERED = "firing WHERE firing.schedule_seq = schedule.schedule_seq AND firing.outcome = 3"


def counts(most: int) -> tuple[ColumnElement[int], ColumnElement[int]]:
    """How many tasks of a schedule are unfinished, not counted further, and how many of its firings wait."""
    unfinished = literal_column(_COUNT.format(of=UNFINISHED, most=most), Integer).label("unfinished")
    return unfinished, literal_column(_COUNT.format(of=BUFFERED, most=MOST_COUNTED), Integer).label("buffered")


_COLUMNS = [*schema.schedule.c, *counts(MOST_COUNTED)]
_PAUSED = select(schema.schedule.c.pause_time_us).where(schema.schedule.c.schedule_seq == schema.firing.c.schedule_seq)
_WAITS = select(schema.firing.c.schedule_seq).where(schema.IS_BUFFERED, _PAUSED.scalar_subquery().is_(None)).limit(1)
_FIRST_DUE = reading.first(schema.schedule.c.next_due_us, schema.IS_FIRING)
FIRST_DUE_AND_WAITS = _FIRST_DUE.scalar_subquery(), _WAITS.scalar_subquery()
_TO_FIRE = select(*FIRST_DUE_AND_WAITS)
"""One question, since each is a way to the database and back."""


class Listed(NamedTuple):
    """A page of schedules, in the order of their names, or only those whose name or origin begins with something."""

    page: Page
    name_prefix: str = ""
    origin_prefix: str = ""


@dataclass(frozen=True, slots=True)
class ToFire:
    """When there is something to do for whoever fires schedules."""

    first_due_us: int | None
    """When the first firing is due, over or not; None when none is to come."""
    some_wait: bool
    """Firings wait in buffers, of schedules that are not paused."""


def to_fire(tx: Transaction, nothing: list[None]) -> list[ToFire]:
    """By two looks at what is first in an index, however many schedules there are."""
    first_due_us, waits = tx.connection.execute(_TO_FIRE).one()
    return [ToFire(first_due_us, waits is not None)] * len(nothing)


def get(tx: Transaction, keys: list[Key]) -> list[Schedule | None]:
    """Schedules as they stand; None for one that does not exist."""
    found = read(tx, select(*_COLUMNS).where(meant(tx, keys)))
    by_id = {one.schedule_id: one for one in found}
    by_name = {one.definition.name: one for one in found}
    return [by_name.get(key.name) if key.schedule_id is None else by_id.get(key.schedule_id) for key in keys]


def find(tx: Transaction, lists: list[Listed]) -> list[list[Schedule]]:
    return [read(tx, _list(one)) for one in lists]


def _list(asked: Listed) -> Select[Any]:
    table = schema.schedule
    where = [table.c.name > asked.page.after]
    for column, prefix in ((table.c.name, asked.name_prefix), (table.c.origin, asked.origin_prefix)):
        if prefix:
            where += [column >= prefix, column < prefix + LAST_CHARACTER]
    return select(*_COLUMNS).where(*where).order_by(table.c.name).limit(asked.page.at_most)


def meant(tx: Transaction, keys: Iterable[Key]) -> ColumnElement[bool]:
    """Whether a schedule is one of those."""
    keys, table = list(keys), schema.schedule
    ids = [key.schedule_id for key in keys if key.schedule_id is not None]
    names = [key.name for key in keys if key.schedule_id is None]
    both = (table.c.schedule_id, ids), (table.c.name, names)
    return or_(false(), *(tx.sql.among(column, values) for column, values in both if values))


def read(tx: Transaction, query: Select[Any]) -> list[Schedule]:
    """Those that can be read: one bad row must not hide the others."""
    found = []
    for row in tx.connection.execute(query).all():
        try:
            one = schedule_rows.schedule_of(row)
        except (TypeError, ValueError, KeyError) as error:
            log.error("a schedule cannot be read", name=row.name, why=repr(error))
            continue
        one.unfinished, one.buffered = row.unfinished, row.buffered
        found.append(one)
    return found
