"""The tasks that a filter matches as a file: CSV, or a JSON object a line."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf import json_format
from starlette.responses import Response, StreamingResponse

from taskq.v1 import admin_task_pb2, task_pb2
from taskq_server.core.errors import TaskqError
from taskq_server.http.dashboard.render import iso
from taskq_server.http.dashboard.visit import Visit

MOST = 50_000
"""A file holds no more tasks."""
MOST_SECONDS = 60
"""A filter may match few of many: no longer is looked for more."""
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
    """A file that does not hold all of them says so in its last line."""
    loop = asyncio.get_running_loop()
    end = loop.time() + MOST_SECONDS
    if kind == "csv":
        yield _row(COLUMNS)
    many = 0
    while True:
        yield await asyncio.to_thread(_page, answer, kind)
        many += len(answer.tasks)
        if not answer.next_page_token:
            return
        try:
            if many >= MOST:
                raise _Cut(f"a file holds at most {MOST:,} tasks")
            if loop.time() >= end:
                raise _Cut(f"a file is written for at most {MOST_SECONDS} s")
            request.page_token = answer.next_page_token
            answer = await visit.call("AdminService/ListTasks", request)
        except (_Cut, TaskqError, TimeoutError) as error:
            why = f"cut after {many:,} tasks: {str(error) or 'there was no answer in time'}"
            yield _row([why]) if kind == "csv" else json.dumps({"cut": why}) + "\n"
            return


class _Cut(Exception):
    """There are more, and no more are written."""


def _page(answer: Any, kind: str) -> str:
    if kind == "csv":
        return "".join(_row(_columns(task)) for task in answer.tasks)
    return "".join(json.dumps(json_format.MessageToDict(task)) + "\n" for task in answer.tasks)


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
