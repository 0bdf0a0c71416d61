"""What gives a rule its nominal times: crons in their zones, intervals, dates."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from taskq_server.core.schedule.cron import Cron
from taskq_server.core.schedule.rule import DstPolicy
from taskq_server.core.schedule.zone import DAY, Zone

SECOND_US = 1_000_000
AHEAD_S = 50 * 366 * DAY
"""How far a cron is looked for. 29 February is a given weekday once in 40 years at worst, about 2100."""
_BACK_S = 2 * DAY
"""From how far back the wall is watched: by then every jump that bears on a moment has been seen."""
_WINDOW_S = 3 * DAY


class Nominal(NamedTuple):
    time_us: int
    is_moved: bool
    """Whether the clocks jumped over the time of day that was meant."""


class Source(Protocol):
    def next_after(self, time_us: int) -> Nominal | None: ...

    def count(self, after_us: int, until_us: int) -> int:
        """How many nominal times later than the one and not later than the other."""


class Interval:
    """Every so long, counted from 1970."""

    __slots__ = ("_every_us", "_phase_us")

    def __init__(self, every_us: int, phase_us: int = 0) -> None:
        self._every_us = every_us
        self._phase_us = phase_us

    def next_after(self, time_us: int) -> Nominal:
        return Nominal((self._steps(time_us) + 1) * self._every_us + self._phase_us, False)

    def count(self, after_us: int, until_us: int) -> int:
        return max(0, self._steps(until_us) - self._steps(after_us))

    def _steps(self, time_us: int) -> int:
        return (time_us - self._phase_us) // self._every_us


class Dates:
    """Named moments."""

    __slots__ = ("_times_us",)

    def __init__(self, times_us: tuple[int, ...]) -> None:
        self._times_us = tuple(sorted(set(times_us)))

    def next_after(self, time_us: int) -> Nominal | None:
        i = bisect_right(self._times_us, time_us)
        return Nominal(self._times_us[i], False) if i < len(self._times_us) else None

    def count(self, after_us: int, until_us: int) -> int:
        return max(0, bisect_right(self._times_us, until_us) - bisect_right(self._times_us, after_us))


class _Part(NamedTuple):
    """A piece of the wall's time, `wall_s` until before `wall_end_s`, and when it is."""

    wall_s: int
    wall_end_s: int
    time_s: int
    is_moved: bool = False
    is_point: bool = False
    """Whether all of it is at `time_s`; otherwise it begins then."""


class CronInZone:
    """A cron on the walls of one zone."""

    __slots__ = ("_cron", "_dst", "_zone")

    def __init__(self, cron: Cron, zone: Zone, dst: DstPolicy) -> None:
        self._cron = cron
        self._zone = zone
        self._dst = dst

    def next_after(self, time_us: int) -> Nominal | None:
        time_s = time_us // SECOND_US
        near_s = time_s
        while True:
            if (found := self._next_near(time_s, near_s)) is not None:
                return found
            # no offset is as much as a day, so that the window has seen all walls until a day after near_s
            wall = self._cron.next(near_s + DAY, time_s + AHEAD_S)
            if wall is None:
                return None
            near_s = wall

    def _next_near(self, after_s: int, near_s: int) -> Nominal | None:
        """The first time after `after_s`, if it is about `near_s`."""
        best: Nominal | None = None
        for part in self._parts(near_s - _BACK_S, near_s + _WINDOW_S):
            if best is not None and part.time_s * SECOND_US >= best.time_us:
                break
            found = self._first_in(part, after_s)
            if found is not None and (best is None or found < best.time_us):
                best = Nominal(found, part.is_moved)
        return best

    def _first_in(self, part: _Part, after_s: int) -> int | None:
        if part.is_point:
            met = part.time_s > after_s and self._cron.next(part.wall_s, part.wall_end_s) is not None
            return part.time_s * SECOND_US if met else None
        first = max(part.wall_s, part.wall_s + after_s + 1 - part.time_s)
        wall = self._cron.next(first, part.wall_end_s) if first < part.wall_end_s else None
        return None if wall is None else (wall - part.wall_s + part.time_s) * SECOND_US

    def _parts(self, from_s: int, until_s: int) -> Iterator[_Part]:
        """The wall as the cron sees it, by when it begins."""
        shown: int | None = None  # how far the hands have come; they may go back
        for start, end, offset in self._zone.stretches(from_s, until_s):
            wall, wall_end = start + offset, end + offset
            if self._cron.is_fixed and shown is not None:
                if shown < wall:
                    yield from self._jumped(shown, wall, start)
                if shown < wall_end:
                    first = max(shown, wall)
                    yield _Part(first, wall_end, first - offset)
                shown = max(shown, wall_end)
            else:
                yield _Part(wall, wall_end, start)
                shown = wall_end

    def _jumped(self, wall_s: int, wall_end_s: int, time_s: int) -> Iterator[_Part]:
        """What becomes of the times that the hands jumped over."""
        if self._dst is DstPolicy.SHIFT:
            yield _Part(wall_s, wall_end_s, time_s, is_moved=True)
        elif self._dst is DstPolicy.RUN_ONCE:
            first_midnight, last_midnight = -(-wall_s // DAY) * DAY, wall_end_s // DAY * DAY
            if first_midnight < last_midnight:  # days that do not exist, perhaps with pieces of days about them
                yield _Part(wall_s, first_midnight, time_s, is_moved=True, is_point=True)
                yield _Part(last_midnight, wall_end_s, time_s, is_moved=True, is_point=True)
            else:
                yield _Part(wall_s, wall_end_s, time_s, is_moved=True, is_point=True)

    def count(self, after_us: int, until_us: int) -> int:
        after_s, until_s = after_us // SECOND_US, until_us // SECOND_US
        if after_s >= until_s:
            return 0
        count = 0
        for part in self._parts(after_s - _BACK_S, until_s + 1):
            first = max(part.wall_s, part.wall_s + after_s + 1 - part.time_s)
            end = min(part.wall_end_s, part.wall_s + until_s + 1 - part.time_s)
            if not part.is_moved:
                count += self._cron.count(first, end)
            elif not part.is_point:
                count += self._count_moved(part, first, end)
            elif after_s < part.time_s <= until_s:
                count += self._first_in(part, after_s) is not None and not self._is_met(part.time_s)
        return count

    def _count_moved(self, part: _Part, first: int, end: int) -> int:
        """Shifted times which do not coincide with others."""
        count = 0
        while first < end and (wall := self._cron.next(first, end)) is not None:
            count += not self._is_met(wall - part.wall_s + part.time_s)
            first = wall + 1
        return count

    def _is_met(self, time_s: int) -> bool:
        """Whether the cron means that moment by the wall itself."""
        return self._cron.matches(time_s + self._zone.offset_s(time_s))
