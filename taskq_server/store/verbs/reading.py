"""Looking at tasks, without changing them."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from sqlalchemy import Column, Select, TextClause, select

from taskq_server.core.task import Outcome, Task
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


class Fate(NamedTuple):
    """An attempt of a session, whose end somebody asks for."""

    session_seq: int
    task_id: bytes
    attempt: int


def fates(tx: Transaction, asked: list[Fate]) -> list[Outcome | None]:
    """How attempts have ended; None for one that is still held, or never was that session's."""
    task, kept, among = schema.task, schema.attempt, tx.sql.among
    ids = among(task.c.task_id, [one.task_id for one in asked])
    last = select(task.c.session_seq, task.c.task_id, task.c.attempt, task.c.last_outcome).where(ids)
    before = (
        select(kept.c.session_seq, task.c.task_id, kept.c.attempt, kept.c.outcome)
        .join_from(task, kept, kept.c.task_seq == task.c.seq)
        .where(ids)
    )
    found = [*tx.connection.execute(last), *tx.connection.execute(before)]
    ended = {Fate(*row[:3]): Outcome(row[3]) for row in found if row[3] is not None}
    return [ended.get(one) for one in asked]


def session_seqs(tx: Transaction, session_ids: list[bytes]) -> list[int | None]:
    """The numbers of sessions, also of those that have ended."""
    session = schema.session
    known = select(session.c.session_id, session.c.session_seq).where(tx.sql.among(session.c.session_id, session_ids))
    by_id = {row.session_id: row.session_seq for row in tx.connection.execute(known)}
    return [by_id.get(session_id) for session_id in session_ids]


class Owned(NamedTuple):
    """Whose a session is, and what it runs."""

    principal: str
    capabilities: dict[str, int]
    has_ended: bool


def owners(tx: Transaction, session_ids: list[bytes]) -> list[Owned | None]:
    """Whose sessions are, also those that have ended; None for one that never was, or is long gone."""
    table = schema.session.c
    columns = table.session_id, table.principal, table.capabilities, table.end_time_us
    known = tx.connection.execute(select(*columns).where(tx.sql.among(table.session_id, session_ids)))
    by_id = {
        row.session_id: Owned(row.principal, json.loads(row.capabilities), row.end_time_us is not None) for row in known
    }
    return [by_id.get(session_id) for session_id in session_ids]


def ping(tx: Transaction, asked: list[None]) -> list[None]:
    """Whether the database answers at all."""
    tx.connection.execute(select(1))
    return asked
