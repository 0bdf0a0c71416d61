"""What stands in a row <-> what the domain calls it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from taskq_server.core.matching import Route, route_of
from taskq_server.core.retry import DEFAULT_RETRY_POLICY, Jitter, RetryPolicy
from taskq_server.core.task import Assignment, Failure, NewTask, Payload, Progress, Task, TaskState


def to_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def json_or_null(value: Mapping[str, str] | Sequence[str] | None) -> str | None:
    return to_json(value) if value else None


def payload_columns(payload: Payload | None) -> tuple[bytes | None, str | None, str | None]:
    """Data, content type, metadata."""
    if payload is None:
        return None, None, None
    return payload.data, payload.content_type, json_or_null(payload.metadata)


def payload_of(data: bytes | None, content_type: str | None, metadata: str | None) -> Payload | None:
    if data is None:
        return None
    return Payload(data, content_type or "", _object_of(metadata) if metadata else None)


def _object_of(column: str) -> dict[str, str]:
    found = json.loads(column)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def crc_of(data: bytes | None) -> int | None:
    return None if data is None else zlib.crc32(data)


def route_columns(route: Route) -> tuple[str, str]:
    return route.name, to_json([str(requirement) for requirement in route.requires])


def route_from(name: str, requires: str) -> Route:
    return route_of(name, json.loads(requires))


def retry_policy_column(policy: RetryPolicy) -> str | None:
    if policy == DEFAULT_RETRY_POLICY:
        return None
    return to_json(
        [
            policy.max_attempts,
            policy.initial_delay_us,
            policy.multiplier,
            policy.max_delay_us,
            int(policy.jitter),
            list(policy.non_retryable_errors),
        ]
    )


def retry_policy_of(column: str | None) -> RetryPolicy:
    if column is None:
        return DEFAULT_RETRY_POLICY
    max_attempts, initial_delay_us, multiplier, max_delay_us, jitter, errors = json.loads(column)
    return RetryPolicy(max_attempts, initial_delay_us, multiplier, max_delay_us, Jitter(jitter), tuple(errors))


def failure_column(failure: Failure | None) -> str | None:
    if failure is None:
        return None
    return to_json([failure.error_type, failure.message, failure.stack, failure.attempt, failure.failure_time_us])


def failure_of(column: str | None) -> Failure | None:
    return None if column is None else Failure(*json.loads(column))


TASK_COLUMNS = (
    "task_id", "route_id", "state", "payload", "content_type", "payload_metadata", "due_time_us", "enqueue_time_us",
    "priority", "attempt", "failed_attempts", "retry_policy", "run_timeout_us", "expire_time_us", "headers", "tags",
    "retention_us", "lease_time_us", "processor_name", "finish_time_us", "result", "result_type", "result_metadata",
    "last_failure", "progress_fraction", "progress_message",
)  # fmt: skip


def _legible(read: Callable[[Any], Any], column: object, otherwise: Any) -> Any:
    """What a column says; one that cannot be read does not hide the rest of its row, nor other rows."""
    try:
        return read(column) if column else otherwise
    except (TypeError, ValueError):
        return otherwise


def _words(column: str) -> tuple[str, ...]:
    return tuple(json.loads(column))


def tags_of(column: str | None) -> tuple[str, ...]:
    """None of a column that cannot be read."""
    return _legible(_words, column, ())  # type: ignore[no-any-return]


def legible_failure(column: str | None) -> Failure | None:
    """None also for one that cannot be read."""
    return _legible(failure_of, column, None)  # type: ignore[no-any-return]


def _payload_of_row(data: bytes | None, content_type: object, metadata: object) -> Payload | None:
    if data is None:
        return None
    return Payload(data, content_type if isinstance(content_type, str) else "", _legible(_object_of, metadata, None))


def task_of(row: Sequence[Any], route: Route) -> Task:
    """A Task from a row of TASK_COLUMNS. What cannot be read in it is left out."""
    (
        task_id, _, state, payload, content_type, payload_metadata, due_time_us, enqueue_time_us,
        priority, attempt, failed_attempts, retry_policy, run_timeout_us, expire_time_us, headers, tags,
        retention_us, lease_time_us, processor_name, finish_time_us, result, result_type, result_metadata,
        last_failure, progress_fraction, progress_message,
    ) = row  # fmt: skip
    return Task(
        task_id=task_id,
        route=route,
        state=TaskState(state),
        payload=_payload_of_row(payload, content_type, payload_metadata),
        due_time_us=due_time_us,
        enqueue_time_us=enqueue_time_us,
        priority=priority,
        attempt=attempt,
        failed_attempts=failed_attempts,
        retry_policy=_legible(retry_policy_of, retry_policy, DEFAULT_RETRY_POLICY),
        run_timeout_us=run_timeout_us,
        expire_time_us=expire_time_us,
        headers=_legible(_object_of, headers, {}),
        tags=_legible(_words, tags, ()),
        retention_us=retention_us,
        lease_time_us=lease_time_us,
        processor_name=processor_name or "",
        finish_time_us=finish_time_us,
        result=_payload_of_row(result, result_type, result_metadata),
        last_failure=_legible(failure_of, last_failure, None),
        progress=None if progress_fraction is None else Progress(progress_fraction, progress_message or ""),
    )


ASSIGNMENT_COLUMNS = (
    "seq", "task_id", "session_seq", "route_id", "attempt", "payload", "payload_crc", "content_type",
    "payload_metadata", "due_time_us", "enqueue_time_us", "lease_time_us", "run_timeout_us", "priority", "headers",
    "tags", "last_failure", "checkpoint", "checkpoint_type", "checkpoint_metadata", "failed_attempts", "retry_policy",
    "dedup_key",
)  # fmt: skip
SEQ = ASSIGNMENT_COLUMNS.index("seq")


def assignment_of(row: Sequence[Any], routes: Mapping[int, Route]) -> Assignment | None:
    """An Assignment from a row of ASSIGNMENT_COLUMNS; None when it cannot be read, or its payload no longer has its
    checksum."""
    try:
        return _assignment_of(row, routes)
    except (TypeError, ValueError):
        return None


def _assignment_of(row: Sequence[Any], routes: Mapping[int, Route]) -> Assignment | None:
    (
        seq, task_id, session_seq, route_id, attempt, payload, payload_crc, content_type,
        payload_metadata, due_time_us, enqueue_time_us, lease_time_us, run_timeout_us, priority, headers,
        tags, last_failure, checkpoint, checkpoint_type, checkpoint_metadata, failed_attempts, retry_policy,
        dedup_key,
    ) = row  # fmt: skip
    if crc_of(payload) != payload_crc or bytes in (type(content_type), type(checkpoint_type), type(dedup_key)):
        return None
    return Assignment(
        seq,
        task_id,
        session_seq,
        routes[route_id],
        attempt,
        payload_of(payload, content_type, payload_metadata),
        due_time_us,
        enqueue_time_us,
        lease_time_us,
        run_timeout_us,
        priority,
        _object_of(headers) if headers else None,
        tuple(json.loads(tags)) if tags else (),
        failure_of(last_failure),
        payload_of(checkpoint, checkpoint_type, checkpoint_metadata),
        failed_attempts,
        retry_policy_of(retry_policy).max_attempts,
        dedup_key or "",
    )


INSERT_COLUMNS = (
    "seq", "task_id", "content_hash", "route_id", "state", "priority", "due_time_us", "enqueue_time_us", "payload",
    "payload_crc", "content_type", "payload_metadata", "headers", "tags", "retry_policy", "run_timeout_us",
    "expire_time_us", "retention_us", "dedup_key", "schedule_seq", "nominal_us",
)  # fmt: skip


_NO_FIRING = None, None


def insert_row(seq: int, task: NewTask, route_id: int, due_time_us: int, now_us: int) -> tuple[Any, ...]:
    """A row of INSERT_COLUMNS."""
    data, content_type, metadata = payload_columns(task.payload)
    return (
        seq,
        task.task_id,
        task.content_hash,
        route_id,
        1,
        task.priority,
        due_time_us,
        now_us,
        data,
        crc_of(data),
        content_type,
        metadata,
        json_or_null(task.headers),
        json_or_null(task.tags),
        retry_policy_column(task.retry_policy),
        task.run_timeout_us,
        task.expire_time_us,
        task.retention_us,
        task.dedup.key if task.dedup else None,
        *(task.firing or _NO_FIRING),
    )
