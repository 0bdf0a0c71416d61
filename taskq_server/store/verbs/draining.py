"""Drains: sessions that are given nothing more, because an administrator says so."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import select, update

from taskq_server.core.event import Topic
from taskq_server.store import schema
from taskq_server.store.sql import NewSignal, SignalKind
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.auditing import Audit, Facts, time_text
from taskq_server.task_id import to_text


class NewDrain(NamedTuple):
    """A session to be drained, and why."""

    session_id: bytes
    reason: str


def drain(tx: Transaction, drains: list[NewDrain]) -> list[bool]:
    """Drains sessions; False for one that has ended. Of one that is drained already only the reason changes."""
    table = schema.session
    asked = tx.sql.among(table.c.session_id, {new.session_id for new in drains})
    known = select(table.c.session_id, table.c.session_seq, table.c.drain_time_us, table.c.drain_reason)
    known = known.where(asked, schema.LIVES).order_by(table.c.session_seq)
    # Whoever leases to them now has finished before, or finds that they are drained.
    living = {row.session_id: row for row in tx.connection.execute(known.with_for_update())}
    drained = {row.session_id: _facts(row.drain_time_us, row.drain_reason) for row in living.values()}
    audit = Audit(tx)
    for i, new in enumerate(drains):
        if (row := living.get(new.session_id)) is not None:
            since_us = tx.now_us if row.drain_time_us is None else row.drain_time_us
            change = update(table).where(table.c.session_seq == row.session_seq)
            tx.connection.execute(change.values(drain_time_us=since_us, drain_reason=new.reason))
            before, drained[new.session_id] = drained[new.session_id], _facts(since_us, new.reason)
            audit.note(i, "processor", to_text(new.session_id), before, drained[new.session_id])
    audit.write()
    tx.sql.tell(tx, [NewSignal(row.session_seq, SignalKind.DRAINED) for row in living.values()])
    tx.hint(Topic.PROCESSORS, map(to_text, living))
    return [new.session_id in living for new in drains]


def _facts(drain_time_us: int | None, reason: str | None) -> Facts:
    return None if drain_time_us is None else {"drained_since": time_text(drain_time_us), "reason": reason}
