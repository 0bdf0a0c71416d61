"""What is due and what has run in each cell of the calendar, and how much of it would run at once."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from taskq.v1 import admin_task_pb2, schedule_service_pb2, stats_pb2
from taskq_server.http.dashboard.coming import coming, missing
from taskq_server.http.dashboard.render import iso, seconds_of
from taskq_server.http.dashboard.visit import Part, Visit

MOST_SCHEDULES = 100
MOST_PAGES = 3
DAY_SECONDS = 86_400
SHORTEST_SECONDS = 0.001
"""Of what nobody has seen run: it counts beside what is due at the same instant."""


@dataclass(frozen=True, slots=True)
class View:
    """How time is cut: rows of cells."""

    cell_seconds: int
    columns: int
    rows: int
    most_back: int
    """So many of these before the present one are shown: no older figures are kept."""

    @property
    def cells(self) -> int:
        return self.columns * self.rows

    @property
    def seconds(self) -> int:
        return self.cell_seconds * self.cells


@dataclass(frozen=True, slots=True)
class Ran:
    """Attempts that began, and that failed, in a cell."""

    attempts: int = 0
    failed: int = 0


class Load:
    """How many firings and tasks are due in each cell to come, and what ran in those that are over."""

    def __init__(self, start: int, view: View) -> None:
        self.start = start
        self.view = view
        self.counts: Counter[int] = Counter()
        self.names: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self.ran: dict[int, Ran] = {}
        self.partial: list[str] = []
        """What there is more of than was looked at."""
        self.credits = 0
        """Of the processors that live now."""
        self._points: list[tuple[float, str]] = []
        self._stored: Counter[tuple[str, int]] = Counter()
        """Firings by task name and due time: some of them are tasks by now, which count once."""
        self._run_seconds: dict[str, float] = {}

    def _cell(self, time: float) -> int | None:
        cell = int(time - self.start) // self.view.cell_seconds
        return cell if 0 <= cell < self.view.cells else None

    def add(self, time: float, shown: str, name: str) -> None:
        """One more is due, which is `shown` by its schedule's name or its own."""
        if (cell := self._cell(time)) is not None:
            self.counts[cell] += 1
            self.names[cell][shown] += 1
            self._points.append((time, name))

    async def take_runs(self, visit: Visit, now: int) -> Part:
        """What was done in the cells that are over, or have begun."""
        step = stats_pb2.STATS_STEP_MINUTE if self.view.cell_seconds == 60 else stats_pb2.STATS_STEP_HOUR
        end = min(now + 1, self.start + self.view.seconds)
        asked = stats_pb2.GetStatsRequest(
            start_time=Timestamp(seconds=self.start), end_time=Timestamp(seconds=end), step=step
        )
        found = await visit.part("AdminService/GetStats", asked)
        if found:
            self.credits = found.answer.credits
            for one in found.answer.history:
                # A span is an hour of UTC, which in some zones begins within one of theirs.
                if (cell := self._cell(one.start_time.seconds)) is not None:
                    self.ran[cell] = Ran(one.leased, one.failed + one.retried)
        return found

    async def take_run_times(self, visit: Visit, now: int) -> None:
        """How long 95 of 100 runs of each name take: the longest of the last hours of a day."""
        asked = stats_pb2.GetStatsRequest(
            start_time=Timestamp(seconds=now - DAY_SECONDS), step=stats_pb2.STATS_STEP_HOUR, by_name=True
        )
        found = await visit.part("AdminService/GetStats", asked)
        for one in found.answer.history if found else ():
            if one.run_time.count:
                known = self._run_seconds.get(one.name, 0.0)
                self._run_seconds[one.name] = max(known, seconds_of(one.run_time.p95))

    async def take_schedules(self, visit: Visit, now: int) -> None:
        asked = schedule_service_pb2.ListSchedulesRequest(page_size=MOST_SCHEDULES)
        listed = await visit.call("ScheduleService/ListSchedules", asked)
        if listed.next_page_token:
            self.partial.append(f"only the first {MOST_SCHEDULES} schedules are looked at")
        end = self.start + self.view.seconds
        found = await coming(
            visit,
            (
                one
                for one in listed.schedules
                if one.HasField("next_fire_time") and not one.HasField("pause") and one.next_fire_time.seconds < end
            ),
            now,
            end,
        )
        for one in found:
            for firing in one.within(end * 1_000_000):
                self.add(firing.due_us / 1_000_000, one.schedule.name, one.schedule.task.name)
                self._stored[one.schedule.task.name, firing.due_us] += 1
        self.partial += missing(found, end)

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
                    self.add(seconds_of(task.due_time), task.name, task.name)
            if not part.answer.next_page_token:
                return part
            request.page_token = part.answer.next_page_token
        self.partial.append("more tasks wait than were looked at")
        return part

    def at_once(self) -> dict[int, int]:
        """In each cell in which something is due, how many would run side by side at the most, each from its due time
        on for as long as 95 of 100 runs of its name take. What runs already is not counted."""
        found: dict[int, int] = {}
        ends: list[float] = []
        for time, name in sorted(self._points):
            while ends and ends[0] <= time:
                heapq.heappop(ends)
            heapq.heappush(ends, time + max(self._run_seconds.get(name, 0.0), SHORTEST_SECONDS))
            if (cell := self._cell(time)) is not None:
                found[cell] = max(found.get(cell, 0), len(ends))
        return found
