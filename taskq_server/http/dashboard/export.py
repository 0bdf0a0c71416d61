"""The tasks that a filter matches as a file: CSV, or a JSON object a line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf import json_format
from starlette.responses import Response, StreamingResponse

from taskq.v1 import admin_task_pb2, task_pb2
from taskq_server.http.dashboard.render import iso
from taskq_server.http.dashboard.visit import Visit

MOST = 50_000
"""A file holds no more tasks."""
COLUMNS = [
    "task_id",
    "name",
    "state",
    "enqueue_time",
    "due_time",
    "lease_time",
    "finish_time",
    "attempt",
    "priority",
    "processor_name",
    "error_type",
    "error_message",
]


async def page(visit: Visit) -> Response:
    kind = "jsonl" if visit.query("as") == "jsonl" else "csv"
    request = admin_task_pb2.ListTasksRequest(filter=visit.query("filter"), page_size=1_000)
    first = await visit.call("AdminService/ListTasks", request)  # a bad filter is told on a page
    media_type = "application/jsonl" if kind == "jsonl" else "text/csv"
    headers = {"content-disposition": f'attachment; filename="tasks.{kind}"'}
    return StreamingResponse(_lines(visit, request, first, kind), 200, headers, media_type)


async def _lines(visit: Visit, request: Any, answer: Any, kind: str) -> AsyncIterator[str]:
    if kind == "csv":
        yield _row(COLUMNS)
    many = 0
    while True:
        for task in answer.tasks:
            yield _row(_columns(task)) if kind == "csv" else json.dumps(json_format.MessageToDict(task)) + "\n"
        many += len(answer.tasks)
        if not answer.next_page_token or many >= MOST:
            return
        request.page_token = answer.next_page_token
        answer = await visit.call("AdminService/ListTasks", request)


def _columns(task: Any) -> list[str]:
    times = [iso(getattr(task, name)) if task.HasField(name) else "" for name in COLUMNS[3:7]]
    state = task_pb2.TaskState.Name(task.state).removeprefix("TASK_STATE_")
    failure = task.last_failure
    last = [str(task.attempt), str(task.priority), task.processor_name, failure.error_type, failure.message]
    return [task.task_id, task.name, state, *times, *last]


def _row(values: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow([_plain(value) for value in values])
    return line.getvalue()


def _plain(value: str) -> str:
    """A spreadsheet takes what begins so for a formula."""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
