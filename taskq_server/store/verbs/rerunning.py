"""Finished tasks that run again: the tasks themselves, with their attempts so far, or new ones with another payload."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from taskq_server.core.task import Event, Outcome, TaskState, next_state
from taskq_server.store import schema
from taskq_server.store.many import Many
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.end_batch import KEEP_ATTEMPT

# What had to be started by a certain time has been asked for again since. What has succeeded begins from the start.
_RERUN = Many(
    schema.task,
    "UPDATE task SET state = 1, due_time_us = {now_us}, failed_attempts = 0, lost_leases = 0, expire_time_us = NULL, "
    "finish_time_us = NULL, prune_time_us = NULL, last_outcome = NULL, result = NULL, result_type = NULL, "
    "result_metadata = NULL, progress_fraction = NULL, progress_message = NULL, "
    "checkpoint = CASE WHEN task.state + 0 = 3 THEN NULL ELSE task.checkpoint END {from rows} WHERE task.seq = {seq}",
    shared=("now_us",),
)
_FAILED = Outcome.FAILED, Outcome.LOST, Outcome.TIMED_OUT


class Finished(NamedTuple):
    """A task, as much of it as is needed to let it run again."""

    seq: int
    task_id: bytes
    state: int
    route_id: int
    priority: int
    attempt: int
    session_seq: int
    processor_name: str
    lease_time_us: int
    finish_time_us: int
    last_outcome: int | None
    last_failure: str | None


COLUMNS = ", ".join(Finished._fields)


def rerun(memory: Memory, tx: Transaction, found: list[Finished]) -> None:
    """Schedules finished tasks again, due now. They are locked."""
    for one in found:
        next_state(TaskState(one.state), Event.RERUN)
    KEEP_ATTEMPT.run(tx.connection, [_attempt(one) for one in found if one.last_outcome is not None])
    _RERUN.run(tx.connection, [(one.seq,) for one in found], tx.now_us)
    places = {(one.route_id, one.priority): tx.now_us for one in found}
    tx.after_commit.append(partial(memory.waiting.note_all, places))
    tx.changed += [one.task_id for one in found]
    tx.wakes = True


def _attempt(one: Finished) -> tuple[Any, ...]:
    """The attempt that has finished it, which from now on is one of those before."""
    failure = one.last_failure if one.last_outcome in _FAILED else None
    return (
        one.seq, one.attempt, one.session_seq, one.processor_name, one.lease_time_us,
        max(one.finish_time_us, one.lease_time_us), one.last_outcome, failure,
    )  # fmt: skip
