"""Failures that are alike, counted together."""

from __future__ import annotations

from starlette.responses import Response

from taskq.v1 import failure_group_pb2
from taskq_server.http.dashboard.visit import Visit

HOURS = 24


async def page(visit: Visit) -> Response:
    request = failure_group_pb2.ListFailureGroupsRequest(
        page_size=50,
        page_token=visit.query("page"),
        name=visit.query("name"),
        include_resolved=visit.query("resolved") == "1",
    )
    answer = await visit.call("AdminService/ListFailureGroups", request)
    now_hour = visit.now_us // 1_000_000 // 3_600
    return visit.show(
        "failures",
        answer=answer,
        name=request.name,
        include_resolved=request.include_resolved,
        trends={group.fingerprint: _trend(group, now_hour) for group in answer.groups},
    )


def _trend(group: failure_group_pb2.FailureGroup, now_hour: int) -> list[tuple[int, int]]:
    """For each of the last 24 hours how many, and how high its bar is, of twenty."""
    counts = {one.start_time.seconds // 3_600: one.failures for one in group.trend}
    row = [counts.get(now_hour - HOURS + 1 + i, 0) for i in range(HOURS)]
    most = max(row) or 1
    return [(many, max(round(20 * many / most), 1 if many else 0)) for many in row]
