"""The end of attempts, as one batch: rows are read together, decided one by one, and written together."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import NamedTuple

from sqlalchemy import select

from taskq_server.core.fingerprint import alike
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
from taskq_server.store.few import few
from taskq_server.store.many import Many
from taskq_server.store.memory import Memory
from taskq_server.store.sql import NewSignal, SignalKind, Succeeded
from taskq_server.store.transaction import Again, Failed, Transaction


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
_SUCCEED = Many(
    schema.task,
    "UPDATE task SET state = 3, finish_time_us = {finish_time_us}, prune_time_us = {prune_time_us}, "
    "run_deadline_us = NULL, last_outcome = 1, result = {result}, result_type = {result_type}, "
    "result_metadata = {result_metadata} {from rows} WHERE task.seq = {seq}",
)
_FINISH = Many(
    schema.task,
    "UPDATE task SET state = {state}, finish_time_us = {finish_time_us}, prune_time_us = {prune_time_us}, "
    "run_deadline_us = NULL, last_outcome = {last_outcome}, "
    "last_failure = coalesce({last_failure}, task.last_failure), failed_attempts = {failed_attempts}, "
    "lost_leases = {lost_leases}, failure_group = {failure_group} {from rows} WHERE task.seq = {seq}",
)
_RESCHEDULE = Many(
    schema.task,
    "UPDATE task SET state = 1, due_time_us = {due_time_us}, run_deadline_us = NULL, progress_fraction = NULL, "
    "progress_message = NULL, last_failure = coalesce({last_failure}, task.last_failure), "
    "failed_attempts = {failed_attempts}, lost_leases = {lost_leases} {from rows} WHERE task.seq = {seq}",
)
KEEP_ATTEMPT = Many.insert(
    schema.attempt,
    (
        "task_seq", "attempt", "session_seq", "processor_name", "lease_time_us", "end_time_us", "outcome", "failure",
    ),
    order_by=("task_seq", "attempt"),
)  # fmt: skip

_SUCCEEDED = Outcome.SUCCEEDED.name.lower()
_TOLD = {Outcome.TIMED_OUT: SignalKind.REVOKED}
"""What another server is told of the end of an attempt, if not simply that it is settled."""


class EndBatch:
    """Tasks that were read together, what is decided about them, and the writing of it."""

    def __init__(self, memory: Memory, rules: Rules, tx: Transaction) -> None:
        self._memory = memory
        self._rules = rules
        self._tx = tx
        self.rows: dict[bytes, EndRow] = {}
        self._own: set[int] = set()
        """Sessions to which this server pushes."""
        self._ended: dict[bytes, tuple[TaskState, int | None, int, Outcome]] = {}
        """What this batch has ended already, so that a report that it holds twice is answered as a repeated one."""
        self._succeeded: list[tuple[object, ...]] = []
        self._finished: list[tuple[object, ...]] = []
        self._rescheduled: list[tuple[object, ...]] = []
        self._kept: list[tuple[object, ...]] = []
        self._free_keys: list[bytes] = []
        self._due: dict[tuple[int, int], int] = {}
        """The earliest of what is scheduled again, by place."""
        self._expires_us: list[int] = []
        self._signals: list[NewSignal] = []

    def hold(self, session_seqs: set[int]) -> None:
        """Keeps sessions where they are, so that it is clear which server must hear what becomes of their attempts."""
        if session_seqs:
            self._own |= self._tx.sql.own(self._tx, session_seqs)

    def succeed(self, endings: list[Ending]) -> bool:
        """If all are successes of tasks whose numbers are known, writes them in one statement. Not if only some are:
        the others' rows would be locked after these, and whoever locks the same in order would wait in a circle."""
        known = {
            ending.task_id: Succeeded(
                *rows.payload_columns(ending.result), ending.seq, ending.task_id, ending.attempt, ending.session_seq
            )
            for ending in endings
            if ending.seq is not None and ending.outcome is Outcome.SUCCEEDED
        }
        if len(known) < len(endings):
            return False
        in_order = sorted(known.values(), key=attrgetter("seq"))
        if self._tx.sql.succeed(self._tx, in_order, self._rules.retention_us) < len(known):
            for ending in endings:  # one has lost its lease, or its session has moved: their rows tell which
                ending.seq = None
            raise Again
        self._tx.changed += known
        names = Counter({ending.task_id: ending.name for ending in endings}.values())
        self._tx.ended.update({(name, _SUCCEEDED, _SUCCEEDED): count for name, count in names.items()})
        return True

    def read(self, task_ids: set[bytes]) -> None:
        """Reads the tasks, and lets nobody else change them."""
        if not task_ids:
            return
        for found in self._tx.sql.read_to_end(self._tx, _COLUMNS, list(task_ids)):
            row = EndRow._make(found)
            self.rows[row.task_id] = row

    def end(self, ending: Ending, told: SignalKind | None = None) -> Ended | None:
        """Ends the attempt; None when its lease has ended already. Should another server push to its session, that one
        is `told`."""
        row = self.rows.get(ending.task_id)
        if row is None:
            return Ended(ending.task_id, ending.attempt, EndStatus.NOT_FOUND)
        held = row.state == TaskState.RUNNING and ending.task_id not in self._ended
        if not held or row.attempt != ending.attempt or row.session_seq != ending.session_seq:
            if 0 < ending.attempt <= row.attempt:
                self._tell(ending, SignalKind.SETTLED)  # its processor has let go of it, which is news
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
            if after.failure is not None:
                self._note(row, after.failure)
        due_time_us = None if after.state.finished else after.due_time_us
        self._ended[ending.task_id] = after.state, due_time_us, ending.session_seq, ending.outcome
        self._count(row, ending.outcome, after.state)
        self._tell(ending, told or _TOLD.get(ending.outcome, SignalKind.SETTLED))
        return Ended(ending.task_id, ending.attempt, EndStatus.ACCEPTED, after.state, due_time_us)

    def _count(self, row: EndRow, outcome: Outcome | None, state: TaskState) -> None:
        name = self._memory.route(self._tx.connection, row.route_id).name
        ended_by = "" if outcome is None else outcome.name.lower()
        self._tx.ended[name, ended_by, state.name.lower() if state.finished else ""] += 1

    def _tell(self, ending: Ending, kind: SignalKind) -> None:
        if ending.session_seq not in self._own:
            self._signals.append(NewSignal(ending.session_seq, kind, ending.task_id, ending.attempt))

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
        if after is None:
            self._count(row, outcome, state)
        counts = (row.failed_attempts, row.lost_leases) if after is None else (after.failed_attempts, after.lost_leases)
        group = None if failure is None else self._note(row, failure)
        self._finished.append(
            (
                int(state),
                self._tx.now_us,
                self._prune_time_us(row),
                outcome,
                rows.failure_column(failure),
                *counts,
                group,
                row.seq,
            )
        )
        self._close(row)

    def _note(self, row: EndRow, failure: Failure) -> str:
        """Lets a failure be counted with those that are like it; answers their fingerprint."""
        name = self._memory.route(self._tx.connection, row.route_id).name
        found = alike(name, failure.error_type, failure.message, failure.stack)
        who = row.task_id, row.processor_name or "", row.session_seq or 0
        self._tx.failures.append(Failed(name, failure.error_type, failure.message, found, *who))
        return found.fingerprint

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
                max(self._tx.now_us, row.lease_time_us),  # it may have been leased since this transaction began
                int(ending.outcome),
                failure,
            )
        )
        place = row.route_id, row.priority
        self._due[place] = min(after.due_time_us, self._due.get(place, after.due_time_us))
        self._tx.wakes = True
        if after.failed_attempts == 0 and row.expire_time_us is not None:
            self._expires_us.append(row.expire_time_us)
        self._tx.changed.append(row.task_id)

    def _close(self, row: EndRow) -> None:
        if row.dedup_key is not None:
            self._free_keys.append(row.task_id)
        self._tx.changed.append(row.task_id)

    def _prune_time_us(self, row: EndRow) -> int:
        return self._tx.now_us + (self._rules.retention_us if row.retention_us is None else row.retention_us)

    def write(self) -> None:
        connection = self._tx.connection
        _SUCCEED.run(connection, self._succeeded)
        _FINISH.run(connection, self._finished)
        _RESCHEDULE.run(connection, self._rescheduled)
        KEEP_ATTEMPT.run(connection, self._kept)
        self._tx.sql.tell(self._tx, self._signals)
        self._release_keys()
        for (route_id, priority), due_time_us in self._due.items():
            self._tx.after_commit.append(partial(self._memory.waiting.note, route_id, priority, due_time_us))
        if self._expires_us:
            self._tx.after_commit.append(partial(self._memory.note_expiry, min(self._expires_us)))

    def _release_keys(self) -> None:
        if not self._free_keys:
            return
        dedup = schema.dedup
        over = (dedup.c.hold == DedupHold.UNFINISHED) | (dedup.c.hold_until_us <= self._tx.now_us)
        for some in few(self._free_keys):
            self._tx.connection.execute(dedup.delete().where(self._tx.sql.among(dedup.c.task_id, some), over))

    def explain(self, stale: list[Ending]) -> Iterator[Ended]:
        """What to answer to those whose lease had ended: whether it was the same word that ended it."""
        if not stale:
            return
        attempt, among = schema.attempt, self._tx.sql.among
        asked = [(self.rows[ending.task_id].seq, ending.attempt) for ending in stale]
        history = select(attempt.c.task_seq, attempt.c.attempt, attempt.c.session_seq, attempt.c.outcome)
        kept: dict[tuple[int, int], tuple[int, int | None]] = {}
        for some in few(asked):  # (task_seq, attempt) IN (VALUES ...) would read the whole table in SQLite
            seqs, numbers = {seq for seq, _ in some}, {number for _, number in some}
            found = self._tx.connection.execute(
                history.where(among(attempt.c.task_seq, seqs), among(attempt.c.attempt, numbers))
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
