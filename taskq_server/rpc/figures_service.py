"""AdminService, as far as it tells figures, failures that are alike, and what changes: convert, call, convert."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import structlog

from taskq.v1 import event_pb2, failure_group_pb2, stats_pb2
from taskq_server.clock import SECOND_US, Clock
from taskq_server.core.errors import FailureGroupNotFound
from taskq_server.core.event import Topic
from taskq_server.core.sums import OF_ALL
from taskq_server.events import Events
from taskq_server.rpc import convert_figures as convert
from taskq_server.rpc.checks import Faults
from taskq_server.rpc.convert import duration, timestamp
from taskq_server.rpc.pages import MOST_NUMBER, fill, page_of
from taskq_server.stats import Stats
from taskq_server.store.store import Store
from taskq_server.store.verbs.events import Since
from taskq_server.store.verbs.failures import FailureGroup, GroupPage, Resolution
from taskq_server.store.verbs.figures import HOUR_SECONDS, KEPT_US, MINUTE_SECONDS, Asked

log = structlog.get_logger("taskq.admin")

MOST_NOTE = 1_024
MOST_NAMES = 50
MOST_BUCKETS = 12_000
"""Of an answer, which is less than 4 MiB then: with many spans there are fewer names."""
HOUR_US = HOUR_SECONDS * SECOND_US
MINUTES_UNTIL_US = 6 * HOUR_US
"""A history of so long is told by the minute, unless something else is asked for."""

_CURSOR = re.compile(r"(\d{1,18})\.(\d{1,18})")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_GROUP_KEY = re.compile(r"(\d{1,18}) ([0-9a-f]{0,16})")
_STEPS = {
    stats_pb2.STATS_STEP_MINUTE: MINUTE_SECONDS,
    stats_pb2.STATS_STEP_HOUR: HOUR_SECONDS,
}


class FiguresService:
    """What administrators ask of what was done, has failed, and changes."""

    def __init__(self, store: Store, stats: Stats, events: Events, clock: Clock) -> None:
        self._store = store
        self._stats = stats
        self._events = events
        self._clock = clock

    # ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def GetStats(self, request: stats_pb2.GetStatsRequest) -> stats_pb2.GetStatsResponse:
        asked = self._asked(request)
        now = await self._stats.now()
        history = await self._stats.history(asked)
        return stats_pb2.GetStatsResponse(
            server_time=timestamp(self._clock.now_us()),
            states=[convert.state_count(one) for one in now.counts],
            due_tasks=now.due,
            oldest_due_time=None if now.oldest_due_us is None else timestamp(now.oldest_due_us),
            processors=now.fleet.processors,
            credits=now.fleet.credits,
            running_tasks=now.running,
            history=[convert.bucket(span, sums) for span, sums in history],
            step=duration(asked.step_seconds * SECOND_US),
        )

    def _asked(self, request: stats_pb2.GetStatsRequest) -> Asked:
        faults = Faults()
        end_us = self._clock.now_us()
        if request.HasField("end_time"):
            end_us = faults.time_us("end_time", request.end_time)
        start_us = end_us - HOUR_US
        if request.HasField("start_time"):
            start_us = faults.time_us("start_time", request.start_time)
        if not faults.found and start_us >= end_us:
            faults.add("start_time", "must be before end_time")
        step_seconds = self._step(faults, request, end_us - start_us)
        if not faults.found and end_us - start_us > KEPT_US[step_seconds]:
            longest = "a day" if step_seconds == MINUTE_SECONDS else "90 days"
            faults.add("start_time", f"must be at most {longest} before end_time with this step, as that is kept")
        if request.name and request.by_name:
            faults.add("by_name", "must not be set together with name")
        if request.name:
            faults.name("name", request.name)
        faults.raise_if_any()
        start_us -= start_us % (step_seconds * SECOND_US)
        if not request.by_name:
            return Asked(step_seconds, start_us, end_us, request.name or OF_ALL)
        spans = (end_us - start_us) // (step_seconds * SECOND_US) + 1
        return Asked(step_seconds, start_us, end_us, None, max(1, min(MOST_NAMES, MOST_BUCKETS // spans)))

    def _step(self, faults: Faults, request: stats_pb2.GetStatsRequest, span_us: int) -> int:
        if request.step == stats_pb2.STATS_STEP_UNSPECIFIED:
            return MINUTE_SECONDS if span_us <= MINUTES_UNTIL_US else HOUR_SECONDS
        if request.step not in _STEPS:
            faults.add("step", f"must be one of its named values; is {request.step}")
        return _STEPS.get(request.step, HOUR_SECONDS)

    # ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def ListFailureGroups(
        self, request: failure_group_pb2.ListFailureGroupsRequest
    ) -> failure_group_pb2.ListFailureGroupsResponse:
        faults = Faults()
        of = f"failures {request.name} {request.include_resolved}"
        page = page_of(faults, of, request, "")
        key = _GROUP_KEY.fullmatch(page.after or f"{MOST_NUMBER // 10} ")
        if key is None:
            faults.add("page_token", "must be the next_page_token of a page of this list, or empty")
        if request.name:
            faults.name("name", request.name)
        faults.raise_if_any()
        assert key is not None
        asked = GroupPage(int(key[1]), key[2], page.at_most, request.name, request.include_resolved)
        found = await self._store.failure_groups(asked)
        groups, token = fill(of, page, found, convert.failure_group, _key)
        return failure_group_pb2.ListFailureGroupsResponse(
            groups=groups, next_page_token=token, server_time=timestamp(self._clock.now_us())
        )

    async def ResolveFailureGroup(
        self, request: failure_group_pb2.ResolveFailureGroupRequest
    ) -> failure_group_pb2.ResolveFailureGroupResponse:
        faults = Faults()
        if not _FINGERPRINT.fullmatch(request.fingerprint):
            faults.add("fingerprint", "must be 16 characters of 0-9 a-f, as listed")
        faults.text("note", request.note, MOST_NOTE)
        faults.raise_if_any()
        resolved = await self._store.resolve_failures(Resolution(request.fingerprint, request.note))
        if resolved is None:
            raise FailureGroupNotFound(request.fingerprint)
        log.info("failure group resolved", fingerprint=resolved.fingerprint, name=resolved.name)
        return failure_group_pb2.ResolveFailureGroupResponse(group=convert.failure_group(resolved))

    # ── what changes ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def WatchEvents(self, request: event_pb2.WatchEventsRequest) -> AsyncIterator[event_pb2.WatchEventsResponse]:
        faults = Faults()
        topics = [_topic(faults, i, topic) for i, topic in enumerate(request.topics)]
        cursor = _CURSOR.fullmatch(request.cursor)
        if request.cursor and cursor is None:
            faults.add("cursor", "must be that of an event, or empty")
        faults.raise_if_any()
        since = None if cursor is None else Since(int(cursor[1]), int(cursor[2]))
        async for events in self._events.watch(topics, since):
            yield event_pb2.WatchEventsResponse(events=[convert.event(one) for one in events])


def _key(group: FailureGroup) -> str:
    return f"{group.last_time_us} {group.fingerprint}"


def _topic(faults: Faults, index: int, number: int) -> Topic:
    try:
        return Topic(number)
    except ValueError:
        faults.add(f"topics[{index}]", f"must be one of its named values; is {number}")
        return Topic.GAP
