"""Wire <-> domain: what processors send and are answered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq.v1 import task_pb2
from taskq_server import task_id
from taskq_server.core.task import (
    Assignment,
    Ended,
    Ending,
    EndStatus,
    Failure,
    Outcome,
    Payload,
    Progress,
    TaskState,
)
from taskq_server.rpc.checks import DAY_US, Faults, items
from taskq_server.rpc.convert import Shared, duration, failure_message, payload_of, timestamp
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
    return items("in_flight", messages, 0, MOST_IN_FLIGHT, lambda faults, one: _sighting(faults, one, most_bytes))


def _sighting(faults: Faults, message: processor_pb2.InFlight, most_bytes: int) -> Sighting:
    raw = faults.uuid("task_id", message.task_id)
    faults.number("attempt", message.attempt, 1, MOST_ATTEMPT)
    progress = checkpoint = None
    if message.HasField("progress"):
        faults.number("progress.fraction", message.progress.fraction, 0, 1)
        progress = Progress(message.progress.fraction, _for_people(message.progress.message)[:1024])
    if message.HasField("checkpoint"):
        checkpoint = payload_of(faults, "checkpoint", message.checkpoint, most_bytes)
    return Sighting(raw, message.attempt, progress, checkpoint)


def endings(messages: Sequence[processor_pb2.TaskResult], most_bytes: int, now_us: int) -> list[Ending]:
    return items("results", messages, 1, MOST_RESULTS, lambda faults, one: _ending(faults, one, most_bytes, now_us))


def _ending(faults: Faults, message: processor_pb2.TaskResult, most_bytes: int, now_us: int) -> Ending:
    outcome = message.WhichOneof("outcome")
    ending = Ending(faults.uuid("task_id", message.task_id), message.attempt, 0, Outcome.SUCCEEDED)
    if not 1 <= message.attempt <= MOST_ATTEMPT:
        faults.number("attempt", message.attempt, 1, MOST_ATTEMPT)
    if outcome == "succeeded":
        if message.succeeded.HasField("result"):
            ending.result = payload_of(faults, "succeeded.result", message.succeeded.result, most_bytes)
    elif outcome == "failed":
        _failed(faults, message, ending, now_us)
    elif outcome == "released":
        ending.outcome = Outcome.RELEASED
        if message.released.HasField("due_time"):
            ending.due_time_us = faults.time_us("released.due_time", message.released.due_time)
    elif outcome == "cancelled":
        ending.outcome = Outcome.CANCELLED
    else:
        faults.add("outcome", "must be set: succeeded, failed, released or cancelled")
    return ending


def _failed(faults: Faults, message: processor_pb2.TaskResult, ending: Ending, now_us: int) -> None:
    failed = message.failed
    faults.text("failed.error_type", failed.error_type, 256, 1)
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
        ending.retry_delay_us = faults.span_us("failed.retry_delay", failed.retry_delay, 0, 30 * DAY_US, "0 to 30 days")


def _for_people(text: str) -> str:
    """U+0000, which not every database can keep, must not stand in the way of a report."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def report_response(ended: list[Ended]) -> processor_pb2.ReportResultResponse:
    response = processor_pb2.ReportResultResponse()
    add, shared = response.answers.add, Shared(_answer)
    for raw_id, attempt, status, state, due_time_us in ended:
        add(task_id=task_id.to_text(raw_id)).MergeFromString(shared.of(attempt, status, state, due_time_us))
    return response


def _answer(
    attempt: int, status: EndStatus, state: TaskState | None, due_time_us: int | None
) -> processor_pb2.ReportAnswer:
    answer = processor_pb2.ReportAnswer(attempt=attempt, status=int(status), state=int(state or 0))  # type: ignore[arg-type]
    if state is TaskState.SCHEDULED:
        answer.due_time.CopyFrom(timestamp(due_time_us or 0))
    return answer


def attempt_refs(keys: Iterable[AttemptKey]) -> list[processor_pb2.AttemptRef]:
    return [processor_pb2.AttemptRef(task_id=task_id.to_text(raw), attempt=attempt) for raw, attempt in keys]


def task_frames(assignments: Iterable[Assignment]) -> Iterator[processor_pb2.StreamTasksResponse]:
    """Batches that stay below what a message may be: `Assignment.size_bytes` is but a guess."""
    frame, size_bytes, shared = processor_pb2.StreamTasksResponse(), 0, Shared(_lease)
    for assignment in assignments:
        size_bytes += _add(frame.tasks, assignment, shared).ByteSize()
        if size_bytes > MOST_BATCH_BYTES and len(frame.tasks.tasks) > 1:
            del frame.tasks.tasks[-1]
            yield frame
            frame = processor_pb2.StreamTasksResponse()
            size_bytes = _add(frame.tasks, assignment, shared).ByteSize()
    yield frame


def _add(batch: processor_pb2.TaskBatch, assignment: Assignment, shared: Shared) -> processor_pb2.AssignedTask:
    message = batch.tasks.add(task_id=task_id.to_text(assignment.task_id))
    message.MergeFromString(
        shared.of(
            assignment.route.name,
            assignment.attempt,
            assignment.enqueue_time_us,
            assignment.lease_time_us,
            assignment.run_timeout_us,
            assignment.priority,
            assignment.failed_attempts,
            assignment.max_attempts,
        )
    )
    due, (seconds, rest_us) = message.due_time, divmod(assignment.due_time_us, 1_000_000)
    due.seconds, due.nanos = seconds, rest_us * 1_000
    if assignment.payload is not None:
        _fill(message.payload, assignment.payload)
    if assignment.checkpoint is not None:
        _fill(message.checkpoint, assignment.checkpoint)
    if assignment.headers:
        message.headers.update(assignment.headers)
    if assignment.tags:
        message.tags.extend(assignment.tags)
    if assignment.dedup_key:
        message.dedup_key = assignment.dedup_key
    if (failure := failure_message(assignment.last_failure)) is not None:
        message.last_failure.CopyFrom(failure)
    return message


def _lease(
    name: str,
    attempt: int,
    enqueue_time_us: int,
    lease_time_us: int,
    run_timeout_us: int | None,
    priority: int,
    failed_attempts: int,
    max_attempts: int,
) -> processor_pb2.AssignedTask:
    message = processor_pb2.AssignedTask(
        name=name,
        attempt=attempt,
        enqueue_time=timestamp(enqueue_time_us),
        lease_time=timestamp(lease_time_us),
        priority=priority,
        failed_attempts=failed_attempts,
        max_attempts=max_attempts,
    )
    if run_timeout_us is not None:
        message.run_deadline.CopyFrom(timestamp(lease_time_us + run_timeout_us))
        message.run_timeout.CopyFrom(duration(run_timeout_us))
    return message


def _fill(message: task_pb2.Payload, payload: Payload) -> None:
    message.data = payload.data
    message.content_type = payload.content_type
    if payload.metadata:
        message.metadata.update(payload.metadata)
