"""How attempts end, and tasks with them: reports, cancels, lost sessions, timeouts.

Every end goes the same way: the row is read, `core.task.after_attempt` decides, and the change is written. Nothing
comes between: there is one writer, or the rows are locked.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import select

from taskq_server.core.task import (
    EXPIRED,
    Ended,
    Ending,
    EndStatus,
    Event,
    Failure,
    Outcome,
    TaskState,
    next_state,
)
from taskq_server.store import schema
from taskq_server.store.few import MOST_AT_ONCE
from taskq_server.store.memory import ANYWHERE, Memory
from taskq_server.store.sql import SignalKind
from taskq_server.store.transaction import Again, Transaction
from taskq_server.store.verbs import reading
from taskq_server.store.verbs.auditing import Audit
from taskq_server.store.verbs.end_batch import EndBatch, Rules
from taskq_server.task_id import to_text

MOST_ROUNDS = 4
UNFINISHED = TaskState.SCHEDULED, TaskState.RUNNING


def end(memory: Memory, rules: Rules, tx: Transaction, endings: list[Ending]) -> list[Ended]:
    """Ends attempts, each fenced by (session, attempt): one whose lease has ended changes nothing, and is told so."""
    batch = EndBatch(memory, rules, tx)
    if batch.succeed(endings):
        return [Ended(one.task_id, one.attempt, EndStatus.ACCEPTED, TaskState.SUCCEEDED) for one in endings]
    batch.hold({ending.session_seq for ending in endings})
    batch.read({ending.task_id for ending in endings})
    first = [batch.end(ending) for ending in endings]
    batch.write()
    stale = batch.explain([ending for ending, ended in zip(endings, first, strict=True) if ended is None])
    return [next(stale) if ended is None else ended for ended in first]


class Cancelled(NamedTuple):
    """What a cancel met: the state before, and the attempt that it stopped, if any. None: no such task."""

    state_before: TaskState | None
    session_seq: int | None = None
    attempt: int = 0


def cancel(memory: Memory, rules: Rules, tx: Transaction, task_ids: list[bytes]) -> list[Cancelled]:
    """Cancels what waits or runs, by the word of those who ask; what is finished stays as it is."""
    cancelled, audit, seen = cancel_all(memory, rules, tx, task_ids), Audit(tx), set()
    for i, (task_id, one) in enumerate(zip(task_ids, cancelled, strict=True)):
        before = one.state_before
        if before is not None and not before.finished and task_id not in seen:
            seen.add(task_id)
            after = {"state": TaskState.CANCELLED.name}
            audit.note(i, "task", to_text(task_id), {"state": before.name}, after)
    audit.write()
    return cancelled


def cancel_all(
    memory: Memory, rules: Rules, tx: Transaction, task_ids: list[bytes], states: Collection[TaskState] = UNFINISHED
) -> list[Cancelled]:
    """Cancels what waits or runs, if it is in one of these states; all else stays as it is."""
    batch = EndBatch(memory, rules, tx)
    task = schema.task
    asked = select(task.c.session_seq, task.c.state).where(tx.sql.among(task.c.task_id, task_ids))
    holders = {session_seq for session_seq, state in tx.connection.execute(asked) if state == TaskState.RUNNING}
    batch.hold(holders)  # before the tasks, as whoever ends a session does
    batch.read(set(task_ids))
    if any(row.state == TaskState.RUNNING and row.session_seq not in holders for row in batch.rows.values()):
        raise Again
    answers = []
    for task_id in task_ids:
        row = batch.rows.get(task_id)
        if row is None:
            answers.append(Cancelled(None))
        elif row.state not in states:
            answers.append(Cancelled(TaskState(row.state)))
        elif row.state == TaskState.SCHEDULED:
            batch.finish(row, next_state(TaskState.SCHEDULED, Event.CANCEL), None)
            answers.append(Cancelled(TaskState.SCHEDULED))
        elif row.state == TaskState.RUNNING:
            batch.end(Ending(task_id, row.attempt, row.session_seq, Outcome.CANCELLED), SignalKind.CANCELLED)
            answers.append(Cancelled(TaskState.RUNNING, row.session_seq, row.attempt))
        else:
            answers.append(Cancelled(TaskState(row.state)))
    batch.write()
    return answers


def expire(memory: Memory, rules: Rules, tx: Transaction) -> int | None:
    """Fails what was not started in time: not more than others can wait for, and the rest the next time. Answers when
    the next expires."""
    look = memory.expiring.look()
    tx.after_rollback.append(look.abandon)
    first_us = tx.connection.execute(reading.FIRST_EXPIRY).scalar()
    if first_us is not None and first_us <= tx.now_us:
        for _ in range(MOST_ROUNDS):
            if _expire_some(memory, rules, tx) < MOST_AT_ONCE:
                break
        first_us = tx.connection.execute(reading.FIRST_EXPIRY).scalar()
    look.found[ANYWHERE] = first_us
    tx.after_commit.append(look.end)
    return first_us


def _expire_some(memory: Memory, rules: Rules, tx: Transaction) -> int:
    task = schema.task
    late = (
        select(task.c.task_id)
        .where(schema.IS_EXPIRING, task.c.expire_time_us <= tx.now_us)
        .order_by(task.c.expire_time_us)
        .limit(MOST_AT_ONCE)
        .with_for_update(key_share=True, skip_locked=True)
    )
    batch = EndBatch(memory, rules, tx)
    batch.read(set(tx.connection.execute(late).scalars()))
    failure = Failure(EXPIRED, "not started before its expire_time", "", 0, tx.now_us)
    for row in batch.rows.values():
        batch.finish(row, next_state(TaskState.SCHEDULED, Event.EXPIRE), failure)
    batch.write()
    return len(batch.rows)
