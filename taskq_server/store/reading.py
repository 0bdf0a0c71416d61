"""Looking at tasks, without changing them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Select, TextClause, select

from taskq_server.core.task import Task
from taskq_server.store import rows, schema
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction


def first(column: Column[int], where: TextClause) -> Select[Any]:
    """The smallest, by the index that has them in order; for min(), PostgreSQL may read all of it."""
    return select(column).where(where).order_by(column).limit(1)


FIRST_EXPIRY = first(schema.task.c.expire_time_us, schema.IS_EXPIRING)
_COLUMNS = [schema.task.c[name] for name in rows.TASK_COLUMNS]


def get(memory: Memory, tx: Transaction, task_ids: list[bytes]) -> list[Task | None]:
    """The tasks in the order of their ids; None for one that does not exist."""
    found = tx.connection.execute(select(*_COLUMNS).where(tx.sql.among(schema.task.c.task_id, task_ids)))
    by_id = {row.task_id: rows.task_of(row, memory.route(tx.connection, row.route_id)) for row in found.all()}
    return [by_id.get(task_id) for task_id in task_ids]


def session_seqs(tx: Transaction, session_ids: list[bytes]) -> list[int | None]:
    """The numbers of sessions, also of those that have ended."""
    session = schema.session
    known = select(session.c.session_id, session.c.session_seq).where(tx.sql.among(session.c.session_id, session_ids))
    by_id = {row.session_id: row.session_seq for row in tx.connection.execute(known)}
    return [by_id.get(session_id) for session_id in session_ids]
