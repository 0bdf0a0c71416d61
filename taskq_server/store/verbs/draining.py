"""Drains: sessions that are given nothing more, because an administrator says so."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import func, select, update

from taskq_server.core.event import Topic
from taskq_server.store import schema
from taskq_server.store.sql import NewSignal, SignalKind
from taskq_server.store.transaction import Transaction
from taskq_server.task_id import to_text


class NewDrain(NamedTuple):
    """A session to be drained, and why."""

    session_id: bytes
    reason: str


def drain(tx: Transaction, drains: list[NewDrain]) -> list[bool]:
    """Drains sessions; False for one that has ended. Of one that is drained already only the reason changes."""
    table = schema.session
    asked = tx.sql.among(table.c.session_id, {new.session_id for new in drains})
    known = select(table.c.session_id, table.c.session_seq).where(asked, schema.LIVES).order_by(table.c.session_seq)
    # Whoever leases to them now has finished before, or finds that they are drained.
    living: dict[bytes, int] = {
        row.session_id: row.session_seq for row in tx.connection.execute(known.with_for_update())
    }
    for new in drains:
        if (session_seq := living.get(new.session_id)) is not None:
            since_us = func.coalesce(table.c.drain_time_us, tx.now_us)
            change = update(table).where(table.c.session_seq == session_seq)
            tx.connection.execute(change.values(drain_time_us=since_us, drain_reason=new.reason))
    tx.sql.tell(tx, [NewSignal(session_seq, SignalKind.DRAINED) for session_seq in living.values()])
    tx.hint(Topic.PROCESSORS, map(to_text, living))
    return [new.session_id in living for new in drains]
