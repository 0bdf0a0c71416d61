"""How it goes: what there is, what was done, and what needs somebody's attention."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from starlette.responses import Response

from taskq.v1 import admin_service_pb2, failure_group_pb2, stats_pb2
from taskq_server.http.dashboard.failures import Apart, part
from taskq_server.http.dashboard.render import seconds_of
from taskq_server.http.dashboard.visit import Part, Visit

SPANS = {"15m": 900, "1h": 3_600, "6h": 21_600, "24h": 86_400, "7d": 604_800}
_STEPS = {60: stats_pb2.STATS_STEP_MINUTE, 3_600: stats_pb2.STATS_STEP_HOUR}
MOST_GROUPS = 10
"""Groups of failures that are asked for at once, those seen last first; those of which nothing is left are only
counted."""
MOST_PAGES = 5
"""So often, while too few of them fail."""
MOST_FAILING = 5
LATE_SECONDS = 60
"""The oldest due task may be so late before somebody should look."""


async def page(visit: Visit) -> Response:
    span = visit.query("span", "1h")
    seconds = SPANS.get(span, 3_600)
    step = 60 if seconds <= 21_600 else 3_600
    now = visit.now_us // 1_000_000
    start = (now - seconds) // step * step
    asked = stats_pb2.GetStatsRequest(start_time=Timestamp(seconds=start), step=_STEPS[step])
    stats = await visit.part("AdminService/GetStats", asked)
    failures, found = await _failures(visit)
    capabilities = await visit.part(
        "AdminService/ListCapabilities", admin_service_pb2.ListCapabilitiesRequest(page_size=1_000)
    )
    processors = await visit.part("AdminService/ListProcessors", admin_service_pb2.ListProcessorsRequest(page_size=200))
    return visit.show(
        "overview",
        span=span if span in SPANS else "1h",
        spans=list(SPANS),
        stats=stats,
        failures=failures,
        failing=found.failing[:MOST_FAILING],
        settled=len(found.settled),
        groups=len(found.failing) + len(found.settled),
        capabilities=capabilities,
        processors=processors,
        attention=_attention(stats, capabilities, now),
        charts=_charts(stats.answer, start, now, step) if stats else {},
    )


async def _failures(visit: Visit) -> tuple[Part, Apart]:
    """Groups until enough of them fail, with the page that was read last: what nobody has looked at is not settled."""
    request = failure_group_pb2.ListFailureGroupsRequest(page_size=MOST_GROUPS)
    found, read = Apart(), Part()
    for _ in range(MOST_PAGES):
        page = await visit.part("AdminService/ListFailureGroups", request)
        if not page:
            return read or page, found
        read = page
        await part(visit, read.answer.groups, found)
        if len(found.failing) >= MOST_FAILING or not read.answer.next_page_token:
            break
        request.page_token = read.answer.next_page_token
    return read, found


def _attention(stats: Part, capabilities: Part, now: int) -> list[dict[str, Any]]:
    """What somebody should look at, the worst first; each with a kind, a name, and what there is to say."""
    found: list[dict[str, Any]] = []
    for one in capabilities.answer.capabilities if capabilities else ():
        late = now - one.first_due_time.seconds if one.due_tasks else 0
        about = {"name": one.name, "due": one.due_tasks, "first": one.first_due_time}
        if one.HasField("pause"):
            found.append({"kind": "paused", **about, "note": one.pause.reason, "since": one.pause.pause_time})
        elif one.due_tasks and not one.processors:
            found.append({"kind": "unserved", **about})
        elif late > LATE_SECONDS:
            found.append({"kind": "late", **about})
    order = ["unserved", "late", "paused"]
    return sorted(found, key=lambda one: (order.index(one["kind"]), one["name"]))


def _charts(stats: stats_pb2.GetStatsResponse, start: int, end: int, step: int) -> dict[str, Any]:
    """Series for every span of the history, those in which nothing was done too."""
    buckets = {bucket.start_time.seconds: bucket for bucket in stats.history}
    times = list(range(start, end + 1, step))
    empty = stats_pb2.StatsBucket()
    row = [buckets.get(time, empty) for time in times]
    done = [[getattr(one, name) for one in row] for name in ("enqueued", "succeeded", "failed")]

    def spread(of: str, which: str) -> list[float | None]:
        found = (getattr(one, of) for one in row)
        return [_milliseconds(seconds_of(getattr(one, which))) if one.count else None for one in found]

    names = ("p50", "p95", "p99")
    return {
        "done": {"x": times, "series": done, "labels": ["enqueued", "succeeded", "failed"], "unit": ""},
        "late": {"x": times, "series": [spread("lateness", which) for which in names], "labels": names, "unit": "ms"},
        "run": {"x": times, "series": [spread("run_time", which) for which in names], "labels": names, "unit": "ms"},
    }


def _milliseconds(seconds: float) -> float:
    """To three figures."""
    value = seconds * 1_000
    return 0.0 if value <= 0 else round(value, 2 - math.floor(math.log10(value)))
