"""Failures that are alike, counted together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from starlette.responses import Response

from taskq.v1 import admin_task_pb2, failure_group_pb2
from taskq_server.core.filter import Text
from taskq_server.http.dashboard.visit import Visit

HOURS = 24
LOOKED_US = 10_000_000
Group = failure_group_pb2.FailureGroup


@dataclass(frozen=True, slots=True)
class Apart:
    """Groups by whether there is anything left to do about them."""

    failing: list[Group] = field(default_factory=list)
    """Those that need somebody, or are resolved."""
    settled: list[Group] = field(default_factory=list)
    """Those of which nothing is FAILED any more, nor is tried again."""
    unknown: set[str] = field(default_factory=set)
    """The fingerprints of those that count as failing because nobody could tell."""


async def page(visit: Visit) -> Response:
    request = failure_group_pb2.ListFailureGroupsRequest(
        page_size=50,
        page_token=visit.query("page"),
        name=visit.query("name"),
        include_resolved=visit.query("resolved") == "1",
    )
    answer = await visit.call("AdminService/ListFailureGroups", request)
    found = Apart()
    await part(visit, answer.groups, found)
    now_hour = visit.now_us // 1_000_000 // 3_600
    return visit.show(
        "failures",
        answer=answer,
        found=found,
        filters={group.fingerprint: _filter(group) for group in answer.groups},
        name=request.name,
        include_resolved=request.include_resolved,
        trends={group.fingerprint: _trend(group, now_hour) for group in answer.groups},
    )


async def part(visit: Visit, groups: Iterable[Group], found: Apart) -> None:
    """Puts each where it belongs. What cannot be told is not settled."""
    for group in groups:
        is_open = bool(group.failed_tasks) or group.HasField("resolve_time")
        is_retried = None if is_open else await _is_retried(visit, group)
        if not is_open and is_retried is None:
            found.unknown.add(group.fingerprint)
        (found.settled if is_retried is False else found.failing).append(group)


async def _is_retried(visit: Visit, group: Group) -> bool | None:
    """Whether tasks of this name that failed last with such an error wait for their next attempt, or run it: to which
    group a failure belongs is kept of finished ones alone. As far as a bounded look tells; None if there was none."""
    key, version = f"retried {group.fingerprint}", (group.failures, visit.now_us // LOOKED_US)
    known: bool | None = visit.kept.of(key, version)
    if known is None:
        request = admin_task_pb2.ListTasksRequest(filter=f"{_RETRIED} {_alike(group)}", page_size=1)
        if not (looked := await visit.part("AdminService/ListTasks", request)):
            return None
        known = bool(looked.answer.tasks or looked.answer.next_page_token)
        visit.kept.keep(key, version, known)
    return known


_RETRIED = "is:unfinished failed_attempts>0"


def _alike(group: Group) -> str:
    """What finds tasks of the name that failed last with such an error, whatever has become of them."""
    return f"name={group.name}" + (f" error_type={Text(group.error_type)}" if group.error_type else "")


def _filter(group: Group) -> str:
    """What leads to its tasks: the group itself is known of those alone that are FAILED."""
    return f"failure:{group.fingerprint}" if group.failed_tasks else _alike(group)


def _trend(group: failure_group_pb2.FailureGroup, now_hour: int) -> list[tuple[int, int]]:
    """For each of the last 24 hours how many, and how high its bar is, of twenty."""
    counts = {one.start_time.seconds // 3_600: one.failures for one in group.trend}
    row = [counts.get(now_hour - HOURS + 1 + i, 0) for i in range(HOURS)]
    most = max(row) or 1
    return [(many, max(round(20 * many / most), 1 if many else 0)) for many in row]
