"""What each server writes down once in a while: what was done, what has failed, and what has changed.

Rows are added to, never replaced, in the order of their keys: servers that write at the same time wait for each other
in no circle.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, func, select, text

from taskq_server.core.event import Hint
from taskq_server.core.sums import OF_ALL, Sums
from taskq_server.store import schema
from taskq_server.store.many import Many
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs import events, failures
from taskq_server.store.verbs.failures import Failures

MINUTE_SECONDS, HOUR_SECONDS = 60, 3600
SECOND_US = 1_000_000
KEPT_US = {MINUTE_SECONDS: 86_400 * SECOND_US, HOUR_SECONDS: 90 * 86_400 * SECOND_US}
"""How long rows are kept, by how much time each is about."""
MOST_PRUNED = 2_000

_KEY = ("step_seconds", "name", "start_us")
_COUNTS = ("enqueued", "leased", "succeeded", "failed", "cancelled", "retried")
_ADDED = (*_COUNTS, *schema.LATENESS_COLUMNS, *schema.RUN_COLUMNS)
_ADD = Many.insert(
    schema.stat,
    (*_KEY, *_ADDED),
    order_by=_KEY,
    end="ON CONFLICT (step_seconds, name, start_us) DO UPDATE SET "
    + ", ".join(f"{column} = stat.{column} + excluded.{column}" for column in _ADDED),
)
_DELETE = Many(
    schema.stat,
    "DELETE FROM stat {using rows} "
    "WHERE stat.step_seconds = {step_seconds} AND stat.name = {name} AND stat.start_us = {start_us}",
)
_NAMES = text(
    "WITH RECURSIVE known (name) AS (SELECT (SELECT stat.name FROM stat WHERE stat.step_seconds = :step "
    "ORDER BY stat.name LIMIT 1) UNION ALL SELECT (SELECT stat.name FROM stat WHERE stat.step_seconds = :step "
    "AND stat.name > known.name ORDER BY stat.name LIMIT 1) FROM known WHERE known.name IS NOT NULL) "
    "SELECT known.name FROM known WHERE known.name IS NOT NULL"
)
"""One step in the index for each name, not one for each row of it."""


class Span(NamedTuple):
    """A span of time, and the task name that it is about, or OF_ALL."""

    step_seconds: int
    start_us: int
    name: str


@dataclass(slots=True)
class Round:
    """What a server has to write down."""

    sums: dict[Span, Sums] = field(default_factory=dict)
    failures: list[Failures] = field(default_factory=list)
    hints: list[Hint] = field(default_factory=list)
    is_watched: bool = False
    """Somebody wants to know what has changed."""
    prunes: bool = False
    """What is too old goes with it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The history of a name, of all together (OF_ALL), or (None) of each of `most_names` names."""

    step_seconds: int
    start_us: int
    end_us: int
    name: str | None = OF_ALL
    most_names: int = 0


def keep(tx: Transaction, rounds: list[Round]) -> list[None]:
    """Writes down what was done, has failed and has changed."""
    for one in rounds:
        _ADD.run(tx.connection, [_row(span, one.sums[span]) for span in sorted(one.sums, key=_key)])
        seen = failures.keep(tx, one.failures)
        if one.prunes:
            _prune(tx)
            failures.prune(tx)
        events.keep(tx, [*one.hints, *seen] if one.is_watched else [], prunes=one.prunes)
    return [None] * len(rounds)


def _row(span: Span, sums: Sums) -> tuple[Any, ...]:
    counts = [getattr(sums, name) for name in _COUNTS]
    return (*_key(span), *counts, *sums.lateness, *sums.run)


def _key(span: Span) -> tuple[int, str, int]:
    return span.step_seconds, span.name, span.start_us


def _prune(tx: Transaction) -> None:
    table = schema.stat
    for step_seconds, kept_us in KEPT_US.items():
        if not (names := _names(tx, step_seconds)):
            continue
        old = select(*_columns(_KEY)).where(
            table.c.step_seconds == step_seconds,
            tx.sql.among(table.c.name, names),
            table.c.start_us < tx.now_us - kept_us,
        )
        some = tx.connection.execute(old.limit(MOST_PRUNED).with_for_update(skip_locked=True))
        _DELETE.run(tx.connection, [tuple(row) for row in some])


def _names(tx: Transaction, step_seconds: int) -> list[str]:
    """All that something is kept of, OF_ALL among them."""
    return list(tx.connection.execute(_NAMES, {"step": step_seconds}).scalars())


def _columns(names: Collection[str]) -> list[Column[Any]]:
    return [schema.stat.c[name] for name in names]


def history(tx: Transaction, asked: list[Asked]) -> list[list[tuple[Span, Sums]]]:
    """What was done, in the order of time and then of names."""
    return [_history(tx, one) for one in asked]


def _history(tx: Transaction, asked: Asked) -> list[tuple[Span, Sums]]:
    columns = schema.stat.c
    names = _busiest(tx, asked) if asked.name is None else [asked.name]
    query = select(*_columns(("step_seconds", "start_us", "name", *_ADDED))).where(*_within(tx, asked, names))
    found = tx.connection.execute(query.order_by(columns.start_us, columns.name))
    return [(Span(*row[:3]), _sums(row[3:])) for row in found]


def _busiest(tx: Transaction, asked: Asked) -> list[str]:
    columns = schema.stat.c
    names = [name for name in _names(tx, asked.step_seconds) if name != OF_ALL]
    query = select(columns.name).where(*_within(tx, asked, names)).group_by(columns.name)
    tasks = func.sum(columns.enqueued + columns.leased)
    return list(tx.connection.execute(query.order_by(tasks.desc(), columns.name).limit(asked.most_names)).scalars())


def _within(tx: Transaction, asked: Asked, names: list[str]) -> tuple[ColumnElement[bool], ...]:
    """A range of the key for each name."""
    columns = schema.stat.c
    return (
        columns.step_seconds == asked.step_seconds,
        tx.sql.among(columns.name, names),
        columns.start_us >= asked.start_us,
        columns.start_us < asked.end_us,
    )


def _sums(row: Sequence[int]) -> Sums:
    enqueued, leased, succeeded, failed, cancelled, retried, *taken = row
    at = schema.LATENESS_BUCKETS
    return Sums(enqueued, leased, succeeded, failed, cancelled, retried, taken[:at], taken[at:])
