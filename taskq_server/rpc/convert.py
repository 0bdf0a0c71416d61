"""Wire <-> domain: what schedulers send and are answered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq.v1 import task_pb2
from taskq_server import task_id
from taskq_server.core.matching import Route, route_of
from taskq_server.core.retry import DEFAULT_RETRY_POLICY, Jitter, RetryPolicy
from taskq_server.core.task import (
    Dedup,
    DedupConflict,
    DedupHold,
    Enqueued,
    Failure,
    NewTask,
    Payload,
    Progress,
    Task,
)
from taskq_server.rpc.checks import DAY_US, NAME, Faults, items

MOST_TASKS = 1_000
TRACE_HEADERS = "traceparent", "tracestate", "baggage"
"""By the W3C."""
_NO_ROUTE = Route("")


def timestamp(time_us: int) -> Timestamp:
    return Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1_000)


def duration(span_us: int) -> Duration:
    return Duration(seconds=span_us // 1_000_000, nanos=span_us % 1_000_000 * 1_000)


class Shared:
    """What many messages of a batch have in common, encoded once and merged into each: a task to be pushed takes 2.8 us
    this way instead of 4.4 us, field by field."""

    def __init__(self, make: Callable[..., Message]) -> None:
        self._make = make
        self._encoded: dict[tuple[object, ...], bytes] = {}

    def of(self, *fields: Any) -> bytes:
        """The encoding of what `make` makes of these."""
        encoded = self._encoded.get(fields)
        if encoded is None:
            encoded = self._encoded[fields] = self._make(*fields).SerializeToString()
        return encoded


def new_tasks(messages: Sequence[scheduler_pb2.NewTask], most_payload_bytes: int) -> list[NewTask]:
    """The tasks of an Enqueue; InvalidFields names every fault of every task."""
    return items("tasks", messages, 1, MOST_TASKS, lambda faults, one: new_task(faults, one, most_payload_bytes))


def new_task(faults: Faults, message: scheduler_pb2.NewTask, most_payload_bytes: int) -> NewTask:
    raw_id = faults.uuid("task_id", message.task_id) if message.task_id else task_id.new()
    message.ClearField("task_id")  # the id is not content: it may be spelt in either case
    # nor is where it was enqueued from: a retry may belong to another trace
    trace = _take_trace(message) if message.headers else None
    task = NewTask(
        raw_id,
        _route(faults, message),
        hashlib.blake2b(message.SerializeToString(deterministic=True), digest_size=16).digest(),
    )
    if trace:
        message.headers.update(trace)
    given = message.WhichOneof("input")
    if given == "payload":
        task.payload = payload_of(faults, "payload", message.payload, most_payload_bytes)
    elif given == "args":
        task.payload = _args(faults, "args", message, most_payload_bytes)
    when = message.WhichOneof("when")
    if when == "due_time":
        task.due_time_us = faults.time_us("due_time", message.due_time)
    elif when == "delay":
        task.delay_us = faults.span_us("delay", message.delay, 0, 3650 * DAY_US, "0 to 3,650 days")
    if message.priority:
        faults.number("priority", message.priority, 0, 9)
        task.priority = message.priority
    if message.headers:
        task.headers = faults.string_map("headers", message.headers)
    if message.tags:
        task.tags = _tags(faults, "tags", message.tags)
    _optional_messages(faults, message, task)
    return task


def _take_trace(message: scheduler_pb2.NewTask) -> dict[str, str]:
    return {key: message.headers.pop(key) for key in TRACE_HEADERS if key in message.headers}


def _optional_messages(faults: Faults, message: scheduler_pb2.NewTask, task: NewTask) -> None:
    if message.HasField("dedup"):
        task.dedup = _dedup(faults, "dedup.", message.dedup, message.name)
    if message.HasField("retry_policy"):
        task.retry_policy = _retry_policy(faults, "retry_policy.", message.retry_policy)
    if message.HasField("run_timeout"):
        rule = "1 ms to 365 days"
        task.run_timeout_us = faults.span_us("run_timeout", message.run_timeout, 1_000, 365 * DAY_US, rule)
    if message.HasField("expire_time"):
        task.expire_time_us = faults.time_us("expire_time", message.expire_time)
        if task.due_time_us is not None and task.expire_time_us <= task.due_time_us:
            faults.add("expire_time", "must be after due_time")
    if message.HasField("retention"):
        rule = "0 to 3,650 days"
        task.retention_us = faults.span_us("retention", message.retention, 0, 3650 * DAY_US, rule)


def _route(faults: Faults, message: scheduler_pb2.NewTask) -> Route:
    requires = tuple(message.requires) if message.requires else ()
    try:
        return _known_route(message.name, requires)
    except ValueError:
        _explain_route(faults, message.name, requires)
        return _NO_ROUTE


@lru_cache(maxsize=10_000)
def _known_route(name: str, requires: tuple[str, ...]) -> Route:
    if not NAME.fullmatch(name) or len(requires) > 16 or any(len(text) > 512 for text in requires):
        raise ValueError
    return route_of(name, requires)


def _explain_route(faults: Faults, name: str, requires: tuple[str, ...]) -> None:
    faults.name("name", name)
    if len(requires) > 16:
        faults.add("requires", f"must be at most 16; are {len(requires)}")
    for i, text in enumerate(requires):
        field = f"requires[{i}]"
        if faults.text(field, text, 512, 1) and len(text) <= 512:
            try:
                route_of("x", [text])
            except ValueError as error:
                faults.add(field, f"{error}; is {text[:64]!r}")


def payload_of(faults: Faults, at: str, message: task_pb2.Payload, most_bytes: int) -> Payload:
    if len(message.data) > most_bytes:
        faults.add(f"{at}.data", f"must be at most {most_bytes:,} bytes; has {len(message.data):,}")
    if message.content_type:
        faults.printable(f"{at}.content_type", message.content_type, 128)
    metadata = faults.string_map(f"{at}.metadata", message.metadata) if message.metadata else None
    return Payload(message.data, message.content_type, metadata)


def _args(faults: Faults, at: str, message: scheduler_pb2.NewTask, most_bytes: int) -> Payload:
    try:
        value = json_format.MessageToDict(message.args)
        data = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError, json_format.SerializeToJsonError):
        faults.add(at, "must be JSON: finite numbers, and every value set")
        return Payload()
    if len(data) > most_bytes:
        faults.add(at, f"must be at most {most_bytes:,} bytes as JSON; has {len(data):,}")
    return Payload(data, "application/json")


def _tags(faults: Faults, at: str, tags: Sequence[str]) -> tuple[str, ...]:
    if len(tags) > 32:
        faults.add(at, f"must be at most 32; are {len(tags)}")
    return tuple(faults.text(f"{at}[{i}]", tag, 128, 1) for i, tag in enumerate(tags))


def _dedup(faults: Faults, at: str, message: scheduler_pb2.Dedup, name: str) -> Dedup:
    faults.printable(at + "key", message.key, 256, 1)
    scope = faults.name(at + "scope", message.scope) if message.scope else name
    conflict = member(faults, at + "on_conflict", message.on_conflict, scheduler_pb2.DedupConflict.values())
    hold = member(faults, at + "hold", message.hold, scheduler_pb2.DedupHold.values())
    ttl_us = None
    if message.HasField("ttl"):
        ttl_us = faults.span_us(at + "ttl", message.ttl, 1_000, 365 * DAY_US, "1 ms to 365 days")
    hold = hold or (DedupHold.UNFINISHED if ttl_us is None else DedupHold.BOTH)
    if hold != DedupHold.UNFINISHED and ttl_us is None:
        faults.add(at + "ttl", "must be set when hold is TTL or BOTH")
    if hold == DedupHold.UNFINISHED:
        ttl_us = None
    return Dedup(message.key, scope, DedupConflict(conflict or 1), DedupHold(hold), ttl_us)


def _retry_policy(faults: Faults, at: str, message: task_pb2.RetryPolicy) -> RetryPolicy:
    default = DEFAULT_RETRY_POLICY
    faults.number(at + "max_attempts", message.max_attempts, 0, 1000)
    if message.multiplier:
        faults.number(at + "multiplier", message.multiplier, 1, 100)
    jitter = member(faults, at + "jitter", message.jitter, task_pb2.RetryPolicy.Jitter.values())
    rule = "0 to 30 days"
    initial_us, longest_us = default.initial_delay_us, default.max_delay_us
    if message.HasField("initial_delay"):
        initial_us = faults.span_us(at + "initial_delay", message.initial_delay, 0, 30 * DAY_US, rule)
    if message.HasField("max_delay"):
        longest_us = faults.span_us(at + "max_delay", message.max_delay, 0, 30 * DAY_US, rule)
        if longest_us < initial_us:
            faults.add(at + "max_delay", "must not be shorter than initial_delay")
    errors = message.non_retryable_errors
    if len(errors) > 64:
        faults.add(at + "non_retryable_errors", f"must be at most 64; are {len(errors)}")
    return RetryPolicy(
        message.max_attempts or default.max_attempts,
        initial_us,
        message.multiplier or default.multiplier,
        max(longest_us, initial_us),
        Jitter(jitter) if jitter else default.jitter,
        tuple(faults.text(f"{at}non_retryable_errors[{i}]", text, 256, 1) for i, text in enumerate(errors)),
    )


def member(faults: Faults, field: str, value: int, members: Sequence[int]) -> int:
    """An enum's value; 0 for one that it does not have."""
    if value not in members:
        faults.add(field, f"must be one of its named values; is {value}")
        return 0
    return value


