"""Wire <-> domain: what processors send and are answered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq_server import task_id
from taskq_server.core.task import (
    Assignment,
    Ended,
    Ending,
    Failure,
    Outcome,
    Progress,
    TaskState,
)
from taskq_server.rpc.checks import DAY_US, Faults
from taskq_server.rpc.convert import (
    duration,
    failure_message,
    payload_fields,
    payload_of,
    time_fields,
    timestamp,
)
from taskq_server.session import AttemptKey, Sighting
from taskq_server.store.verbs.living import NewSession

LABEL_KEY = re.compile(r"[A-Za-z0-9._/-]{1,64}")
MOST_IN_FLIGHT = 10_000
MOST_RESULTS = 10_000
MOST_BATCH_BYTES = 2 << 20
MOST_ATTEMPT = (1 << 31) - 1


def new_session(message: processor_pb2.RegisterRequest) -> NewSession:
    faults = Faults()
    faults.name("processor_name", message.processor_name)
    faults.number("max_in_flight", message.max_in_flight, 1, MOST_IN_FLIGHT)
    if not 1 <= len(message.capabilities) <= 1000:
        faults.add("capabilities", f"must be 1 to 1,000; are {len(message.capabilities):,}")
    capabilities: dict[str, int] = {}
    for i, capability in enumerate(message.capabilities):
        name = faults.name(f"capabilities[{i}].name", capability.name)
        if name in capabilities:
            faults.add(f"capabilities[{i}].name", f"must be there once; {name!r} is repeated")
        faults.number(f"capabilities[{i}].max_in_flight", capability.max_in_flight, 0, MOST_IN_FLIGHT)
        capabilities[name] = capability.max_in_flight
    if len(message.labels) > 64:
        faults.add("labels", f"must be at most 64; are {len(message.labels)}")
    for key, value in message.labels.items():
        if not LABEL_KEY.fullmatch(key):
            faults.add(f"labels[{key[:64]!r}] (key)", "must be 1 to 64 characters of A-Z a-z 0-9 . _ / -")
        faults.printable(f"labels[{key[:64]!r}]", value, 256)
    faults.text("build_id", message.build_id, 128)
    faults.text("client", message.client, 128)
    faults.raise_if_any()
    return NewSession(
        task_id.new(),
        message.processor_name,
        capabilities,
        dict(message.labels),
        message.max_in_flight,
        message.build_id,
        message.client,
        0,
    )


def session_id(text: str) -> bytes:
    faults = Faults()
    raw = faults.uuid("session_id", text)
    faults.raise_if_any()
    return raw


def sightings(messages: Sequence[processor_pb2.InFlight], most_bytes: int) -> list[Sighting]:
    faults = Faults()
    if len(messages) > MOST_IN_FLIGHT:
        faults.add("in_flight", f"must be at most {MOST_IN_FLIGHT:,}; are {len(messages):,}")
    found = [_sighting(faults, f"in_flight[{i}].", message, most_bytes) for i, message in enumerate(messages)]
    faults.raise_if_any()
    return found


def _sighting(faults: Faults, at: str, message: processor_pb2.InFlight, most_bytes: int) -> Sighting:
    raw = faults.uuid(at + "task_id", message.task_id)
    faults.number(at + "attempt", message.attempt, 1, MOST_ATTEMPT)
    progress = checkpoint = None
    if message.HasField("progress"):
        faults.number(at + "progress.fraction", message.progress.fraction, 0, 1)
        progress = Progress(message.progress.fraction, _for_people(message.progress.message)[:1024])
    if message.HasField("checkpoint"):
        checkpoint = payload_of(faults, at + "checkpoint", message.checkpoint, most_bytes)
    return Sighting(raw, message.attempt, progress, checkpoint)


def endings(messages: Sequence[processor_pb2.TaskResult], most_bytes: int, now_us: int) -> list[Ending]:
    faults = Faults()
    if not 1 <= len(messages) <= MOST_RESULTS:
        faults.add("results", f"must be 1 to {MOST_RESULTS:,}; are {len(messages):,}")
        faults.raise_if_any()
    found = [_ending(faults, i, message, most_bytes, now_us) for i, message in enumerate(messages)]
    faults.raise_if_any()
    return found


def _ending(faults: Faults, index: int, message: processor_pb2.TaskResult, most_bytes: int, now_us: int) -> Ending:
    at = f"results[{index}]."
    outcome = message.WhichOneof("outcome")
    ending = Ending(faults.uuid(at + "task_id", message.task_id), message.attempt, 0, Outcome.SUCCEEDED)
    if not 1 <= message.attempt <= MOST_ATTEMPT:
        faults.number(at + "attempt", message.attempt, 1, MOST_ATTEMPT)
    if outcome == "succeeded":
        if message.succeeded.HasField("result"):
            ending.result = payload_of(faults, at + "succeeded.result", message.succeeded.result, most_bytes)
    elif outcome == "failed":
        _failed(faults, at + "failed.", message, ending, now_us)
    elif outcome == "released":
        ending.outcome = Outcome.RELEASED
        if message.released.HasField("due_time"):
            ending.due_time_us = faults.time_us(at + "released.due_time", message.released.due_time)
    elif outcome == "cancelled":
        ending.outcome = Outcome.CANCELLED
    else:
        faults.add(at + "outcome", "must be set: succeeded, failed, released or cancelled")
    return ending


def _failed(faults: Faults, at: str, message: processor_pb2.TaskResult, ending: Ending, now_us: int) -> None:
    failed = message.failed
    faults.text(at + "error_type", failed.error_type, 256, 1)
    ending.outcome = Outcome.FAILED
    ending.failure = Failure(
        failed.error_type,
        _for_people(failed.message)[:4096],
        _for_people(failed.stack)[-32768:],
        message.attempt,
        now_us,
    )
    ending.retryable = failed.retryable if failed.HasField("retryable") else True
    if failed.HasField("retry_delay"):
        ending.retry_delay_us = faults.span_us(at + "retry_delay", failed.retry_delay, 0, 30 * DAY_US, "0 to 30 days")


def _for_people(text: str) -> str:
    """U+0000, which not every database can keep, must not stand in the way of a report."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def report_response(ended: list[Ended]) -> processor_pb2.ReportResultResponse:
    response = processor_pb2.ReportResultResponse()
    for one in ended:
        response.answers.add(
            task_id=task_id.to_text(one.task_id),
            attempt=one.attempt,
            status=int(one.status),
            state=int(one.state or 0),
            due_time=time_fields(one.due_time_us or 0) if one.state is TaskState.SCHEDULED else None,
        )
    return response


