"""Removal of what is finished and old, in small batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import delete, func, select, tuple_

from taskq_server.core.task import DedupHold, TaskState
from taskq_server.store import schema
from taskq_server.store.many import Many
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs import reading
from taskq_server.store.verbs.auditing import Audit

MOST_TASKS_PER_PRUNE = 500
MOST_KEYS_PER_PRUNE = 4_000

_FORGET = Many(
    schema.firing,
    "DELETE FROM firing {using rows} WHERE firing.schedule_seq = {schedule_seq} AND firing.nominal_us = {nominal_us}",
)
_REMEMBER = Many(
    schema.schedule,
    "UPDATE schedule SET pruned_until_us = new.pruned_until_us {from rows} "
    "WHERE schedule.schedule_seq = {schedule_seq} AND coalesce(schedule.pruned_until_us, -1) < {pruned_until_us}",
)


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many tasks went, and when the next may go (None: when one finishes)."""

    tasks: int
    next_us: int | None


class Asked(NamedTuple):
    """So many finished tasks past their retention to be deleted by the will of an administrator."""

    at_most: int


def prune_asked(tx: Transaction, asked: list[Asked]) -> list[Pruned]:
    """Deletes finished tasks past their retention, as many as are asked for, and no more than a small batch."""
    audit, answers = Audit(tx), []
    for i, one in enumerate(asked):
        tasks = _prune_tasks(tx, min(one.at_most, MOST_TASKS_PER_PRUNE))
        audit.note(i, "task", "", None, {"pruned_tasks": tasks} if tasks else None)
        answers.append(Pruned(tasks, _next_us(tx)))
    audit.write()
    return answers


def prune(tx: Transaction, keep_sessions_us: list[int]) -> list[Pruned]:
    """Deletes finished tasks past their retention with their attempts, keys past their hold, and old ended sessions."""
    return [_prune(tx, keep_us) for keep_us in keep_sessions_us]


def _prune(tx: Transaction, keep_sessions_us: int) -> Pruned:
    task, dedup, session = schema.task, schema.dedup, schema.session
    tasks = _prune_tasks(tx, MOST_TASKS_PER_PRUNE)
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
    return Pruned(tasks, tx.now_us if keys == MOST_KEYS_PER_PRUNE else _next_us(tx))


def _prune_tasks(tx: Transaction, at_most: int) -> int:
    task = schema.task
    old = (
        select(task.c.seq, task.c.schedule_seq, task.c.nominal_us)
        .where(schema.IS_PRUNABLE, task.c.prune_time_us <= tx.now_us)
        .order_by(task.c.prune_time_us)
        .limit(at_most)
        .with_for_update(skip_locked=True)  # another server prunes others
    )
    return len(delete_finished(tx, [tuple(row) for row in tx.connection.execute(old)]))


def delete_finished(tx: Transaction, found: list[tuple[int, int | None, int | None]]) -> list[int]:
    """Deletes finished tasks that are locked, given as number, schedule and nominal time, with their attempts and
    firings; answers the numbers of those that are gone. Not of schedules at which another server is."""
    task, attempt, among = schema.task, schema.attempt, tx.sql.among
    firings = [(schedule_seq, nominal_us) for _, schedule_seq, nominal_us in found if schedule_seq is not None]
    locked = _prune_firings(tx, firings)  # type: ignore[arg-type]
    seqs = [seq for seq, schedule_seq, _ in found if schedule_seq not in locked]
    if seqs:
        tx.connection.execute(delete(attempt).where(among(attempt.c.task_seq, seqs)))
        tx.connection.execute(delete(task).where(among(task.c.seq, seqs)))
    return seqs


def _next_us(tx: Transaction) -> int | None:
    return tx.connection.execute(reading.first(schema.task.c.prune_time_us, schema.IS_PRUNABLE)).scalar()


def _prune_firings(tx: Transaction, firings: list[tuple[int, int]]) -> set[int]:
    """Forgets which tasks these firings were, and until when something has been forgotten: a backfill must not fire
    them a second time. Answers the schedules that another is at, of which nothing may go now."""
    if not firings:
        return set()
    table, seqs = schema.schedule, sorted({seq for seq, _ in firings})
    those = select(table.c.schedule_seq).where(tx.sql.among(table.c.schedule_seq, seqs))
    mine = those.order_by(table.c.schedule_seq).with_for_update(key_share=True, skip_locked=True)
    ours = set(tx.connection.execute(mine).scalars())
    others = set(tx.connection.execute(those).scalars()) - ours  # what no longer exists is in nobody's way
    gone = [(seq, nominal_us) for seq, nominal_us in firings if seq not in others]
    _FORGET.run(tx.connection, gone)
    until: dict[int, int] = {}
    for seq, nominal_us in gone:
        until[seq] = max(nominal_us, until.get(seq, nominal_us))
    _REMEMBER.run(tx.connection, sorted(until.items()))
    return others
