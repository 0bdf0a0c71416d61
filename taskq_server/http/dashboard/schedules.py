"""What recurs: all schedules, and one with the firings to come."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from starlette.responses import Response

from taskq.v1 import schedule_service_pb2
from taskq_server.http.dashboard import payloads
from taskq_server.http.dashboard.visit import Visit

PREVIEWED = 20


async def page(visit: Visit) -> Response:
    request = schedule_service_pb2.ListSchedulesRequest(
        page_size=100, page_token=visit.query("page"), name_prefix=visit.query("name")
    )
    answer = await visit.call("ScheduleService/ListSchedules", request)
    return visit.show("schedules", answer=answer, name=request.name_prefix, is_first=not request.page_token)


async def one(visit: Visit) -> Response:
    schedule_id = visit.path("schedule_id")
    asked = schedule_service_pb2.GetScheduleRequest(schedule_id=schedule_id)
    schedule = (await visit.call("ScheduleService/GetSchedule", asked)).schedule
    preview = await visit.part(
        "ScheduleService/PreviewSchedule",
        schedule_service_pb2.PreviewScheduleRequest(schedule_id=schedule_id, count=PREVIEWED),
    )
    return visit.show(
        "schedule",
        schedule=schedule,
        preview=preview,
        payload=_payload(visit, schedule),
        raw=json_format.MessageToJson(schedule),
    )


def _payload(visit: Visit, schedule: Any) -> payloads.Shown | None:
    """None for somebody who may not see it: the answer has none then."""
    if not visit.caller.rights.see_payloads(schedule.task.name):
        return None
    return payloads.shown(schedule.task.payload)
