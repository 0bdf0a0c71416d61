"""Domain -> wire: tasks as administrators see them."""

from __future__ import annotations

from collections.abc import Iterator

from taskq.v1 import admin_task_pb2, task_pb2
from taskq_server.core.explaining import Explanation
from taskq_server.core.history import Attempt, History
from taskq_server.core.task import Payload, Task
from taskq_server.rpc import convert
from taskq_server.task_id import to_text

MOST_BYTES = 4_000_000
"""Of an answer; clients take 4 MiB."""
MOST_BYTES_OF_FAILURES = 2 << 20
"""Of what attempts say of their failures."""


def basic_task(task: Task) -> task_pb2.Task:
    """Without payload, result, headers, stack traces and progress messages."""
    message = convert.task_message(task, with_payloads=False)
    message.ClearField("headers")
    if message.HasField("last_failure"):
        message.last_failure.ClearField("stack")
    if message.HasField("progress"):
        message.progress.ClearField("message")
    return message


def detail(history: History, *, in_full: bool) -> admin_task_pb2.TaskDetail:
    task = history.task
    message = admin_task_pb2.TaskDetail(
        task=convert.task_message(task) if in_full else basic_task(task),
        attempts=map(_attempt, history.attempts),
        rerun_of="" if history.rerun_of is None else to_text(history.rerun_of),
        reruns=[to_text(task_id) for task_id in history.reruns],
        schedule_name=history.schedule_name,
        nominal_time=convert.optional_time(history.nominal_us),
        dedup_key=history.dedup_key,
        prune_time=convert.optional_time(history.prune_time_us),
        run_deadline=convert.optional_time(history.run_deadline_us),
    )
    for time_us, event, attempt, text in history.timeline():
        message.timeline.add(
            time=convert.timestamp(time_us),
            event=int(event),
            attempt=attempt,
            text=text,
        )
    if in_full:
        _add_texts(message, task)
    _add_failures(message, history.attempts, in_full=in_full)
    return message


def _add_texts(message: admin_task_pb2.TaskDetail, task: Task) -> None:
    """As far as there is room: they are said a second time."""
    for name, payload in (("payload_text", task.payload), ("result_text", task.result)):
        text = _text(payload)
        if message.ByteSize() + len(text.encode()) <= MOST_BYTES:
            setattr(message, name, text)


def _add_failures(message: admin_task_pb2.TaskDetail, attempts: list[Attempt], *, in_full: bool) -> None:
    """Of many that are long those in the middle are left out: the worst task is the one that must be looked at."""
    left = min(MOST_BYTES_OF_FAILURES, MOST_BYTES - message.ByteSize())
    for i in _from_both_ends(len(attempts)):
        if (failure := attempts[i].failure) is None:
            continue
        words, stack = failure.message, failure.stack if in_full else ""
        left -= len(words.encode()) + len(stack.encode())
        if left < 0:
            return
        message.attempts[i].failure.message, message.attempts[i].failure.stack = words, stack


def _from_both_ends(many: int) -> Iterator[int]:
    """The last, the first, the last but one, and so on."""
    for i in range(many):
        yield i // 2 if i % 2 else many - 1 - i // 2


def _attempt(one: Attempt) -> admin_task_pb2.Attempt:
    """Without what may be long."""
    message = admin_task_pb2.Attempt(
        attempt=one.attempt,
        session_id="" if one.session_id is None else to_text(one.session_id),
        processor_name=one.processor_name,
        lease_time=convert.timestamp(one.lease_time_us),
        end_time=convert.optional_time(one.end_time_us),
        outcome=0 if one.outcome is None else int(one.outcome),  # type: ignore[arg-type]
        failure=convert.failure_message(one.failure),
    )
    if one.failure is not None:
        message.failure.ClearField("message")
        message.failure.ClearField("stack")
    return message


def _text(payload: Payload | None) -> str:
    """What it says, when it says that it is text or JSON, and is; else nothing."""
    if payload is None:
        return ""
    media_type = payload.content_type.partition(";")[0].strip().lower()
    if not (media_type.startswith("text/") or media_type == "application/json" or media_type.endswith("+json")):
        return ""
    try:
        return payload.data.decode()
    except UnicodeDecodeError:
        return ""


def explanation(explained: Explanation) -> admin_task_pb2.ExplainTaskResponse:
    message = admin_task_pb2.ExplainTaskResponse(
        state=int(explained.state),  # type: ignore[arg-type]
        summary=explained.summary,
    )
    for one in explained.reasons:
        message.reasons.add(
            kind=int(one.kind),
            text=one.text,
            facts=one.facts,
            names=one.names,
        )
    return message
