"""How attempts end, and tasks with them: reports, cancels, lost sessions, timeouts.

Every end goes the same way: the row is read, `core.task.after_attempt` decides, and the change is written. There is one
writer, so nothing comes between.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Row, select, tuple_

from taskq_server.core.task import (
    EXPIRED,
    AfterAttempt,
    DedupHold,
    Ended,
    Ending,
    EndStatus,
    Event,
    Failure,
    Outcome,
    RunningTask,
    TaskState,
    after_attempt,
    next_state,
)
from taskq_server.store import rows, schema
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction

_COLUMNS = (
    "seq", "task_id", "state", "attempt", "session_seq", "failed_attempts", "lost_leases", "retry_policy", "route_id",
    "priority", "due_time_us", "lease_time_us", "processor_name", "dedup_key", "retention_us", "expire_time_us",
    "last_outcome",
)  # fmt: skip
_SUCCEED = (
    "UPDATE task SET state = 3, finish_time_us = ?, prune_time_us = ?, run_deadline_us = NULL, last_outcome = 1, "
    "result = ?, result_type = ?, result_metadata = ? WHERE seq = ?"
)
_FINISH = (
    "UPDATE task SET state = ?, finish_time_us = ?, prune_time_us = ?, run_deadline_us = NULL, last_outcome = ?, "
    "last_failure = coalesce(?, last_failure), failed_attempts = ?, lost_leases = ? WHERE seq = ?"
)
_RESCHEDULE = (
    "UPDATE task SET state = 1, due_time_us = ?, run_deadline_us = NULL, progress_fraction = NULL, "
    "progress_message = NULL, last_failure = coalesce(?, last_failure), failed_attempts = ?, lost_leases = ? "
    "WHERE seq = ?"
)
_KEEP_ATTEMPT = (
    "INSERT INTO attempt (task_seq, attempt, session_seq, processor_name, lease_time_us, end_time_us, outcome, "
    "failure) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
MOST_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide what becomes of a task when an attempt ends."""

    retention_us: int
    max_lost_leases: int


def end(memory: Memory, rules: Rules, tx: Transaction, endings: list[Ending]) -> list[Ended]:
    """Ends attempts, each fenced by (session, attempt): one whose lease has ended changes nothing, and is told so."""
    batch = _Batch(memory, rules, tx)
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
    """Cancels what waits or runs; what is finished stays as it is."""
    batch = _Batch(memory, rules, tx)
    batch.read(set(task_ids))
    answers = []
    for task_id in task_ids:
        row = batch.rows.get(task_id)
        if row is None:
            answers.append(Cancelled(None))
        elif row.state == TaskState.SCHEDULED:
            batch.finish(row, next_state(TaskState.SCHEDULED, Event.CANCEL), None)
            answers.append(Cancelled(TaskState.SCHEDULED))
        elif row.state == TaskState.RUNNING:
            batch.end(Ending(task_id, row.attempt, row.session_seq, Outcome.CANCELLED))
            answers.append(Cancelled(TaskState.RUNNING, row.session_seq, row.attempt))
        else:
            answers.append(Cancelled(TaskState(row.state)))
    batch.write()
    return answers


def expire(memory: Memory, rules: Rules, tx: Transaction) -> None:
    """Fails what was not started in time, the first few hundred at once."""
    task = schema.task
    batch = _Batch(memory, rules, tx)
    late = (
        select(task.c.task_id)
        .where(schema.IS_EXPIRING, task.c.expire_time_us <= tx.now_us)
        .order_by(task.c.expire_time_us)
        .limit(MOST_AT_ONCE)
    )
    batch.read(set(tx.connection.execute(late).scalars()))
    failure = Failure(EXPIRED, "not started before its expire_time", "", 0, tx.now_us)
    for row in list(batch.rows.values()):
        batch.finish(row, next_state(TaskState.SCHEDULED, Event.EXPIRE), failure)
    batch.write()
    following = select(task.c.expire_time_us).where(schema.IS_EXPIRING).order_by(task.c.expire_time_us).limit(1)
    before = memory.next_expiry_us
    memory.next_expiry_us = tx.connection.execute(following).scalar()
    tx.undo.append(lambda: memory.note_expiry(before))


