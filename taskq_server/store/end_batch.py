"""The end of attempts, as one batch: rows are read together, decided one by one, and written together."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from sqlalchemy import select

from taskq_server.core.retry import RetryPolicy
from taskq_server.core.task import (
    AfterAttempt,
    DedupHold,
    Ended,
    Ending,
    EndStatus,
    Failure,
    Outcome,
    TaskState,
    after_attempt,
)
from taskq_server.store import rows, schema
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction

Item = TypeVar("Item")

MOST_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide what becomes of a task when an attempt ends."""

    retention_us: int
    max_lost_leases: int


class EndRow(NamedTuple):
    """A task, as much of it as its end needs."""

    seq: int
    task_id: bytes
    state: int
    attempt: int
    session_seq: int
    failed_attempts: int
    lost_leases: int
    retry_column: str | None
    route_id: int
    priority: int
    due_time_us: int
    lease_time_us: int
    processor_name: str
    dedup_key: str | None
    retention_us: int | None
    expire_time_us: int | None
    last_outcome: int | None

    @property
    def retry_policy(self) -> RetryPolicy:
        try:
            return rows.retry_policy_of(self.retry_column)
        except (TypeError, ValueError):  # a row that cannot be read must not hold up the others
            return RetryPolicy(max_attempts=1)


_COLUMNS = ", ".join(EndRow._fields).replace("retry_column", "retry_policy")
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


class EndBatch:
    """Tasks that were read together, what is decided about them, and the writing of it."""

    def __init__(self, memory: Memory, rules: Rules, tx: Transaction) -> None:
        self._memory = memory
        self._rules = rules
        self._tx = tx
        self.rows: dict[bytes, EndRow] = {}
        self._ended: dict[bytes, tuple[TaskState, int | None, int, Outcome]] = {}
        """What this batch has ended already, so that a report that it holds twice is answered as a repeated one."""
        self._succeeded: list[tuple[object, ...]] = []
        self._finished: list[tuple[object, ...]] = []
        self._rescheduled: list[tuple[object, ...]] = []
        self._kept: list[tuple[object, ...]] = []
        self._free_keys: list[bytes] = []

    def read(self, task_ids: set[bytes]) -> None:
        for some in _few(list(task_ids)):
            marks = ", ".join("?" * len(some))
            select = f"SELECT {_COLUMNS} FROM task WHERE task_id IN ({marks})"  # noqa: S608 - our own names
            for found in self._tx.connection.exec_driver_sql(select, tuple(some)):
                row = EndRow._make(found)
                self.rows[row.task_id] = row

    def end(self, ending: Ending) -> Ended | None:
        """Ends the attempt; None when its lease has ended already."""
        row = self.rows.get(ending.task_id)
        if row is None:
            return Ended(ending.task_id, ending.attempt, EndStatus.NOT_FOUND)
        held = row.state == TaskState.RUNNING and ending.task_id not in self._ended
        if not held or row.attempt != ending.attempt or row.session_seq != ending.session_seq:
            return None
        after = after_attempt(
            row, ending, self._tx.now_us, max_lost_leases=self._rules.max_lost_leases, random=random.random
        )
        if after.state is TaskState.SUCCEEDED:
            self._succeed(row, ending)
        elif after.state.finished:
            self.finish(row, after.state, after.failure, ending.outcome, after)
        else:
            self._reschedule(row, ending, after)
        due_time_us = None if after.state.finished else after.due_time_us
        self._ended[ending.task_id] = after.state, due_time_us, ending.session_seq, ending.outcome
        return Ended(ending.task_id, ending.attempt, EndStatus.ACCEPTED, after.state, due_time_us)

    def _succeed(self, row: EndRow, ending: Ending) -> None:
        self._succeeded.append(
            (self._tx.now_us, self._prune_time_us(row), *rows.payload_columns(ending.result), row.seq)
        )
        self._close(row)

    def finish(
        self,
        row: EndRow,
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

    def _reschedule(self, row: EndRow, ending: Ending, after: AfterAttempt) -> None:
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
        self._tx.wakes = True
        if after.failed_attempts == 0:
            self._memory.note_expiry(row.expire_time_us)
        self._tx.changed.append(row.task_id)

    def _close(self, row: EndRow) -> None:
        if row.dedup_key is not None:
            self._free_keys.append(row.task_id)
        self._tx.changed.append(row.task_id)

    def _prune_time_us(self, row: EndRow) -> int:
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
            for some in _few(self._free_keys):
                self._tx.connection.execute(dedup.delete().where(dedup.c.task_id.in_(some), over))

    def explain(self, stale: list[Ending]) -> Iterator[Ended]:
        """What to answer to those whose lease had ended: whether it was the same word that ended it."""
        if not stale:
            return
        attempt = schema.attempt
        asked = [(self.rows[ending.task_id].seq, ending.attempt) for ending in stale]
        history = select(attempt.c.task_seq, attempt.c.attempt, attempt.c.session_seq, attempt.c.outcome)
        kept: dict[tuple[int, int], tuple[int, int | None]] = {}
        for some in _few(asked):  # (task_seq, attempt) IN (VALUES ...) would read the whole table in SQLite
            seqs, numbers = {seq for seq, _ in some}, {number for _, number in some}
            found = self._tx.connection.execute(
                history.where(attempt.c.task_seq.in_(seqs), attempt.c.attempt.in_(numbers))
            )
            kept |= {(row.task_seq, row.attempt): (row.session_seq, row.outcome) for row in found}
        for ending in stale:
            row = self.rows[ending.task_id]
            unchanged = TaskState(row.state), row.due_time_us, row.session_seq, row.last_outcome
            state, due_time_us, session_seq, outcome = self._ended.get(ending.task_id, unchanged)
            recorded = kept.get((row.seq, ending.attempt))
            if recorded is None and row.attempt == ending.attempt:
                recorded = session_seq, outcome
            same = recorded == (ending.session_seq, ending.outcome)
            yield Ended(
                ending.task_id,
                ending.attempt,
                EndStatus.ALREADY_ACCEPTED if same else EndStatus.LEASE_LOST,
                state,
                None if state.finished else due_time_us,
            )


def _few(items: list[Item]) -> Iterator[list[Item]]:
    """A statement holds only so many variables."""
    for start in range(0, len(items), MOST_AT_ONCE):
        yield items[start : start + MOST_AT_ONCE]
