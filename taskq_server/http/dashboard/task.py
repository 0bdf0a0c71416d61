"""One task: why it is where it is, its attempts, its timeline, what it carries, and how to ask for it elsewhere."""

from __future__ import annotations

import asyncio
import json
import shlex
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from starlette.responses import Response

from taskq.v1 import admin_task_pb2, bulk_operation_pb2, task_pb2
from taskq_server.http.dashboard import payloads
from taskq_server.http.dashboard.expected import Expected, expected
from taskq_server.http.dashboard.render import iso, seconds_of
from taskq_server.http.dashboard.visit import Part, Visit

MOST_RAW_BYTES = 256 << 10
"""What is larger, with its attempts and their failures, is not shown as JSON besides."""
_WIDTH = 1_000


async def page(visit: Visit) -> Response:
    task_id = visit.path("task_id")
    answer, explained = await asyncio.gather(
        _look(visit, task_id),
        visit.part("AdminService/ExplainTask", admin_task_pb2.ExplainTaskRequest(task_id=task_id)),
    )
    progress = await expected(visit, answer.detail.task)
    # In a thread, all of it: what a task carries may be large, and streams go on meanwhile.
    return await asyncio.to_thread(_show, visit, answer, explained, progress, await _operation(visit))


def _show(visit: Visit, answer: Any, explained: Part, progress: Expected | None, operation: Any) -> Response:
    detail = answer.detail
    task = detail.task
    is_full = visit.caller.rights.reads_payloads
    return visit.show(
        "task",
        detail=detail,
        task=task,
        explained=explained,
        is_full=is_full,
        payload=payloads.shown(task.payload, detail.payload_text) if is_full else None,
        result=payloads.shown(task.result, detail.result_text) if is_full and task.HasField("result") else None,
        raw=json_format.MessageToJson(detail) if detail.ByteSize() <= MOST_RAW_BYTES else "",
        bars=bars(detail, answer.server_time),
        copies=copies(visit, task, is_full),
        can=_can(task),
        operation=operation,
        expected=progress,
    )


async def payload(visit: Visit) -> Response:
    """The payload's bytes, or the result's: as a file, since a browser must not run what somebody has enqueued."""
    answer = await visit.call(
        "AdminService/GetTask",
        admin_task_pb2.AdminServiceGetTaskRequest(task_id=visit.path("task_id"), view=admin_task_pb2.TASK_VIEW_FULL),
    )
    task = answer.detail.task
    which = "result" if visit.query("of") == "result" else "payload"
    headers = {"content-disposition": f'attachment; filename="{task.task_id}.{which}"'}
    return Response(getattr(task, which).data, 200, headers, "application/octet-stream")


async def _look(visit: Visit, task_id: str) -> Any:
    full = visit.caller.rights.reads_payloads
    view = admin_task_pb2.TASK_VIEW_FULL if full else admin_task_pb2.TASK_VIEW_BASIC
    return await visit.call(
        "AdminService/GetTask", admin_task_pb2.AdminServiceGetTaskRequest(task_id=task_id, view=view)
    )


async def _operation(visit: Visit) -> Any:
    """The one that somebody has just started from this page."""
    if not (operation_id := visit.query("op")):
        return None
    asked = bulk_operation_pb2.GetBulkOperationRequest(operation_id=operation_id)
    found = await visit.part("AdminService/GetBulkOperation", asked)
    return found.answer.operation if found else None