def attempt_refs(keys: Iterable[AttemptKey]) -> list[processor_pb2.AttemptRef]:
    return [processor_pb2.AttemptRef(task_id=task_id.to_text(raw), attempt=attempt) for raw, attempt in keys]


def task_frames(assignments: Iterable[Assignment]) -> Iterator[processor_pb2.StreamTasksResponse]:
    """Batches that stay below what a message may be: `Assignment.size_bytes` is but a guess."""
    frame, size_bytes = processor_pb2.StreamTasksResponse(), 0
    for assignment in assignments:
        size_bytes += _add(frame.tasks, assignment).ByteSize()
        if size_bytes > MOST_BATCH_BYTES and len(frame.tasks.tasks) > 1:
            del frame.tasks.tasks[-1]
            yield frame
            frame = processor_pb2.StreamTasksResponse()
            size_bytes = _add(frame.tasks, assignment).ByteSize()
    yield frame


def _add(batch: processor_pb2.TaskBatch, assignment: Assignment) -> processor_pb2.AssignedTask:
    message = batch.tasks.add(
        task_id=task_id.to_text(assignment.task_id),
        name=assignment.route.name,
        attempt=assignment.attempt,
        payload=payload_fields(assignment.payload),
        due_time=time_fields(assignment.due_time_us),
        enqueue_time=time_fields(assignment.enqueue_time_us),
        lease_time=time_fields(assignment.lease_time_us),
        priority=assignment.priority,
        headers=assignment.headers,
        last_failure=failure_message(assignment.last_failure),
        checkpoint=payload_fields(assignment.checkpoint),
        failed_attempts=assignment.failed_attempts,
        max_attempts=assignment.max_attempts,
        tags=assignment.tags,
        dedup_key=assignment.dedup_key,
    )
    if assignment.run_timeout_us is not None:
        message.run_deadline.CopyFrom(timestamp(assignment.lease_time_us + assignment.run_timeout_us))
        message.run_timeout.CopyFrom(duration(assignment.run_timeout_us))
    return message
