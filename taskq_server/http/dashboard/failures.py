"""Failures that are alike, counted together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from starlette.responses import Response

from taskq.v1 import admin_task_pb2, failure_group_pb2
from taskq_server.core.filter import Text
from taskq_server.http.dashboard.kept import spell
from taskq_server.http.dashboard.visit import Visit

HOURS = 24
LOOKED_US = 10_000_000
MOST_CHARACTERS = 900
"""Of names in a filter."""
MOST_RETRIED = 200
"""So many tasks that are tried again are looked at for all groups together."""
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
    groups = list(groups)
    retried = await _retried(
        visit, [one for one in groups if not one.failed_tasks and not one.HasField("resolve_time")]
    )
    for group in groups:
        is_retried = retried.get(group.fingerprint, True)
        if is_retried is None:
            found.unknown.add(group.fingerprint)
        (found.settled if is_retried is False else found.failing).append(group)


async def _retried(visit: Visit, groups: list[Group]) -> dict[str, bool | None]:
    """By fingerprint, whether tasks of this name that failed last with such an error wait for their next attempt, or
    run it: to which group a failure belongs is kept of finished ones alone. As far as bounded looks tell; None where
    there was none."""
    keys = {one.fingerprint: f"retried {one.fingerprint}" for one in groups}
    ages = {one.fingerprint: (one.failures, spell(one.fingerprint, visit.now_us, LOOKED_US)) for one in groups}
    found: dict[str, bool | None] = {one: visit.kept.of(key, ages[one]) for one, key in keys.items()}
    asked = [one for one in groups if found[one.fingerprint] is None]
    for some in _together(asked):
        for fingerprint, is_retried in (await _look(visit, some)).items():
            found[fingerprint] = is_retried
            visit.kept.keep(keys[fingerprint], ages[fingerprint], is_retried)
    return found


def _together(groups: Iterable[Group]) -> Iterator[list[Group]]:
    """So many at a time that a filter can hold their names."""
    some: list[Group] = []
    for one in groups:
        if some and len(_names([*some, one])) > MOST_CHARACTERS:
            yield some
            some = []
        some.append(one)
    if some:
        yield some


def _names(groups: Iterable[Group]) -> str:
    return ",".join(sorted({one.name for one in groups}))


async def _look(visit: Visit, groups: Iterable[Group]) -> dict[str, bool]:
    """For all of them at once; for those that are not told then, one by one."""
    request = admin_task_pb2.ListTasksRequest(filter=f"{_RETRIED} name={_names(groups)}", page_size=MOST_RETRIED)
    if not (looked := await visit.part("AdminService/ListTasks", request)):
        return {}
    seen = {(task.name, task.last_failure.error_type) for task in looked.answer.tasks}
    found: dict[str, bool] = {}
    for one in groups:
        found[one.fingerprint] = (one.name, one.error_type) in seen
        if found[one.fingerprint] or not looked.answer.next_page_token:
            continue
        request = admin_task_pb2.ListTasksRequest(filter=f"{_RETRIED} {_alike(one)}", page_size=1)
        if alone := await visit.part("AdminService/ListTasks", request):
            found[one.fingerprint] = bool(alone.answer.tasks or alone.answer.next_page_token)
        else:
            del found[one.fingerprint]
    return found


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
