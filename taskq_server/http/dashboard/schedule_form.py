"""A schedule to be made or changed, with the firings that it would have."""

from __future__ import annotations

import uuid
from typing import Any

from google.protobuf.duration_pb2 import Duration
from starlette.responses import Response

from taskq.v1 import schedule_service_pb2
from taskq_server.core.errors import TaskqError
from taskq_server.http.dashboard.calls import NotServed
from taskq_server.http.dashboard.forms import Form, read_payload, text_of
from taskq_server.http.dashboard.render import iso
from taskq_server.http.dashboard.schedules import PREVIEWED
from taskq_server.http.dashboard.visit import Visit

OVERLAPS = [name for name in schedule_service_pb2.Overlap.keys() if not name.endswith("UNSPECIFIED")]  # noqa: SIM118
CATCH_UPS = [name for name in schedule_service_pb2.CatchUp.keys() if not name.endswith("UNSPECIFIED")]  # noqa: SIM118
DST_POLICIES = [name for name in schedule_service_pb2.DstPolicy.keys() if not name.endswith("UNSPECIFIED")]  # noqa: SIM118


async def page(visit: Visit) -> Response:
    if (schedule_id := visit.request.path_params.get("schedule_id")) is not None:
        return _show(visit, values_of(await _read(visit, schedule_id)), is_new=False)
    if like := visit.query("like"):
        values = values_of(await _read(visit, like)) | {"name": "", "schedule_id": str(uuid.uuid4()), "etag": ""}
        values["like"] = like
        return _show(visit, values, is_new=True)
    empty = schedule_service_pb2.Schedule(schedule_id=str(uuid.uuid4()))
    empty.recurrence.crons.append("0 9 * * MON-FRI")
    empty.task.payload.content_type, empty.task.payload.data = "application/json", b"{}"
    return _show(visit, values_of(empty), is_new=True)


async def save(visit: Visit) -> Response:
    form = await visit.form()
    schedule_id = visit.request.path_params.get("schedule_id")
    try:
        # What the form does not show stays as it is.
        schedule = schedule_service_pb2.Schedule(schedule_id=form.get("schedule_id"))
        if schedule_id is not None:
            schedule = await _read(visit, schedule_id)
        elif like := form.get("like"):
            schedule.task.CopyFrom((await _read(visit, like)).task)
        fill(schedule, form)
        if schedule_id is None:
            request = schedule_service_pb2.CreateScheduleRequest(schedule=schedule)
            answer = await visit.call("ScheduleService/CreateSchedule", request)
        else:
            schedule.etag = form.get("etag")
            changed = schedule_service_pb2.UpdateScheduleRequest(schedule=schedule)
            answer = await visit.call("ScheduleService/UpdateSchedule", changed)
    except TaskqError as error:
        names = values_of(schedule_service_pb2.Schedule())
        values = {name: form.raw(name) for name in names}
        return _show(visit, values, is_new=schedule_id is None, why=str(error), status=400)
    return visit.go(f"/schedules/{answer.schedule.schedule_id}?note={'created' if schedule_id is None else 'updated'}")


async def preview(visit: Visit) -> Response:
    """A fragment: the next firings of what stands in the form, or what is wrong with it."""
    form = await visit.form()
    request = schedule_service_pb2.PreviewScheduleRequest(count=PREVIEWED)
    try:
        fill_recurrence(request.recurrence, form)
        answer, why = await visit.call("ScheduleService/PreviewSchedule", request), ""
    except (TaskqError, NotServed) as error:
        answer, why = None, str(error)
    return visit.show("preview", answer=answer, why=why)


async def _read(visit: Visit, schedule_id: str) -> Any:
    asked = schedule_service_pb2.GetScheduleRequest(schedule_id=schedule_id)
    return (await visit.call("ScheduleService/GetSchedule", asked)).schedule


