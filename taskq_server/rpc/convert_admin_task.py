"""Domain -> wire: tasks as administrators see them."""

from __future__ import annotations

from taskq.v1 import admin_task_pb2, task_pb2
from taskq_server.core.explaining import Explanation
from taskq_server.core.history import Attempt, History
from taskq_server.core.task import Payload, Task
from taskq_server.rpc import convert
from taskq_server.task_id import to_text


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
        attempts=[_attempt(one, in_full=in_full) for one in history.attempts],
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
        message.payload_text, message.result_text = _text(task.payload), _text(task.result)
    return message


def _attempt(one: Attempt, *, in_full: bool) -> admin_task_pb2.Attempt:
    message = admin_task_pb2.Attempt(
        attempt=one.attempt,
        session_id="" if one.session_id is None else to_text(one.session_id),
        processor_name=one.processor_name,
        lease_time=convert.timestamp(one.lease_time_us),
        end_time=convert.optional_time(one.end_time_us),
        outcome=0 if one.outcome is None else int(one.outcome),  # type: ignore[arg-type]
        failure=convert.failure_message(one.failure),
    )
    if not in_full and one.failure is not None:
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
