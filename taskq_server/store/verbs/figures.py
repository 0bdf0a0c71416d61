"""What each server writes down once in a while: what was done, what has failed, and what has changed.

Rows are added to, never replaced, in the order of their keys: servers that write at the same time wait for each other
in no circle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import delete, func, select, tuple_

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

_KEY = ("step_seconds", "start_us", "name")
_COUNTS = ("enqueued", "leased", "succeeded", "failed", "cancelled", "retried")
_ADDED = (*_COUNTS, *schema.LATENESS_COLUMNS, *schema.RUN_COLUMNS)
_ADD = Many.insert(
    schema.stat,
    (*_KEY, *_ADDED),
    order_by=_KEY,
    end="ON CONFLICT (step_seconds, start_us, name) DO UPDATE SET "
    + ", ".join(f"{column} = stat.{column} + excluded.{column}" for column in _ADDED),
)


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
        _ADD.run(tx.connection, [_row(span, one.sums[span]) for span in sorted(one.sums)])
        seen = failures.keep(tx, one.failures)
        if one.prunes:
            _prune(tx)
            failures.prune(tx)
        events.keep(tx, [*one.hints, *seen] if one.is_watched else [], prunes=one.prunes)
    return [None] * len(rounds)


def _row(span: Span, sums: Sums) -> tuple[Any, ...]:
    counts = [getattr(sums, name) for name in _COUNTS]
    return (*span, *counts, *sums.lateness, *sums.run)


def _prune(tx: Transaction) -> None:
    table = schema.stat
    for step_seconds, kept_us in KEPT_US.items():
        key = table.c.step_seconds, table.c.start_us, table.c.name
        old = select(*key).where(table.c.step_seconds == step_seconds, table.c.start_us < tx.now_us - kept_us)
        some = old.order_by(*key).limit(MOST_PRUNED).with_for_update(skip_locked=True)
        tx.connection.execute(delete(table).where(tuple_(*key).in_(some)))


def history(tx: Transaction, asked: list[Asked]) -> list[list[tuple[Span, Sums]]]:
    """What was done, in the order of time and then of names."""
    return [_history(tx, one) for one in asked]


def _history(tx: Transaction, asked: Asked) -> list[tuple[Span, Sums]]:
    table = schema.stat
    within = (
        table.c.step_seconds == asked.step_seconds,
        table.c.start_us >= asked.start_us,
        table.c.start_us < asked.end_us,
    )
    query = select(*(table.c[name] for name in (*_KEY, *_ADDED))).where(*within)
    if asked.name is not None:
        query = query.where(table.c.name == asked.name)
    else:
        busy = func.sum(table.c.enqueued + table.c.leased).desc()
        names = select(table.c.name).where(*within, table.c.name != OF_ALL).group_by(table.c.name)
        most = tx.connection.execute(names.order_by(busy, table.c.name).limit(asked.most_names)).scalars()
        query = query.where(table.c.name.in_(list(most)))
    found = tx.connection.execute(query.order_by(table.c.start_us, table.c.name))
    return [(Span(*row[:3]), _sums(row[3:])) for row in found]


def _sums(row: Sequence[int]) -> Sums:
    enqueued, leased, succeeded, failed, cancelled, retried, *taken = row
    at = schema.LATENESS_BUCKETS
    return Sums(enqueued, leased, succeeded, failed, cancelled, retried, taken[:at], taken[at:])