def fill(schedule: Any, form: Form) -> None:
    """Everything that the form shows, into a schedule."""
    schedule.name = form.get("name")
    fill_recurrence(schedule.recurrence, form)
    schedule.overlap = form.choice("overlap", schedule_service_pb2.Overlap, OVERLAPS[0])
    schedule.catch_up = form.choice("catch_up", schedule_service_pb2.CatchUp, CATCH_UPS[0])
    schedule.max_firings = form.number("max_firings", bits=64)
    task = schedule.task
    task.name = form.get("task_name")
    read_payload(form, task.payload)
    task.priority = form.number("priority")
    task.requires[:] = form.lines_of("requires", task.requires)
    task.tags[:] = form.lines_of("tags", task.tags)
    if (attempts := form.number("max_attempts")) or task.HasField("retry_policy"):
        task.retry_policy.max_attempts = attempts
    _set(task, "run_timeout", form.duration("run_timeout"))


def fill_recurrence(recurrence: Any, form: Form) -> None:
    recurrence.crons[:] = form.lines("crons")
    recurrence.excluded_crons[:] = form.lines("excluded_crons")
    recurrence.excluded_dates[:] = form.lines("excluded_dates")
    recurrence.time_zone = form.get("time_zone")
    recurrence.dst_policy = form.choice("dst_policy", schedule_service_pb2.DstPolicy, DST_POLICIES[0])
    _set(recurrence, "interval", form.duration("interval"))
    _set(recurrence, "jitter", form.duration("jitter"))
    _set(recurrence, "start_time", form.time("start_time"))
    _set(recurrence, "end_time", form.time("end_time"))


def _set(message: Any, field: str, value: Any) -> None:
    message.ClearField(field)
    if value is not None:
        getattr(message, field).CopyFrom(value)


def values_of(schedule: Any) -> dict[str, str]:
    """A schedule as the form's fields."""
    recurrence, task = schedule.recurrence, schedule.task
    text = text_of(task.payload.data)

    def chosen(enum: Any, value: int, default: str) -> str:
        return str(enum.Name(value)) if value else default

    return {
        "schedule_id": schedule.schedule_id,
        "etag": schedule.etag,
        "like": "",
        "name": schedule.name,
        "crons": "\n".join(recurrence.crons),
        "excluded_crons": "\n".join(recurrence.excluded_crons),
        "excluded_dates": "\n".join(recurrence.excluded_dates),
        "time_zone": recurrence.time_zone,
        "dst_policy": chosen(schedule_service_pb2.DstPolicy, recurrence.dst_policy, DST_POLICIES[0]),
        "interval": _span(recurrence, "interval"),
        "jitter": _span(recurrence, "jitter"),
        "start_time": iso(recurrence.start_time) if recurrence.HasField("start_time") else "",
        "end_time": iso(recurrence.end_time) if recurrence.HasField("end_time") else "",
        "overlap": chosen(schedule_service_pb2.Overlap, schedule.overlap, OVERLAPS[0]),
        "catch_up": chosen(schedule_service_pb2.CatchUp, schedule.catch_up, CATCH_UPS[1]),
        "max_firings": str(schedule.max_firings or ""),
        "task_name": task.name,
        "payload": text or "",
        "unshown": "" if text is not None else str(len(task.payload.data)),  # how many bytes the form cannot show
        "content_type": task.payload.content_type,
        "priority": str(task.priority),
        "requires": "\n".join(task.requires),
        "tags": "\n".join(task.tags),
        "max_attempts": str(task.retry_policy.max_attempts or ""),
        "run_timeout": _span(task, "run_timeout"),
    }


def _span(message: Any, field: str) -> str:
    if not message.HasField(field):
        return ""
    duration: Duration = getattr(message, field)
    return f"{duration.seconds + duration.nanos / 1e9:.6f}".rstrip("0").rstrip(".") + "s"


def _show(visit: Visit, values: dict[str, str], *, is_new: bool, why: str = "", status: int = 200) -> Response:
    return visit.show(
        "schedule_form",
        status,
        values=values,
        is_new=is_new,
        why=why,
        overlaps=OVERLAPS,
        catch_ups=CATCH_UPS,
        dst_policies=DST_POLICIES,
    )
