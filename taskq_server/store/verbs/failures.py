"""Failures that are alike, counted together, and what somebody has noted of them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Integer, Label, Row, delete, desc, literal_column, select, tuple_, update

from taskq_server.core.event import MOST_IDS, Hint, Topic
from taskq_server.store import schema
from taskq_server.store.many import Many
from taskq_server.store.rows import to_json
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.auditing import Audit, Facts, time_text

HOUR_US = 3_600_000_000
MOST_GROUPS = 10_000
"""The ones that were not seen for longest are forgotten."""
MOST_PRUNED = 20_000
MOST_NAMED = 10
"""Of processors, and of builds."""
TREND_HOURS = 24
MOST_COUNTED = 1_000
"""Of the tasks that have failed so."""

_table = schema.failure_group
_NEW = Many.insert(
    _table,
    (
        "fingerprint", "name", "error_type", "pattern", "last_message", "top_frame", "failures", "first_time_us",
        "last_time_us", "last_task_id", "processor_names", "build_ids", "trend",
    ),
    order_by=("fingerprint",),
    end="ON CONFLICT (fingerprint) DO NOTHING",
)  # fmt: skip
_SEEN = Many(
    _table,
    "UPDATE failure_group SET failures = failure_group.failures + {failures}, last_message = {last_message}, "
    "top_frame = {top_frame}, last_time_us = {last_time_us}, last_task_id = {last_task_id}, "
    "processor_names = {processor_names}, build_ids = {build_ids}, trend = {trend}, "
    "resolve_time_us = {resolve_time_us}, resolve_note = {resolve_note} {from rows} "
    "WHERE failure_group.fingerprint = {fingerprint}",
)
_FAILED_TASKS: Label[int] = literal_column(
    "(SELECT count(*) FROM (SELECT 1 FROM task WHERE task.state = 4 AND task.failure_group = failure_group.fingerprint "  # noqa: S608
    f"LIMIT {MOST_COUNTED}) AS counted)",
    Integer,
).label("failed_tasks")


@dataclass(slots=True)
class Failures:
    """Failures that are alike, as one server has seen them since it wrote last."""

    fingerprint: str
    name: str
    error_type: str
    pattern: str
    last_message: str = ""
    top_frame: str = ""
    failures: int = 0
    first_time_us: int = 0
    last_time_us: int = 0
    last_task_id: bytes = b""
    processor_names: list[str] = field(default_factory=list)
    build_ids: list[str] = field(default_factory=list)


@dataclass(slots=True)
class FailureGroup(Failures):
    """All of them, as far as is kept."""

    trend: list[tuple[int, int]] = field(default_factory=list)
    """When each hour began, and how many failed in it; hours without are left out."""
    resolve_time_us: int | None = None
    resolve_note: str = ""
    failed_tasks: int = 0
    """At most MOST_COUNTED: then there are as many or more."""


class GroupPage(NamedTuple):
    """Which groups to list: those seen before that time; of that time, with a smaller fingerprint."""

    last_time_us: int
    fingerprint: str
    at_most: int
    name: str = ""
    include_resolved: bool = False


class Resolution(NamedTuple):
    """A group that somebody takes for resolved."""

    fingerprint: str
    note: str


def keep(tx: Transaction, seen: list[Failures]) -> list[Hint]:
    """Adds failures to their groups; a group that was resolved is no longer, if it was seen since."""
    if not seen:
        return []
    by_fingerprint = {one.fingerprint: one for one in sorted(seen, key=lambda one: one.fingerprint)}
    _NEW.run(tx.connection, [_first(one) for one in by_fingerprint.values()])
    known = select(_table).where(tx.sql.among(_table.c.fingerprint, by_fingerprint))
    locked = tx.connection.execute(known.order_by(_table.c.fingerprint).with_for_update())
    _SEEN.run(tx.connection, [_added(row, by_fingerprint[row.fingerprint], tx.now_us) for row in locked])
    return [Hint(Topic.FAILURE_GROUPS, len(by_fingerprint), tuple(by_fingerprint)[:MOST_IDS])]


def _first(one: Failures) -> tuple[Any, ...]:
    """The row of a group before anything is counted in it."""
    return (
        one.fingerprint, one.name, one.error_type, one.pattern, "", "", 0, one.first_time_us,
        one.first_time_us, one.last_task_id, "[]", "[]", "[]",
    )  # fmt: skip


def _added(row: Row[Any], more: Failures, now_us: int) -> tuple[Any, ...]:
    is_resolved = row.resolve_time_us is not None and row.resolve_time_us >= more.last_time_us
    trend = Counter(dict(_trend_in(row.trend)))
    trend[more.last_time_us // HOUR_US] += more.failures
    kept = sorted((hour, count) for hour, count in trend.items() if hour > now_us // HOUR_US - TREND_HOURS)
    is_last = more.last_time_us >= row.last_time_us
    return (
        more.failures,
        more.last_message if is_last else row.last_message,
        more.top_frame if is_last else row.top_frame,
        max(more.last_time_us, row.last_time_us),
        more.last_task_id if is_last else row.last_task_id,
        to_json(_named(row.processor_names, more.processor_names)),
        to_json(_named(row.build_ids, more.build_ids)),
        to_json(kept),
        row.resolve_time_us if is_resolved else None,
        row.resolve_note if is_resolved else None,
        row.fingerprint,
    )


def _named(column: str, more: list[str]) -> list[str]:
    """The last ones seen."""
    return list(dict.fromkeys([*more, *_names_in(column)]))[:MOST_NAMED]


def _names_in(column: str) -> list[str]:
    try:
        return [str(name) for name in json.loads(column)]
    except (TypeError, ValueError):  # what cannot be read does not stand in the way of what comes
        return []


def _trend_in(column: str) -> list[tuple[int, int]]:
    try:
        return [(int(hour), int(count)) for hour, count in json.loads(column)]
    except (TypeError, ValueError):
        return []


def prune(tx: Transaction) -> None:
    """Forgets what is too many. A server that is at one of them keeps it."""
    last = _table.c.last_time_us, _table.c.fingerprint
    newest = select(*last).order_by(*map(desc, last)).offset(MOST_GROUPS).limit(1)
    if (first := tx.connection.execute(newest).first()) is None:
        return
    old = select(_table.c.fingerprint).where(tuple_(*last) <= tuple_(*first)).order_by(_table.c.fingerprint)
    some = old.limit(MOST_PRUNED).with_for_update(skip_locked=True)
    tx.connection.execute(delete(_table).where(_table.c.fingerprint.in_(some)))


def find(tx: Transaction, pages: list[GroupPage]) -> list[list[FailureGroup]]:
    """Groups, the one seen last first."""
    return [_find(tx, page) for page in pages]


def _find(tx: Transaction, page: GroupPage) -> list[FailureGroup]:
    last = _table.c.last_time_us, _table.c.fingerprint
    query = select(_table, _FAILED_TASKS).where(tuple_(*last) < tuple_(page.last_time_us, page.fingerprint))
    if page.name:
        query = query.where(_table.c.name == page.name)
    if not page.include_resolved:
        query = query.where(_table.c.resolve_time_us.is_(None))
    found = tx.connection.execute(query.order_by(*map(desc, last)).limit(page.at_most)).all()
    return [_group(row, tx.now_us) for row in found]


def _group(row: Row[Any], now_us: int) -> FailureGroup:
    first_hour = now_us // HOUR_US - TREND_HOURS
    return FailureGroup(
        fingerprint=row.fingerprint,
        name=row.name,
        error_type=row.error_type,
        pattern=row.pattern,
        last_message=row.last_message,
        top_frame=row.top_frame,
        failures=row.failures,
        first_time_us=row.first_time_us,
        last_time_us=row.last_time_us,
        last_task_id=row.last_task_id,
        processor_names=_names_in(row.processor_names),
        build_ids=_names_in(row.build_ids),
        trend=[(hour * HOUR_US, count) for hour, count in _trend_in(row.trend) if hour > first_hour],
        resolve_time_us=row.resolve_time_us,
        resolve_note=row.resolve_note or "",
        failed_tasks=row.failed_tasks,
    )


def resolve(tx: Transaction, resolutions: list[Resolution]) -> list[FailureGroup | None]:
    """Notes groups as resolved, until they are seen again; None for one that is not kept."""
    audit = Audit(tx)
    answers: list[FailureGroup | None] = []
    for i, one in enumerate(resolutions):
        that = _table.c.fingerprint == one.fingerprint
        before = tx.connection.execute(select(_table).where(that).with_for_update()).one_or_none()
        if before is None:
            answers.append(None)
            continue
        tx.connection.execute(update(_table).where(that).values(resolve_time_us=tx.now_us, resolve_note=one.note))
        after = tx.connection.execute(select(_table, _FAILED_TASKS).where(that)).one()
        answers.append(_group(after, tx.now_us))
        audit.note(i, "failure_group", one.fingerprint, _facts(before), _facts(after))
        tx.hint(Topic.FAILURE_GROUPS, [one.fingerprint])
    audit.write()
    return answers


def _facts(row: Row[Any]) -> Facts:
    """What the audit tells of a group."""
    told = {"name": row.name, "error_type": row.error_type, "pattern": row.pattern}
    if row.resolve_time_us is not None:
        told |= {"resolved": time_text(row.resolve_time_us), "note": row.resolve_note}
    return told
