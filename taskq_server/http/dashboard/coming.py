"""What schedules will fire: read from the server a few firings at a time, and kept while their schedules stay as they
are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from taskq.v1 import schedule_service_pb2
from taskq_server.http.dashboard.visit import Visit

FIRST_FIRINGS = 25
MOST_FIRINGS = 1_000
"""Of one schedule."""
MOST_IN_ALL = 10_000
"""Of all in a view; what there is left is shared by those that have more."""
READ_AT_ONCE = 10
"""Schedules: looks that come together are one step of the store."""
MOST_NAMED = 3
"""Schedules whose firings were not all looked at."""


class Firing(NamedTuple):
    """When a schedule fires, and when the task of that is due."""

    nominal_us: int
    due_us: int


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read at an earlier visit."""

    firings: list[Firing]
    is_all: bool
    cut: int
    """So many there were when no more were read; 0 where they were as many as were needed."""


class Coming:
    """The next firings of a schedule, as far as they are known."""

    def __init__(self, visit: Visit, schedule: Any, now: int) -> None:
        self.schedule = schedule
        self.why_not = ""
        """Why there are not more."""
        self._now = now
        self._key = f"to come {schedule.schedule_id}"
        self._version = schedule.etag, schedule.time_zone_version, schedule.remaining_firings
        known = visit.kept.of(self._key, self._version) or _Known([], False, 0)
        self.firings = [one for one in known.firings if one.nominal_us > now * 1_000_000]
        next_us = schedule.next_fire_time.ToMicroseconds()
        if next_us > now * 1_000_000 and self.firings and self.firings[0].nominal_us != next_us:
            known, self.firings = _Known([], False, 0), []
        self._is_all = known.is_all
        self._cut = known.cut
        self._has_read = False

    def within(self, end_us: int) -> list[Firing]:
        return [one for one in self.firings if one.due_us < end_us]

    def ends_before(self, end_us: int) -> bool:
        """Whether there may be more of them."""
        return not self._is_all and not (self.firings and self.firings[-1].nominal_us >= end_us)

    def is_short(self, end_us: int) -> bool:
        """Whether more should be read; of one that was cut, once half of it is over: not one by one as they pass."""
        is_enough = not self._has_read and len(self.firings) * 2 >= self._cut > 0
        return self.ends_before(end_us) and not self.why_not and not is_enough and len(self.firings) < MOST_FIRINGS

    async def read(self, visit: Visit, at_most: int) -> None:
        """A few first, then more: each costs the server its time, and most schedules have few in a view."""
        after = Timestamp(seconds=self._now)
        if self.firings:
            after.FromMicroseconds(self.firings[-1].nominal_us)
        request = schedule_service_pb2.PreviewScheduleRequest(
            schedule_id=self.schedule.schedule_id,
            after_time=after,
            count=min(2 * len(self.firings) or FIRST_FIRINGS, MOST_FIRINGS - len(self.firings), at_most),
        )
        found = await visit.part("ScheduleService/PreviewSchedule", request)
        self.why_not = found.why_not
        if found:
            self._has_read = True
            read = found.answer.firings
            self.firings += [Firing(one.nominal_time.ToMicroseconds(), one.due_time.ToMicroseconds()) for one in read]
            self._is_all = len(read) < request.count

    def keep(self, visit: Visit, end_us: int) -> None:
        if self._has_read:
            cut = len(self.firings) if self.ends_before(end_us) and not self.why_not else 0
            visit.kept.keep(self._key, self._version, _Known(self.firings, self._is_all, cut))


async def coming(visit: Visit, schedules: Iterable[Any], now: int, end: int) -> list[Coming]:
    """What these will fire from now until the end, in seconds; each has some of it before any has much."""
    found, end_us = [Coming(visit, one, now) for one in schedules], end * 1_000_000
    while short := [one for one in found if one.is_short(end_us)]:
        share = (MOST_IN_ALL - sum(len(one.within(end_us)) for one in found)) // len(short)
        if share < 1:
            break
        for start in range(0, len(short), READ_AT_ONCE):
            await asyncio.gather(*(one.read(visit, share) for one in short[start : start + READ_AT_ONCE]))
    for one in found:
        one.keep(visit, end_us)
    return found


def missing(found: Iterable[Coming], end: int) -> list[str]:
    """Of what there is more than was looked at, in words."""
    cut = [one for one in found if one.ends_before(end * 1_000_000)]
    said = [f"what schedule {one.schedule.name} will fire was not read: {one.why_not}" for one in cut if one.why_not]
    cut = [one for one in cut if not one.why_not]
    if len(cut) > MOST_NAMED:
        most = max(len(one.firings) for one in cut)
        return [*said[:MOST_NAMED], f"of {len(cut)} schedules only the next {most} firings, or fewer, are looked at"]
    named = [(one.schedule.name, len(one.firings)) for one in cut]
    return [*said[:MOST_NAMED], *(f"of schedule {name} only the next {n} firings are looked at" for name, n in named)]
