"""Failures that are alike, counted together."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.responses import Response

from taskq.v1 import admin_task_pb2, failure_group_pb2
from taskq_server.core.filter import Text
from taskq_server.http.dashboard.visit import Visit

HOURS = 24
LOOKED_US = 10_000_000
Group = failure_group_pb2.FailureGroup


async def page(visit: Visit) -> Response:
    request = failure_group_pb2.ListFailureGroupsRequest(
        page_size=50,
        page_token=visit.query("page"),
        name=visit.query("name"),
        include_resolved=visit.query("resolved") == "1",
    )
    answer = await visit.call("AdminService/ListFailureGroups", request)
    failing, settled = await apart(visit, answer.groups)
    now_hour = visit.now_us // 1_000_000 // 3_600
    return visit.show(
        "failures",
        answer=answer,
        failing=failing,
        settled=settled,
        name=request.name,
        include_resolved=request.include_resolved,
        trends={group.fingerprint: _trend(group, now_hour) for group in answer.groups},
    )


async def apart(visit: Visit, groups: Iterable[Group]) -> tuple[list[Group], list[Group]]:
    """Those that need somebody, or are resolved; and those of which nothing is FAILED any more, nor is tried again."""
    failing: list[Group] = []
    settled: list[Group] = []
    for group in groups:
        is_open = group.failed_tasks or group.HasField("resolve_time") or await _is_retried(visit, group)
        (failing if is_open else settled).append(group)
    return failing, settled


async def _is_retried(visit: Visit, group: Group) -> bool:
    """Whether tasks of this name that failed last with such an error wait for their next attempt: to which group a
    failure belongs is kept of finished ones alone. As far as a bounded look tells."""
    key, version = f"retried {group.fingerprint}", (group.failures, visit.now_us // LOOKED_US)
    known = visit.kept.of(key, version)
    if known is None:
        text = f"is:retrying name={group.name}"
        text += f" error_type={Text(group.error_type)}" if group.error_type else ""
        part = await visit.part("AdminService/ListTasks", admin_task_pb2.ListTasksRequest(filter=text, page_size=1))
        known = bool(part) and bool(part.answer.tasks or part.answer.next_page_token)
        visit.kept.keep(key, version, known)
    return bool(known)


def _trend(group: failure_group_pb2.FailureGroup, now_hour: int) -> list[tuple[int, int]]:
    """For each of the last 24 hours how many, and how high its bar is, of twenty."""
    counts = {one.start_time.seconds // 3_600: one.failures for one in group.trend}
    row = [counts.get(now_hour - HOURS + 1 + i, 0) for i in range(HOURS)]
    most = max(row) or 1
    return [(many, max(round(20 * many / most), 1 if many else 0)) for many in row]
