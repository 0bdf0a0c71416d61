"""The load to come: what schedules will fire and what waits for its time, minute by minute or hour by hour."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp
from starlette.responses import Response

from taskq.v1 import admin_task_pb2, schedule_service_pb2
from taskq_server.http.dashboard.forms import fault
from taskq_server.http.dashboard.render import iso, seconds_of
from taskq_server.http.dashboard.visit import Part, Visit

MOST_SCHEDULES = 100
MOST_FIRINGS = 1_000
"""Of one schedule; and so many tasks that wait are looked at."""
MOST_PAGES = 3
HEATS = 5


@dataclass(frozen=True, slots=True)
class View:
    """How the time to come is cut: rows of cells."""

    cell_seconds: int
    columns: int
    rows: int

    @property
    def seconds(self) -> int:
        return self.cell_seconds * self.columns * self.rows


VIEWS = {"day": View(60, 60, 24), "week": View(3_600, 24, 7), "month": View(3_600, 24, 31)}


@dataclass(frozen=True, slots=True)
class Cell:
    """A stretch of time, and how much is due in it."""

    x: int
    y: int
    heat: int
    title: str
    href: str
    label: str


async def page(visit: Visit) -> Response:
    kind = visit.query("view") if visit.query("view") in VIEWS else "day"
    view, zone = VIEWS[kind], _zone(visit.query("zone", "UTC"))
    now = visit.now_us // 1_000_000
    local = datetime.fromtimestamp(now, zone)
    cut = local.replace(minute=0, second=0) if kind == "day" else local.replace(hour=0, minute=0, second=0)
    start = int(cut.timestamp())
    load = Load(start, view)
    await load.take_schedules(visit, now)
    waiting = await load.take_tasks(visit)
    return await visit.show_large(
        "calendar",
        kind=kind,
        views=list(VIEWS),
        zone=str(zone),
        view=view,
        cells=await asyncio.to_thread(_cells, load, view, start, zone, now),
        hours=[_row(start + i * view.cell_seconds * view.columns, zone, kind) for i in range(view.rows)],
        load=load,
        waiting=waiting,
        busiest=load.busiest(zone),
    )


class Load:
    """How many firings and tasks are due in each cell."""

    def __init__(self, start: int, view: View) -> None:
        self.start = start
        self.view = view
        self.counts: Counter[int] = Counter()
        self.names: dict[int, Counter[str]] = {}
        self._stored: Counter[tuple[str, int]] = Counter()
        """Firings by task name and due time: some of them are tasks by now, which count once."""
        self.partial: list[str] = []
        """What there is more of than was looked at."""

    def _add(self, time: float, name: str) -> None:
        cell = int(time - self.start) // self.view.cell_seconds
        if 0 <= cell < self.view.columns * self.view.rows:
            self.counts[cell] += 1
            self.names.setdefault(cell, Counter())[name] += 1

    async def take_schedules(self, visit: Visit, now: int) -> None:
        asked = schedule_service_pb2.ListSchedulesRequest(page_size=MOST_SCHEDULES)
        listed = await visit.call("ScheduleService/ListSchedules", asked)
        if listed.next_page_token:
            self.partial.append(f"only the first {MOST_SCHEDULES} schedules are looked at")
        end = self.start + self.view.seconds
        for schedule in listed.schedules:
            if schedule.HasField("pause") or not schedule.HasField("next_fire_time"):
                continue
            if schedule.next_fire_time.seconds >= end:
                continue
            await self._take(visit, schedule, now, end)

    async def _take(self, visit: Visit, schedule: Any, now: int, end: int) -> None:
        request = schedule_service_pb2.PreviewScheduleRequest(
            schedule_id=schedule.schedule_id, after_time=Timestamp(seconds=now), count=MOST_FIRINGS
        )
        found = await visit.part("ScheduleService/PreviewSchedule", request)
        firings = found.answer.firings if found else []
        for firing in firings:
            self._add(seconds_of(firing.due_time), schedule.name)
            self._stored[schedule.task.name, firing.due_time.ToMicroseconds()] += 1
        if len(firings) == MOST_FIRINGS and firings[-1].nominal_time.seconds < end:
            self.partial.append(f"of schedule {schedule.name} only the next {MOST_FIRINGS} firings are looked at")

    async def take_tasks(self, visit: Visit) -> Part:
        """Those that wait for a time within the view, those firings apart that were counted with their schedule."""
        end = Timestamp(seconds=self.start + self.view.seconds)
        now = Timestamp(seconds=visit.now_us // 1_000_000)
        text = f"state:SCHEDULED due_time>={iso(now)} due_time<{iso(end)}"
        request = admin_task_pb2.ListTasksRequest(filter=text, page_size=1_000)
        for _ in range(MOST_PAGES):
            part = await visit.part("AdminService/ListTasks", request)
            if not part:
                return part
            for task in part.answer.tasks:
                key = task.name, task.due_time.ToMicroseconds()
                if self._stored[key]:
                    self._stored[key] -= 1
                else:
                    self._add(seconds_of(task.due_time), task.name)
            if not part.answer.next_page_token:
                return part
            request.page_token = part.answer.next_page_token
        self.partial.append("more tasks wait than were looked at")
        return part

    def busiest(self, zone: ZoneInfo) -> list[tuple[str, int, str]]:
        """The ten cells with most in them: when, how much, and of what."""
        found = []
        for cell, many in self.counts.most_common(10):
            moment = datetime.fromtimestamp(self.start + cell * self.view.cell_seconds, zone)
            of = ", ".join(f"{name} ({times})" for name, times in self.names[cell].most_common(3))
            found.append((moment.strftime("%a %d %b %H:%M"), many, of))
        return found


def _cells(load: Load, view: View, start: int, zone: ZoneInfo, now: int) -> list[Cell]:
    most = max(load.counts.values(), default=0)
    found = []
    for cell in range(view.columns * view.rows):
        many = load.counts[cell]
        since = start + cell * view.cell_seconds
        until = since + view.cell_seconds
        moment = datetime.fromtimestamp(since, zone)
        heat = -1 if until <= now else 0 if not many else max(1, round(HEATS * many / most))
        text = f"{moment.strftime('%a %d %b %H:%M')}: {many}"
        window = f"due_time>={_utc(since)} due_time<{_utc(until)}" if many else ""
        found.append(Cell(cell % view.columns, cell // view.columns, heat, text, window, str(many)))
    return found


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _row(seconds: int, zone: ZoneInfo, kind: str) -> str:
    moment = datetime.fromtimestamp(seconds, zone)
    return moment.strftime("%H:%M" if kind == "day" else "%a %d")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise fault("zone", f"must be a time zone such as Europe/Berlin; is {name[:64]!r}") from None
