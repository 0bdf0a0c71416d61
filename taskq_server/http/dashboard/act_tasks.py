"""What is done to tasks, one or many: by a bulk operation, which counts first and is in the audit. A single one is
cancelled as its scheduler would cancel it."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from taskq.v1 import admin_task_pb2, bulk_operation_pb2, scheduler_service_pb2, task_pb2
from taskq_server.core.errors import TaskqError
from taskq_server.http.dashboard.asking import MOST_REASON, Action, Ask, Entry, reason
from taskq_server.http.dashboard.forms import Form, fault, read_payload, text_of
from taskq_server.http.dashboard.render import count, url
from taskq_server.http.dashboard.visit import Visit

TYPED_FROM = 1_000
"""For more tasks than this the number has to be typed."""
EVERY = "priority>=0"
"""The filter that every task passes."""
_START = "AdminService/StartBulkOperation"


@dataclass(frozen=True, slots=True)
class _Deed:
    """What can be done to a task: a verb, what it means, what has to be known for it."""

    verb: str
    means: str
    fields: Callable[[Form], list[Entry]]
    read: Callable[[Form], bulk_operation_pb2.BulkAction]
    is_danger: bool = False


def _nothing(form: Form) -> list[Entry]:
    return []


def _when(form: Form) -> list[Entry]:
    return [
        Entry("due_time", "Due at", value=form.get("due_time"), hint="UTC unless it says otherwise: 2026-01-31T08:00"),
        Entry("delay", "or in", value=form.get("delay"), hint="90s, 10m, 1.5h, 2d; counted when it comes to each task"),
    ]


def _priority(form: Form) -> list[Entry]:
    return [Entry("priority", "Priority", "number", form.get("priority", "5"), "0 to 9; larger runs sooner", True)]


def _reschedule(form: Form) -> bulk_operation_pb2.BulkAction:
    action = bulk_operation_pb2.RescheduleAction()
    if (due := form.time("due_time")) is not None:
        action.due_time.CopyFrom(due)
    elif (delay := form.duration("delay")) is not None:
        action.delay.CopyFrom(delay)
    else:
        raise fault("due_time", "must be a time, unless a delay is given")
    return bulk_operation_pb2.BulkAction(reschedule=action)


def _run_now(form: Form) -> bulk_operation_pb2.BulkAction:
    return bulk_operation_pb2.BulkAction(reschedule=bulk_operation_pb2.RescheduleAction(delay=Duration()))


def _reprioritise(form: Form) -> bulk_operation_pb2.BulkAction:
    action = bulk_operation_pb2.ReprioritiseAction(priority=form.number("priority"))
    return bulk_operation_pb2.BulkAction(reprioritise=action)


def _plain(kind: str) -> Callable[[Form], bulk_operation_pb2.BulkAction]:
    def read(form: Form) -> bulk_operation_pb2.BulkAction:
        action = bulk_operation_pb2.BulkAction()
        getattr(action, kind).SetInParent()
        return action

    return read


DEEDS = {
    "cancel": _Deed("Cancel", "Tasks that wait or run are cancelled.", _nothing, _plain("cancel"), True),
    "rerun": _Deed(
        "Rerun", "Finished tasks are scheduled again, with as many attempts more.", _nothing, _plain("rerun")
    ),
    "run-now": _Deed("Run now", "Tasks that wait become due at once.", _nothing, _run_now),
    "reschedule": _Deed("Reschedule", "Tasks that wait get another due time.", _when, _reschedule),
    "reprioritise": _Deed("Reprioritise", "Tasks that wait get another priority.", _priority, _reprioritise),
    "delete": _Deed("Delete", "Finished tasks are deleted. This cannot be undone.", _nothing, _plain("delete"), True),
}


def _ids(form: Form) -> list[str]:
    return [task_id for value in form.all("ids") for task_id in value.replace(",", " ").split()]


def _of(form: Form) -> str:
    """The filter; one that matches everything says so."""
    return "" if _ids(form) else form.get("filter") or EVERY


def _asker(deed: _Deed) -> Callable[[Visit, Form], Awaitable[Ask]]:
    async def ask(visit: Visit, form: Form) -> Ask:
        ids, text = _ids(form), _of(form)
        back = f"/tasks/{ids[0]}" if len(ids) == 1 else url("/tasks", filter=text)
        what = f"{len(ids)} selected tasks" if len(ids) > 1 else "this task" if ids else f"all tasks that match: {text}"
        if text == EVERY:
            what = "all tasks, whatever they are"
        says = [f"{deed.verb} {what}.", deed.means]
        fields = [*deed.fields(form), reason(form)]
        matched, is_partial = await _count(visit, deed, ids, text, says)
        if matched > TYPED_FROM or is_partial:
            hint = "a number so large has to be typed, so that nobody does this by mistake"
            fields.append(Entry("typed", f"Type {matched} to go on", value="", hint=hint, is_required=True))
        if not ids and matched and not is_partial:
            label = "Go on also if other than these are matched by then"
            fields.append(Entry("any_count", label, "checkbox", form.get("any_count")))
        carried = [("ids", " ".join(ids)), ("filter", text), ("matched", str(matched)), ("back", back)]
        carried.append(("partial", "1" if is_partial else ""))
        carried.append(("operation_id", form.get("operation_id") or str(uuid.uuid4())))
        number = f"{deed.verb} {count(matched, is_partial)} task{'' if matched == 1 else 's'}"
        return Ask(
            f"{deed.verb} tasks" if len(ids) != 1 else f"{deed.verb} task",
            says,
            number,
            fields,
            carried,
            back,
            deed.is_danger,
            matched > 0,
        )

    return ask


async def _count(visit: Visit, deed: _Deed, ids: list[str], text: str, says: list[str]) -> tuple[int, bool]:
    """How many would be matched, by a dry run; what keeps that from being known is said."""
    request = bulk_operation_pb2.StartBulkOperationRequest(filter=text, task_ids=ids, dry_run=True)
    request.action.CopyFrom(_example(deed))
    try:
        found = (await visit.call(_START, request)).operation
    except TaskqError as error:
        says.append(str(error))
        return 0, False
    many = count(found.matched_tasks, found.matched_is_partial)
    says.append(f"By a dry run just now it matches {many} task{'' if found.matched_tasks == 1 else 's'}.")
    return found.matched_tasks, found.matched_is_partial


def _example(deed: _Deed) -> bulk_operation_pb2.BulkAction:
    """An action of that kind, to count with: what it asks for is not known yet."""
    return deed.read(Form([("delay", "0"), ("priority", "0")]))


def _doer(read: Callable[[Form], bulk_operation_pb2.BulkAction]) -> Callable[[Visit, Form], Awaitable[str]]:
    async def do(visit: Visit, form: Form) -> str:
        return await _start(visit, form, read(form))

    return do


async def _start(visit: Visit, form: Form, action: bulk_operation_pb2.BulkAction) -> str:
    ids, matched = _ids(form), form.number("matched", bits=64)
    if (matched > TYPED_FROM or form.get("partial")) and form.get("typed").replace(" ", "") != str(matched):
        raise fault("typed", f"must be {matched}")
    is_exact = not ids and not form.get("any_count") and not form.get("partial")
    request = bulk_operation_pb2.StartBulkOperationRequest(
        operation_id=form.get("operation_id"),
        filter=_of(form),
        task_ids=ids,
        action=action,
        expected_count=matched if is_exact else 0,
        reason=form.get("reason"),
    )
    operation = (await visit.call(_START, request)).operation
    is_gone = action.WhichOneof("action") == "delete"
    if len(ids) == 1 and not is_gone:
        return url(f"/tasks/{ids[0]}", op=operation.operation_id)
    return f"/operations/{operation.operation_id}"


async def _ask_cancel(visit: Visit, form: Form) -> Ask:
    task_id = form.get("task_id")
    says = ["A task that waits or runs is cancelled; the processor of one that runs is told to stop."]
    carried = [("task_id", task_id)]
    return Ask("Cancel task", says, "Cancel task", [reason(form)], carried, f"/tasks/{task_id}", is_danger=True)


async def _cancel(visit: Visit, form: Form) -> str:
    """No bulk operation: whoever may enqueue a task may cancel it, and the audit names the task."""
    if len(why := form.get("reason")) > MOST_REASON:
        raise fault("reason", f"must be at most {MOST_REASON:,} characters; has {len(why):,}")
    request = scheduler_service_pb2.CancelTaskRequest(task_id=form.get("task_id"))
    task = (await visit.call("SchedulerService/CancelTask", request, reason=why)).task
    return f"/tasks/{task.task_id}?note=cancelled"


async def _ask_edited(visit: Visit, form: Form) -> Ask:
    """Another payload for one task: the old one stays as it is, and the new one is linked to it."""
    ids = _ids(form)
    if len(ids) != 1:
        raise fault("ids", "must be one task")
    old = await _old(visit, ids[0])
    shown = text_of(old.payload.data)
    text = form.raw("payload") if form.get("operation_id") else shown or ""
    kind = form.get("content_type") or old.payload.content_type
    says = ["A new task is made that differs by this payload, and is linked to this one, which stays as it is."]
    is_text = shown is not None
    if not is_text:
        says.append("Its payload is no text, or too much of it: it cannot be edited here.")
    return Ask(
        "Rerun with another payload",
        says,
        "Rerun with this payload",
        [
            Entry("payload", "Payload", "textarea", text),
            Entry("content_type", "Content type", value=kind),
            reason(form),
        ],
        [("ids", ids[0]), ("operation_id", form.get("operation_id") or str(uuid.uuid4()))],
        f"/tasks/{ids[0]}",
        is_possible=is_text,
    )


async def _do_edited(visit: Visit, form: Form) -> str:
    ids = _ids(form)
    if len(ids) != 1:
        raise fault("ids", "must be one task")
    action = bulk_operation_pb2.BulkAction()
    action.rerun.payload.CopyFrom((await _old(visit, ids[0])).payload)
    read_payload(form, action.rerun.payload)
    return await _start(visit, form, action)


async def _old(visit: Visit, task_id: str) -> task_pb2.Task:
    asked = admin_task_pb2.AdminServiceGetTaskRequest(task_id=task_id, view=admin_task_pb2.TASK_VIEW_FULL)
    old: task_pb2.Task = (await visit.call("AdminService/GetTask", asked)).detail.task
    return old


ACTIONS: dict[str, Action] = {
    **{name: Action(_asker(deed), _doer(deed.read)) for name, deed in DEEDS.items()},
    "cancel-task": Action(_ask_cancel, _cancel),
    "rerun-edited": Action(_ask_edited, _do_edited),
}
