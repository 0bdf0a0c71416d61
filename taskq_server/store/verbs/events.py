"""Hints of what has changed, kept for a while so that whoever watches can go on where it was."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from sqlalchemy import Row, delete, func, select, text

from taskq_server.core.event import Event, Hint, Topic
from taskq_server.store import schema
from taskq_server.store.many import Many
from taskq_server.store.rows import to_json
from taskq_server.store.transaction import Transaction

KEPT_US = 3_600_000_000
MOST_KEPT = 10_000
MOST_READ = 1_000

_table = schema.event
_INSERT = Many.insert(_table, ("event_time_us", "topic", "changes", "ids"), order_by=("topic",))
_WATCHED = "watched_until_us"
_WRITE_WATCHED = text(
    f"INSERT INTO meta (key, value) VALUES ('{_WATCHED}', :until) "  # noqa: S608
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
READ_WATCHED = select(schema.meta.c.value).where(schema.meta.c.key == _WATCHED)
_LAST = select(_table).order_by(_table.c.event_seq.desc()).limit(1)


class Since(NamedTuple):
    """What somebody has seen last: the number of an event, and its time where they have it from elsewhere."""

    seq: int
    time_us: int | None = None


class Found(NamedTuple):
    """What came after, and whether there may be more that is not kept any more, or too much to be told."""

    events: list[Event]
    is_whole: bool


def keep(tx: Transaction, hints: list[Hint], *, prunes: bool) -> None:
    """Keeps hints. They are numbered in the order in which their transactions end, or whoever reads on from one could
    miss another that is committed later."""
    if not hints:
        return
    tx.sql.in_turn(tx)
    _INSERT.run(tx.connection, [(tx.now_us, int(one.topic), one.changes, to_json(one.ids)) for one in hints])
    if prunes:
        last = select(func.max(_table.c.event_seq)).scalar_subquery()
        old = (_table.c.event_seq <= last - MOST_KEPT) | (_table.c.event_time_us < tx.now_us - KEPT_US)
        # Never the last one: it tells whoever comes back that nothing is missing.
        tx.connection.execute(delete(_table).where(old, _table.c.event_seq < last))


def last(tx: Transaction, nothing: list[None]) -> list[Event | None]:
    """The last event that is kept."""
    found = tx.connection.execute(_LAST).one_or_none()
    return [None if found is None else _event(found)] * len(nothing)


def after(tx: Transaction, asked: list[Since]) -> list[Found]:
    """The events that came after others."""
    return [_after(tx, one) for one in asked]


def _after(tx: Transaction, since: Since) -> Found:
    is_whole = True
    if since.time_us is not None:
        that = select(_table.c.event_time_us).where(_table.c.event_seq == since.seq)
        is_whole = tx.connection.execute(that).scalar() == since.time_us
    query = select(_table).where(_table.c.event_seq > since.seq).order_by(_table.c.event_seq).limit(MOST_READ)
    found = tx.connection.execute(query).all()
    return Found([_event(row) for row in found], is_whole and len(found) < MOST_READ)


def _event(row: Row[Any]) -> Event:
    try:
        topic, ids = Topic(row.topic), tuple(map(str, json.loads(row.ids)))
    except (TypeError, ValueError):  # of a server of the next version, or damaged
        topic, ids = Topic.GAP, ()
    return Event(row.event_seq, row.event_time_us, Hint(topic, row.changes, ids))


def watch(tx: Transaction, untils_us: list[int]) -> list[None]:
    """Lets every server know that somebody watches until then."""
    tx.connection.execute(_WRITE_WATCHED, {"until": str(max(untils_us))})
    tx.signals = True
    return [None] * len(untils_us)


def watched_until_us(value: object) -> int:
    """What is written in meta, as a number; 0 for nothing that can be read."""
    try:
        return int(str(value))
    except ValueError:
        return 0
