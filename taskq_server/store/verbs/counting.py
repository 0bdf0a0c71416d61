"""How much there is: each count goes by an index, and is broken off."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import case, func, select, text

from taskq_server.store import schema
from taskq_server.store.transaction import Transaction

MOST_COUNTED = 100_000
"""Of each: PostgreSQL takes some 20 ms for it, and SQLite 5."""


class Kind(StrEnum):
    """What is counted."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    FINISHED = "finished"
    """All that has an end. To count those that succeeded would need an index that every task would pay for."""
    FAILED = "failed"
    CANCELLED = "cancelled"


# In the order of an index, so that PostgreSQL takes it: it may think that to read the table is quicker.
_COUNTED = {
    Kind.SCHEDULED: (schema.IS_SCHEDULED, "route_id, priority, due_time_us, seq"),
    Kind.RUNNING: (schema.IS_RUNNING, "session_seq"),
    Kind.FINISHED: (schema.IS_PRUNABLE, "prune_time_us"),
    Kind.FAILED: (schema.IS_FAILED, "failure_group, seq"),
    Kind.CANCELLED: (schema.IS_CANCELLED, "seq"),
}
_COUNTS = {
    kind: text(
        f"SELECT count(*) FROM (SELECT 1 FROM task WHERE {where.text} ORDER BY {order} LIMIT {MOST_COUNTED}) AS counted"  # noqa: S608
    )
    for kind, (where, order) in _COUNTED.items()
}


class Fleet(NamedTuple):
    """How many processors live, and how many tasks those could run that are not drained."""

    processors: int
    credits: int


def tasks(tx: Transaction, kinds: list[Kind]) -> list[int]:
    """How many tasks there are of these; MOST_COUNTED are as many or more."""
    return [tx.connection.execute(_COUNTS[kind]).scalar_one() for kind in kinds]


def fleet(tx: Transaction, nothing: list[None]) -> list[Fleet]:
    """The processors of all servers."""
    table = schema.session
    open_credits = case((table.c.drain_time_us.is_(None), table.c.max_in_flight), else_=0)
    found = select(func.count(), func.sum(open_credits)).where(schema.IS_ALIVE)
    processors, credits = tx.connection.execute(found).one()
    return [Fleet(processors, int(credits or 0))] * len(nothing)