class _Batch:
    """Tasks that were read together, what is decided about them, and the writing of it."""

    def __init__(self, memory: Memory, rules: Rules, tx: Transaction) -> None:
        self._memory = memory
        self._rules = rules
        self._tx = tx
        self.rows: dict[bytes, Row[Any]] = {}
        self._ended: dict[bytes, tuple[TaskState, int | None]] = {}
        """What this batch has ended already, so that a report that it holds twice is answered as a repeated one."""
        self._outcomes: dict[bytes, tuple[int, Outcome]] = {}
        self._succeeded: list[tuple[object, ...]] = []
        self._finished: list[tuple[object, ...]] = []
        self._rescheduled: list[tuple[object, ...]] = []
        self._kept: list[tuple[object, ...]] = []
        self._free_keys: list[bytes] = []

    def read(self, task_ids: set[bytes]) -> None:
        ids = tuple(task_ids)
        for start in range(0, len(ids), MOST_AT_ONCE):
            some = ids[start : start + MOST_AT_ONCE]
            marks = ", ".join("?" * len(some))
            found = self._tx.connection.exec_driver_sql(
                f"SELECT {', '.join(_COLUMNS)} FROM task WHERE task_id IN ({marks})",  # noqa: S608 - our own names
                some,
            )
            self.rows |= {row.task_id: row for row in found}

    def end(self, ending: Ending) -> Ended | None:
        """Ends the attempt; None when its lease has ended already."""
        row = self.rows.get(ending.task_id)
        if row is None:
            return Ended(ending.task_id, ending.attempt, EndStatus.NOT_FOUND)
        held = row.state == TaskState.RUNNING and ending.task_id not in self._ended
        if not held or row.attempt != ending.attempt or row.session_seq != ending.session_seq:
            return None
        task = RunningTask(
            row.seq,
            row.attempt,
            row.due_time_us,
            row.failed_attempts,
            row.lost_leases,
            rows.retry_policy_of(row.retry_policy),
        )
        after = after_attempt(
            task, ending, self._tx.now_us, max_lost_leases=self._rules.max_lost_leases, random=random.random
        )
        if after.state is TaskState.SUCCEEDED:
            self._succeed(row, ending)
        elif after.state.finished:
            self.finish(row, after.state, after.failure, ending.outcome, after)
        else:
            self._reschedule(row, ending, after)
        due_time_us = None if after.state.finished else after.due_time_us
        self._ended[ending.task_id] = after.state, due_time_us
        self._outcomes[ending.task_id] = ending.session_seq, ending.outcome
        return Ended(ending.task_id, ending.attempt, EndStatus.ACCEPTED, after.state, due_time_us)

    def _succeed(self, row: Row[Any], ending: Ending) -> None:
        self._succeeded.append(
            (self._tx.now_us, self._prune_time_us(row), *rows.payload_columns(ending.result), row.seq)
        )
        self._close(row)

    def finish(
        self,
        row: Row[Any],
        state: TaskState,
        failure: Failure | None,
        outcome: Outcome | None = None,
        after: AfterAttempt | None = None,
    ) -> None:
        """Finishes a task that waits, or by an attempt that did not succeed."""
        counts = (row.failed_attempts, row.lost_leases) if after is None else (after.failed_attempts, after.lost_leases)
        self._finished.append(
            (
                int(state),
                self._tx.now_us,
                self._prune_time_us(row),
                outcome,
                rows.failure_column(failure),
                *counts,
                row.seq,
            )
        )
        self._close(row)

    def _reschedule(self, row: Row[Any], ending: Ending, after: AfterAttempt) -> None:
        failure = rows.failure_column(after.failure)
        self._rescheduled.append((after.due_time_us, failure, after.failed_attempts, after.lost_leases, row.seq))
        self._kept.append(
            (
                row.seq,
                row.attempt,
                row.session_seq,
                row.processor_name,
                row.lease_time_us,
                self._tx.now_us,
                int(ending.outcome),
                failure,
            )
        )
        self._memory.waiting.note(row.route_id, row.priority, after.due_time_us)
        if after.failed_attempts == 0:
            self._memory.note_expiry(row.expire_time_us)
        self._tx.changed.append(row.task_id)

    def _close(self, row: Row[Any]) -> None:
        if row.dedup_key is not None:
            self._free_keys.append(row.task_id)
        self._tx.changed.append(row.task_id)

    def _prune_time_us(self, row: Row[Any]) -> int:
        return self._tx.now_us + (self._rules.retention_us if row.retention_us is None else row.retention_us)

    def write(self) -> None:
        for statement, values in (
            (_SUCCEED, self._succeeded),
            (_FINISH, self._finished),
            (_RESCHEDULE, self._rescheduled),
            (_KEEP_ATTEMPT, self._kept),
        ):
            if values:
                self._tx.connection.exec_driver_sql(statement, values)
        if self._free_keys:
            dedup = schema.dedup
            over = (dedup.c.hold == DedupHold.UNFINISHED) | (dedup.c.hold_until_us <= self._tx.now_us)
            self._tx.connection.execute(dedup.delete().where(dedup.c.task_id.in_(self._free_keys), over))

    def explain(self, stale: list[Ending]) -> Iterator[Ended]:
        """What to answer to those whose lease had ended: whether it was the same word that ended it."""
        if not stale:
            return
        attempt = schema.attempt
        asked = [(self.rows[ending.task_id].seq, ending.attempt) for ending in stale]
        history = select(attempt.c.task_seq, attempt.c.attempt, attempt.c.session_seq, attempt.c.outcome)
        found = self._tx.connection.execute(history.where(tuple_(attempt.c.task_seq, attempt.c.attempt).in_(asked)))
        kept = {(row.task_seq, row.attempt): (row.session_seq, row.outcome) for row in found}
        for ending in stale:
            row = self.rows[ending.task_id]
            state, due_time_us = self._ended.get(ending.task_id, (TaskState(row.state), row.due_time_us))
            if (recorded := kept.get((row.seq, ending.attempt))) is None and row.attempt == ending.attempt:
                recorded = self._outcomes.get(ending.task_id, (row.session_seq, row.last_outcome))
            same = recorded == (ending.session_seq, ending.outcome)
            yield Ended(
                ending.task_id,
                ending.attempt,
                EndStatus.ALREADY_ACCEPTED if same else EndStatus.LEASE_LOST,
                state,
                None if state.finished else due_time_us,
            )
