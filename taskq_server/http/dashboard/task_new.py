"""A new task, from a form."""

from __future__ import annotations

import uuid

from starlette.responses import Response

from taskq.v1 import admin_task_pb2, scheduler_service_pb2, task_pb2
from taskq_server.core.errors import TaskqError
from taskq_server.http.dashboard.forms import Form, read_payload, text_of
from taskq_server.http.dashboard.visit import Visit

FIELDS = (
    *("name", "payload", "content_type", "due_time", "delay", "priority", "requires", "tags", "key", "max_attempts"),
    *("like", "unshown"),
)
"""The last two: of which task the payload stays as it is unless it is typed anew, and how many bytes it has if no form
can show them."""


async def page(visit: Visit) -> Response:
    values = dict.fromkeys(FIELDS, "") | {"content_type": "application/json", "priority": "0", "payload": "{}"}
    values |= {name: visit.query(name) for name in ("name",) if visit.query(name)}
    if (source := visit.query("like")) and visit.caller.rights.reads_payloads:
        values |= await _like(visit, source)
    return _show(visit, values, str(uuid.uuid4()))


async def enqueue(visit: Visit) -> Response:
    form = await visit.form()
    task_id = form.get("task_id") or str(uuid.uuid4())
    try:
        payload = (await _read(visit, like)).payload if (like := form.get("like")) else task_pb2.Payload()
        request = scheduler_service_pb2.EnqueueRequest(tasks=[new_task(form, task_id, payload)])
        answer = await visit.call("SchedulerService/Enqueue", request)
    except TaskqError as error:
        return _show(visit, {name: form.raw(name) for name in FIELDS}, task_id, str(error), 400)
    result = answer.results[0]
    is_new = result.outcome == scheduler_service_pb2.ENQUEUE_OUTCOME_CREATED
    return visit.go(f"/tasks/{result.task_id}?note={'enqueued' if is_new else 'existing'}")


def new_task(form: Form, task_id: str, payload: task_pb2.Payload) -> scheduler_service_pb2.NewTask:
    """What the fields of a form say of a task; `payload` is what stays of another's."""
    task = scheduler_service_pb2.NewTask(
        task_id=task_id,
        name=form.get("name"),
        priority=form.number("priority"),
        requires=form.lines("requires"),
        tags=form.lines("tags"),
        payload=payload,
    )
    read_payload(form, task.payload)
    if (due := form.time("due_time")) is not None:
        task.due_time.CopyFrom(due)
    elif (delay := form.duration("delay")) is not None:
        task.delay.CopyFrom(delay)
    if key := form.get("key"):
        task.dedup.key = key
    if attempts := form.number("max_attempts"):
        task.retry_policy.max_attempts = attempts
    return task


async def _read(visit: Visit, task_id: str) -> task_pb2.Task:
    asked = admin_task_pb2.AdminServiceGetTaskRequest(task_id=task_id, view=admin_task_pb2.TASK_VIEW_FULL)
    found: task_pb2.Task = (await visit.call("AdminService/GetTask", asked)).detail.task
    return found


async def _like(visit: Visit, task_id: str) -> dict[str, str]:
    task = await _read(visit, task_id)
    text = text_of(task.payload.data)
    return {
        "like": task_id,
        "name": task.name,
        "payload": text or "",
        "unshown": "" if text is not None else str(len(task.payload.data)),
        "content_type": task.payload.content_type,
        "priority": str(task.priority),
        "requires": "\n".join(task.requires),
        "tags": "\n".join(task.tags),
    }


def _show(visit: Visit, values: dict[str, str], task_id: str, why: str = "", status: int = 200) -> Response:
    return visit.show("task_new", status, values=values, task_id=task_id, why=why)