def _can(task: task_pb2.Task) -> set[str]:
    """What may be done to a task in its state."""
    if task.state == task_pb2.TASK_STATE_SCHEDULED:
        return {"cancel", "run-now", "reschedule", "reprioritise"}
    if task.state == task_pb2.TASK_STATE_RUNNING:
        return {"cancel"}
    return {"rerun", "delete"}


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of the timeline: where it begins and how long it is, of a thousand."""

    kind: str
    x: int
    width: int
    title: str


def bars(detail: admin_task_pb2.TaskDetail, now: Any) -> list[Bar]:
    """From the enqueue until its end, or until now: what it waited, and what it ran."""
    task = detail.task
    start = seconds_of(task.enqueue_time)
    end = seconds_of(task.finish_time) if task.HasField("finish_time") else max(seconds_of(now), start)
    if end <= start:
        return []

    def at(moment: float) -> int:
        return round(_WIDTH * min(max((moment - start) / (end - start), 0), 1))

    due = seconds_of(task.due_time)
    found: list[Bar] = []
    reached = start
    for attempt in detail.attempts:
        leased = seconds_of(attempt.lease_time)
        ended = seconds_of(attempt.end_time) if attempt.HasField("end_time") else end
        found += _waited(reached, leased, due, at)
        word = admin_task_pb2.AttemptOutcome.Name(attempt.outcome).removeprefix("ATTEMPT_OUTCOME_").lower()
        kind = "running" if word == "unspecified" else word.replace("_", "-")
        title = f"attempt {attempt.attempt}: {kind.replace('-', ' ')}, {ended - leased:.3g} s"
        found.append(Bar(kind, at(leased), max(at(ended) - at(leased), 3), title))
        reached = ended
    return found + _waited(reached, end, due, at)


def _waited(start: float, end: float, due: float, at: Any) -> list[Bar]:
    """Until it was due as it was asked, and from then on late."""
    parts = [("waiting", start, min(max(due, start), end)), ("late", min(max(due, start), end), end)]
    return [
        Bar(kind, at(since), at(until) - at(since), f"{kind}, {until - since:.3g} s")
        for kind, since, until in parts
        if at(until) > at(since)
    ]


def copies(visit: Visit, task: task_pb2.Task, is_full: bool) -> list[tuple[str, str]]:
    """How to ask for this task elsewhere, and how to enqueue one like it: ready to be pasted into a shell."""
    address = (
        f"{visit.request.url.scheme}://{visit.request.headers.get('host', 'localhost:8080')}{visit.frame.base_path}"
    )
    plain = "" if visit.request.url.scheme == "https" else "-plaintext "
    grpc_address = "localhost:50051"
    asked = shlex.quote(json.dumps({"task_id": task.task_id}))
    found = [
        ("taskq", f"taskq task get {task.task_id}"),
        ("grpcurl", f"grpcurl {plain}-d {asked} {grpc_address} taskq.v1.AdminService/GetTask"),
        ("curl", f"curl -s {shlex.quote(f'{address}/v1/tasks/{task.task_id}:inspect')}"),
    ]
    if is_full:
        again = task_pb2.Task(name=task.name, priority=task.priority, requires=task.requires, tags=task.tags)
        again.payload.CopyFrom(task.payload)
        like = json_format.MessageToDict(again, preserving_proto_field_name=True)
        body = shlex.quote(json.dumps({"tasks": [like]}))
        found += [
            ("grpcurl: one like it", f"grpcurl {plain}-d {body} {grpc_address} taskq.v1.SchedulerService/Enqueue"),
            ("curl: one like it", f"curl -s {address}/v1/tasks -H 'content-type: application/json' -d {body}"),
            ("Python: one like it", _python(task)),
        ]
    return found


def _python(task: task_pb2.Task) -> str:
    config = "{}"
    if "json" in task.payload.content_type:
        try:
            config = repr(json.loads(task.payload.data))
        except (ValueError, RecursionError):
            config = "{}  # its payload is no JSON"
    return (
        "from scheduler_client import Scheduler, Task\n\n\n"
        f"class Again(Task):\n    name = {task.name!r}\n    config = {config}\n\n\n"
        'async with Scheduler("localhost:50051") as scheduler:\n'
        f"    await scheduler.enqueue(Again(), priority={task.priority})  # was due {iso(task.due_time)}\n"
    )