def enqueue_response(enqueued: list[Enqueued], now_us: int) -> scheduler_pb2.EnqueueResponse:
    response = scheduler_pb2.EnqueueResponse(server_time=timestamp(now_us))
    add, shared = response.results.add, Shared(_result)
    for raw_id, outcome, due_time_us in enqueued:
        add(task_id=task_id.to_text(raw_id)).MergeFromString(shared.of(outcome, due_time_us))
    return response


def _result(outcome: int, due_time_us: int) -> scheduler_pb2.EnqueueResult:
    return scheduler_pb2.EnqueueResult(outcome=outcome, due_time=timestamp(due_time_us))  # type: ignore[arg-type]


def payload_message(payload: Payload | None) -> task_pb2.Payload | None:
    if payload is None:
        return None
    return task_pb2.Payload(data=payload.data, content_type=payload.content_type, metadata=payload.metadata)


def failure_message(failure: Failure | None) -> task_pb2.Failure | None:
    if failure is None:
        return None
    return task_pb2.Failure(
        error_type=failure.error_type,
        message=failure.message,
        stack=failure.stack,
        attempt=failure.attempt,
        failure_time=timestamp(failure.failure_time_us),
    )


def progress_message(progress: Progress | None) -> task_pb2.Progress | None:
    return None if progress is None else task_pb2.Progress(fraction=progress.fraction, message=progress.message)


