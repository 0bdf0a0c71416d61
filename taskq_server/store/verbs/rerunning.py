"""Finished tasks that run again: the tasks themselves, with their attempts so far, or new ones with another payload."""

from __future__ import annotations

import json
import uuid
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import delete

from taskq_server.core.matching import Route
from taskq_server.core.recurring import HEADERS
from taskq_server.core.task import Event, NewTask, Outcome, Payload, TaskState, next_state
from taskq_server.store import rows, schema
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
    dedup_key: str | None


class Template(NamedTuple):
    """A task, as much of it as another one has in common that repeats it with another payload."""

    seq: int
    task_id: bytes
    state: int
    route_id: int
    priority: int
    retry_policy: str | None
    run_timeout_us: int | None
    headers: str | None
    tags: str | None
    retention_us: int | None

    def again(self, task_id: bytes, route: Route, payload: Payload) -> NewTask:
        """Without the key that this one may have held, and no firing of a schedule. ValueError and TypeError when it
        cannot be read."""
        headers = json.loads(self.headers) if self.headers else {}
        return NewTask(
            task_id,
            route,
            content_hash=task_id,
            payload=payload,
            priority=self.priority,
            retry_policy=rows.retry_policy_of(self.retry_policy),
            run_timeout_us=self.run_timeout_us,
            headers={name: value for name, value in headers.items() if name not in HEADERS} or None,
            tags=tuple(json.loads(self.tags)) if self.tags else (),
            retention_us=self.retention_us,
        )


def new_id(operation_id: bytes, task_id: bytes) -> bytes:
    """Of the task that repeats another one in an operation (RFC 9562, section 5.5)."""
    return uuid.uuid5(uuid.UUID(bytes=operation_id), task_id.hex()).bytes


def rerun(memory: Memory, tx: Transaction, found: list[Finished]) -> None:
    """Schedules finished tasks again, due now. They are locked. A key that one has let go of it does not take again."""
    for one in found:
        next_state(TaskState(one.state), Event.RERUN)
    KEEP_ATTEMPT.run(tx.connection, [_attempt(one) for one in found if one.last_outcome is not None])
    _RERUN.run(tx.connection, [(one.seq,) for one in found], tx.now_us)
    dedup = schema.dedup
    if keyed := [one.task_id for one in found if one.dedup_key is not None]:
        over = tx.sql.among(dedup.c.task_id, keyed), dedup.c.hold_until_us <= tx.now_us
        tx.connection.execute(delete(dedup).where(*over))
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
