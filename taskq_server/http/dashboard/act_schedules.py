"""What is done to schedules."""

from __future__ import annotations

import uuid
from typing import Any

from taskq.v1 import schedule_service_pb2
from taskq_server.http.dashboard.asking import Action, Ask, Entry
from taskq_server.http.dashboard.forms import Form, fault
from taskq_server.http.dashboard.visit import Visit

_SERVICE = "ScheduleService"
_OUTCOMES = {
    schedule_service_pb2.FIRING_OUTCOME_FIRED: "triggered",
    schedule_service_pb2.FIRING_OUTCOME_SKIPPED: "skipped",
    schedule_service_pb2.FIRING_OUTCOME_BUFFERED: "buffered",
}
_OWN = "as the schedule says"


async def _schedule(visit: Visit, form: Form) -> Any:
    asked = schedule_service_pb2.GetScheduleRequest(schedule_id=form.get("schedule_id"))
    return (await visit.call(f"{_SERVICE}/GetSchedule", asked)).schedule


def _page(schedule_id: str, note: str = "") -> str:
    return f"/schedules/{schedule_id}" + (f"?note={note}" if note else "")


def _note(form: Form) -> Entry:
    return Entry("note", "Note", value=form.get("note"), hint="for people: why, and until when")


def _overlap(form: Form) -> Entry:
    names = [name.removeprefix("OVERLAP_").lower() for name in list(schedule_service_pb2.Overlap.keys())[1:]]
    return Entry("overlap", "Overlap", "select", form.get("overlap"), options=(_OWN, *names))


def _overlap_of(form: Form) -> Any:
    if form.get("overlap", _OWN) == _OWN:
        return schedule_service_pb2.OVERLAP_UNSPECIFIED
    return form.choice("overlap", schedule_service_pb2.Overlap, prefix="OVERLAP_")


async def _ask_pause(visit: Visit, form: Form) -> Ask:
    one = await _schedule(visit, form)
    says = [f"{one.name} fires no more until it is resumed. What is due or runs goes on."]
    carried = [("schedule_id", one.schedule_id)]
    return Ask("Pause schedule", says, "Pause", [_note(form)], carried, _page(one.schedule_id))


async def _pause(visit: Visit, form: Form) -> str:
    asked = schedule_service_pb2.PauseScheduleRequest(schedule_id=form.get("schedule_id"), note=form.get("note"))
    await visit.call(f"{_SERVICE}/PauseSchedule", asked)
    return _page(asked.schedule_id, "paused")


async def _ask_resume(visit: Visit, form: Form) -> Ask:
    one = await _schedule(visit, form)
    says = [f"{one.name} fires again. What it has missed is for its catch-up policy to say."]
    return Ask("Resume schedule", says, "Resume", [], [("schedule_id", one.schedule_id)], _page(one.schedule_id))


async def _resume(visit: Visit, form: Form) -> str:
    asked = schedule_service_pb2.ResumeScheduleRequest(schedule_id=form.get("schedule_id"))
    await visit.call(f"{_SERVICE}/ResumeSchedule", asked)
    return _page(asked.schedule_id, "resumed")


async def _ask_trigger(visit: Visit, form: Form) -> Ask:
    one = await _schedule(visit, form)
    says = [f"{one.name} fires once, now, whatever its recurrence says."]
    carried = [("schedule_id", one.schedule_id), ("task_id", form.get("task_id") or str(uuid.uuid4()))]
    return Ask("Trigger schedule", says, "Trigger", [_overlap(form)], carried, _page(one.schedule_id))


async def _trigger(visit: Visit, form: Form) -> str:
    asked = schedule_service_pb2.TriggerScheduleRequest(
        schedule_id=form.get("schedule_id"), task_id=form.get("task_id"), overlap=_overlap_of(form)
    )
    answer = await visit.call(f"{_SERVICE}/TriggerSchedule", asked)
    return _page(asked.schedule_id, _OUTCOMES.get(answer.outcome, ""))


async def _ask_backfill(visit: Visit, form: Form) -> Ask:
    one = await _schedule(visit, form)
    says = [
        f"{one.name} fires at nominal times that are over and have not fired.",
        "At most 1,000 nominal times; what has fired is passed over.",
    ]
    hint = "UTC unless it says otherwise: 2026-01-31T08:00"
    fields = [
        Entry("start_time", "From", value=form.get("start_time"), hint=hint, is_required=True),
        Entry("end_time", "Until", value=form.get("end_time"), hint="not later than now", is_required=True),
        _overlap(form),
    ]
    return Ask(
        "Backfill schedule", says, "Backfill", fields, [("schedule_id", one.schedule_id)], _page(one.schedule_id)
    )


async def _backfill(visit: Visit, form: Form) -> str:
    start, end = form.time("start_time"), form.time("end_time")
    if start is None or end is None:
        raise fault("start_time" if start is None else "end_time", "must be a time")
    asked = schedule_service_pb2.BackfillScheduleRequest(
        schedule_id=form.get("schedule_id"), start_time=start, end_time=end, overlap=_overlap_of(form)
    )
    answer = await visit.call(f"{_SERVICE}/BackfillSchedule", asked)
    counts = f"fired={answer.fired}&skipped={answer.skipped}&buffered={answer.buffered}&existing={answer.existing}"
    return f"{_page(asked.schedule_id)}?{counts}"


async def _ask_delete(visit: Visit, form: Form) -> Ask:
    one = await _schedule(visit, form)
    says = [f"{one.name} is deleted, with its firings that are not due yet. This cannot be undone."]
    carried = [("schedule_id", one.schedule_id), ("etag", one.etag)]
    return Ask("Delete schedule", says, "Delete", [], carried, _page(one.schedule_id), is_danger=True)


async def _delete(visit: Visit, form: Form) -> str:
    asked = schedule_service_pb2.DeleteScheduleRequest(schedule_id=form.get("schedule_id"), etag=form.get("etag"))
    await visit.call(f"{_SERVICE}/DeleteSchedule", asked)
    return "/schedules?note=deleted"


ACTIONS: dict[str, Action] = {
    "pause-schedule": Action(_ask_pause, _pause),
    "resume-schedule": Action(_ask_resume, _resume),
    "trigger-schedule": Action(_ask_trigger, _trigger),
    "backfill-schedule": Action(_ask_backfill, _backfill),
    "delete-schedule": Action(_ask_delete, _delete),
}
