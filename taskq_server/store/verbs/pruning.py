"""Removal of what is finished and old, in small batches."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, func, select, tuple_

from taskq_server.core.task import DedupHold, TaskState
from taskq_server.store import schema
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs import reading

MOST_TASKS_PER_PRUNE = 500
MOST_KEYS_PER_PRUNE = 4_000


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many tasks went, and when the next may go (None: when one finishes)."""

    tasks: int
    next_us: int | None


def prune(tx: Transaction, keep_sessions_us: list[int]) -> list[Pruned]:
    """Deletes finished tasks past their retention with their attempts, keys past their hold, and old ended sessions."""
    return [_prune(tx, keep_us) for keep_us in keep_sessions_us]


def _prune(tx: Transaction, keep_sessions_us: int) -> Pruned:
    task, attempt, dedup, session = schema.task, schema.attempt, schema.dedup, schema.session
    among = tx.sql.among
    old = (
        select(task.c.seq)
        .where(schema.IS_PRUNABLE, task.c.prune_time_us <= tx.now_us)
        .order_by(task.c.prune_time_us)
        .limit(MOST_TASKS_PER_PRUNE)
        .with_for_update(skip_locked=True)  # another server prunes others
    )
    seqs = list(tx.connection.execute(old).scalars())
    if seqs:
        tx.connection.execute(delete(attempt).where(among(attempt.c.task_seq, seqs)))
        tx.connection.execute(delete(task).where(among(task.c.seq, seqs)))
    # Not EXISTS, which PostgreSQL may answer by reading the whole table once.
    state = select(task.c.state).where(task.c.task_id == dedup.c.task_id).scalar_subquery()
    finished = func.coalesce(state, int(TaskState.SUCCEEDED)) > int(TaskState.RUNNING)
    over = dedup.c.hold_until_us <= tx.now_us, (dedup.c.hold == int(DedupHold.TTL)) | finished
    some = (
        select(dedup.c.scope, dedup.c.key)
        .where(*over)
        .order_by(dedup.c.hold_until_us)
        .limit(MOST_KEYS_PER_PRUNE)
        .with_for_update(skip_locked=True)
    )
    keys = tx.connection.execute(delete(dedup).where(tuple_(dedup.c.scope, dedup.c.key).in_(some))).rowcount
    ended = select(session.c.session_seq).where(session.c.end_time_us < tx.now_us - keep_sessions_us)
    ended = ended.with_for_update(skip_locked=True)
    tx.connection.execute(delete(session).where(session.c.session_seq.in_(ended)))
    next_us = tx.connection.execute(reading.first(task.c.prune_time_us, schema.IS_PRUNABLE)).scalar()
    return Pruned(len(seqs), tx.now_us if keys == MOST_KEYS_PER_PRUNE else next_us)