def optional_time(time_us: int | None) -> Timestamp | None:
    return None if time_us is None else timestamp(time_us)


def optional_span(span_us: int | None) -> Duration | None:
    return None if span_us is None else duration(span_us)


def retry_policy_message(policy: RetryPolicy) -> task_pb2.RetryPolicy:
    return task_pb2.RetryPolicy(
        max_attempts=policy.max_attempts,
        initial_delay=duration(policy.initial_delay_us),
        multiplier=policy.multiplier,
        max_delay=duration(policy.max_delay_us),
        jitter=int(policy.jitter),  # type: ignore[arg-type]
        non_retryable_errors=policy.non_retryable_errors,
    )


def task_message(task: Task, *, with_payloads: bool = True) -> task_pb2.Task:
    """Without payloads, also without its result."""
    return task_pb2.Task(
        task_id=task_id.to_text(task.task_id),
        name=task.route.name,
        state=int(task.state),  # type: ignore[arg-type]
        payload=payload_message(task.payload if with_payloads else None),
        due_time=timestamp(task.due_time_us),
        enqueue_time=timestamp(task.enqueue_time_us),
        priority=task.priority,
        requires=[str(requirement) for requirement in task.route.requires],
        attempt=task.attempt,
        failed_attempts=task.failed_attempts,
        retry_policy=retry_policy_message(task.retry_policy),
        run_timeout=optional_span(task.run_timeout_us),
        expire_time=optional_time(task.expire_time_us),
        headers=task.headers,
        tags=task.tags,
        retention=optional_span(task.retention_us),
        lease_time=optional_time(task.lease_time_us),
        processor_name=task.processor_name,
        finish_time=optional_time(task.finish_time_us),
        result=payload_message(task.result if with_payloads else None),
        last_failure=failure_message(task.last_failure),
        progress=progress_message(task.progress),
    )
