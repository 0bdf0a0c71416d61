"""The audit: who has changed what, written in the transaction of the change. There is none without the other.

A verb notes what was before and what is after; when they are the same, nothing has changed, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, select

from taskq_server.core.event import Topic
from taskq_server.core.origin import Origin
from taskq_server.store import rows, schema
from taskq_server.store.many import Many
from taskq_server.store.transaction import Transaction

MOST_FORGOTTEN = 1_000
"""At a time."""

_table = schema.audit
_INSERT = Many.insert(
    _table,
    (
        "change_time_us", "principal", "peer", "source", "action", "target_kind", "target", "reason", "before", "after",
        "request_id",
    ),
    order_by=("change_time_us",),
)  # fmt: skip

Facts = Mapping[str, object] | None
"""What is told of a thing, to be read by people; None when there is none. Never a payload."""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_text(time_us: int | None) -> str | None:
    """A time as people read it."""
    if time_us is None:
        return None
    time = _EPOCH + timedelta(microseconds=time_us)  # not by way of a float, which rounds the end of 9999 up
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Audit:
    """The entries of one verb. What nobody has asked for, since the server does it by itself, has none."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._found: list[tuple[Any, ...]] = []

    def asks(self, index: int) -> bool:
        """Whether somebody has asked for an item: only then its facts need to be looked up."""
        return self._tx.origin_of(index) is not None

    def note(self, index: int, kind: str, target: str, before: Facts, after: Facts) -> None:
        """An item has changed a thing."""
        if before != after and (origin := self._tx.origin_of(index)) is not None:
            self._found.append(entry(origin, self._tx.now_us, kind, target, before, after))

    def write(self) -> None:
        write(self._tx.connection, self._found)
        self._tx.hint(Topic.AUDIT, (), len(self._found))


def write(connection: Connection, entries: list[tuple[Any, ...]]) -> None:
    """Writes entries, where there is no transaction of the store's."""
    _INSERT.run(connection, entries)


def entry(origin: Origin, now_us: int, kind: str, target: str, before: Facts, after: Facts) -> tuple[Any, ...]:
    """A row of the audit but for its number."""
    told = ["" if facts is None else rows.to_json(facts) for facts in (before, after)]
    return (
        now_us, origin.principal, origin.peer, int(origin.source), origin.action, kind, target, origin.reason, *told,
        origin.request_id,
    )  # fmt: skip


def forget(tx: Transaction, keep_us: list[int]) -> list[int]:
    """Deletes entries that are older than that, some at a time; answers how many."""
    before_us = tx.now_us - max(keep_us)
    old = select(_table.c.audit_seq).where(_table.c.change_time_us < before_us).order_by(_table.c.change_time_us)
    some = old.limit(MOST_FORGOTTEN).with_for_update(skip_locked=True)
    gone = tx.connection.execute(delete(_table).where(_table.c.audit_seq.in_(some))).rowcount
    return [gone] * len(keep_us)
