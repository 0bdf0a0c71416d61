"""What recurs: all schedules, and one with the firings to come."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from starlette.responses import Response

from taskq.v1 import admin_task_pb2, schedule_service_pb2
from taskq_server.http.dashboard import payloads, results
from taskq_server.http.dashboard.kept import spell
from taskq_server.http.dashboard.visit import Visit

PREVIEWED = 20
MOST_LOOKS = 30
"""So many schedules' firings are read for one visit to the list; those of the others at the next."""
KEPT_US = 30_000_000
"""A firing may change without its schedule's figures: when it is run again."""


async def page(visit: Visit) -> Response:
    request = schedule_service_pb2.ListSchedulesRequest(
        page_size=100, page_token=visit.query("page"), name_prefix=visit.query("name")
    )
    answer = await visit.call("ScheduleService/ListSchedules", request)
    return visit.show(
        "schedules",
        answer=answer,
        name=request.name_prefix,
        is_first=not request.page_token,
        last=await _last_of(visit, answer.schedules),
    )


async def one(visit: Visit) -> Response:
    schedule_id = visit.path("schedule_id")
    asked = schedule_service_pb2.GetScheduleRequest(schedule_id=schedule_id)
    schedule = (await visit.call("ScheduleService/GetSchedule", asked)).schedule
    preview = await visit.part(
        "ScheduleService/PreviewSchedule",
        schedule_service_pb2.PreviewScheduleRequest(schedule_id=schedule_id, count=PREVIEWED),
    )
    last = await visit.part(_LIST, _asked(schedule.name))
    return visit.show(
        "schedule",
        schedule=schedule,
        preview=preview,
        last=last,
        row=_row(visit, last.answer) if last else None,
        most=results.MOST,
        without=_without(schedule, last.answer) if last else "",
        payload=_payload(visit, schedule),
        raw=json_format.MessageToJson(schedule),
    )


_LIST = "AdminService/ListTasks"


def _asked(name: str) -> admin_task_pb2.ListTasksRequest:
    """Some more than are shown: the last may be to come."""
    return admin_task_pb2.ListTasksRequest(filter=f"schedule={name}", page_size=results.MOST + 10)


async def _last_of(visit: Visit, schedules: Any) -> dict[str, results.Row]:
    """The last firings of each. Each list is read when its schedule has fired, or a task of it has ended, or is old."""
    found: dict[str, results.Row] = {}
    looks = 0
    for one in schedules if visit.may(_LIST) else ():
        age = spell(one.schedule_id, visit.now_us, KEPT_US)
        version = one.last_firing.task_id, one.unfinished_tasks, one.counters.fired, age
        known = visit.kept.of(one.schedule_id, version)
        if known is None and one.HasField("last_firing") and looks < MOST_LOOKS:
            looks += 1
            if part := await visit.part(_LIST, _asked(one.name)):
                known = _row(visit, part.answer)
                visit.kept.keep(one.schedule_id, version, known)
        if (shown := known or visit.kept.last(one.schedule_id)) is not None:
            found[one.schedule_id] = shown
    return found


def _row(visit: Visit, answer: admin_task_pb2.ListTasksResponse) -> results.Row:
    return results.row(results.results(answer.tasks, visit.now))


def _without(schedule: Any, answer: admin_task_pb2.ListTasksResponse) -> str:
    """Why there are no results to show: its tasks are deleted some time after they have finished."""
    if answer.next_page_token:
        return "None among the tasks that were looked at."
    if answer.tasks:
        return "All of its tasks are to come."
    if schedule.counters.fired or schedule.HasField("last_firing"):
        return "None of its firings' tasks is kept."
    return "It has not fired yet."


def _payload(visit: Visit, schedule: Any) -> payloads.Shown | None:
    """None for somebody who may not see it: the answer has none then."""
    if not visit.caller.rights.see_payloads(schedule.task.name):
        return None
    return payloads.shown(schedule.task.payload)
