"""The load to come, and what has run: minute by minute or hour by hour."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from starlette.responses import Response

from taskq_server.http.dashboard.forms import fault
from taskq_server.http.dashboard.load import Load, Ran, View
from taskq_server.http.dashboard.visit import Part, Visit

HEATS = 5
MOST_LISTED = 10
VIEWS = {"day": View(60, 60, 24, 1), "week": View(3_600, 24, 7, 12), "month": View(3_600, 24, 31, 2)}


@dataclass(frozen=True, slots=True)
class Cell:
    """A stretch of time, and how much is due in it, or has run."""

    x: int
    y: int
    kind: str
    """How it looks: how much there is, to come or over."""
    has_failed: bool
    is_over: bool
    """More would run at once than there are credits."""
    title: str
    filter: str
    """What leads to its tasks; empty for a cell without any, or of which none is kept."""


@dataclass(frozen=True, slots=True)
class Busy:
    """One of the cells with most in them."""

    when: str
    filter: str
    many: int
    of: str = ""
    at_once: int = 0
    failed: int = 0


async def page(visit: Visit) -> Response:
    kind = visit.query("view") if visit.query("view") in VIEWS else "day"
    view, zone = VIEWS[kind], _zone(visit.query("zone", "UTC"))
    asked = visit.query("back")
    back = min(int(asked), view.most_back) if asked.isdecimal() and len(asked) < 5 else 0
    now = visit.now_us // 1_000_000
    local = datetime.fromtimestamp(now, zone)
    cut = local.replace(minute=0, second=0) if kind == "day" else local.replace(hour=0, minute=0, second=0)
    load = Load(int(cut.timestamp()) - back * view.seconds, view)
    waiting = Part(())
    runs = await load.take_runs(visit, now)
    if not back:
        await load.take_run_times(visit, now)
        await load.take_schedules(visit, now)
        waiting = await load.take_tasks(visit)
    drawn = await asyncio.to_thread(_Drawn, load, zone, now, now - visit.frame.retention_seconds)
    return await visit.show_large(
        "calendar",
        kind=kind,
        views=list(VIEWS),
        zone=str(zone),
        view=view,
        back=back,
        cells=drawn.cells,
        hours=[_row(load.start + i * view.cell_seconds * view.columns, zone, kind) for i in range(view.rows)],
        load=load,
        runs=runs,
        waiting=waiting,
        to_come=drawn.to_come,
        over=drawn.over,
    )


class _Drawn:
    """A load as its page shows it."""

    def __init__(self, load: Load, zone: ZoneInfo, now: int, kept_since: float) -> None:
        self._load = load
        self._zone = zone
        self._now = now
        self._kept_since = kept_since
        self._at_once = load.at_once()
        self._most_due = max(load.counts.values(), default=0)
        self._most_ran = max((one.attempts for one in load.ran.values()), default=0)
        self.cells = [self._cell(cell) for cell in range(load.view.cells)]
        self.to_come = [self._busy(cell, many) for cell, many in load.counts.most_common(MOST_LISTED)]
        most = sorted(load.ran, key=lambda cell: (-load.ran[cell].attempts, cell))[:MOST_LISTED]
        self.over = [self._was_busy(cell) for cell in most if load.ran[cell].attempts]

    def _since(self, cell: int) -> int:
        return self._load.start + cell * self._load.view.cell_seconds

    def _when(self, cell: int) -> str:
        return datetime.fromtimestamp(self._since(cell), self._zone).strftime("%a %d %b %H:%M")

    def _window(self, cell: int, of: str) -> str:
        since = self._since(cell)
        return f"{of}>={_utc(since)} {of}<{_utc(since + self._load.view.cell_seconds)}"

    def _was_leased(self, cell: int) -> str:
        """Nothing where what ended then is deleted by now: figures are kept longer than tasks."""
        is_gone = self._since(cell) + self._load.view.cell_seconds <= self._kept_since
        return "" if is_gone else self._window(cell, "lease_time")

    def _cell(self, cell: int) -> Cell:
        at = cell % self._load.view.columns, cell // self._load.view.columns
        ran, due = self._load.ran.get(cell, Ran()), self._load.counts[cell]
        at_once = self._at_once.get(cell, 0)
        told = [f"{ran.attempts} ran" + (f", {ran.failed} failed" if ran.failed else "")] if ran != Ran() else []
        told += [f"{due} due" + (f", {at_once} at once" if at_once > 1 else "")] if due else []
        text = f"{self._when(cell)}: {'; '.join(told)}"
        if due:  # of the cell that has begun, what is to come of it
            kind, is_over = f"heat-{_heat(due, self._most_due)}", 0 < self._load.credits < at_once
            return Cell(*at, kind, ran.failed > 0, is_over, text, f"state:SCHEDULED {self._window(cell, 'due_time')}")
        if told:
            kind = f"ran-{_heat(ran.attempts, self._most_ran)}"
            return Cell(*at, kind, ran.failed > 0, False, text, self._was_leased(cell))
        is_past = self._since(cell) + self._load.view.cell_seconds <= self._now
        return Cell(*at, "heat-past" if is_past else "heat-0", False, False, "", "")

    def _busy(self, cell: int, many: int) -> Busy:
        of = ", ".join(f"{name} ({times})" for name, times in self._load.names[cell].most_common(3))
        text = f"state:SCHEDULED {self._window(cell, 'due_time')}"
        return Busy(self._when(cell), text, many, of, self._at_once.get(cell, 0))

    def _was_busy(self, cell: int) -> Busy:
        ran = self._load.ran[cell]
        return Busy(self._when(cell), self._was_leased(cell), ran.attempts, failed=ran.failed)


def _heat(many: int, most: int) -> int:
    return max(1, round(HEATS * many / most)) if most else 1


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
