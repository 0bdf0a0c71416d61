"""Cron expressions: which wall times they mean.

cronsim reads them and says which days they mean. The walk from one wall time to the next is ours: it costs microseconds
whatever the expression, and knows nothing of time zones.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from calendar import monthrange
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from cronsim import CronSim, CronSimError

from taskq_server.core.schedule.zone import DAY, EPOCH_DAY, LAST_YEAR

LONGEST = 256
"""Characters: an expression is measured before it is read."""
LONGEST_EVERY_S = 3_660 * DAY

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FORM = "must be 5 fields (minute hour day month weekday), 6 (second first), @daily or the like, or @every 10m"
_ZONE = re.compile(r"(?:CRON_)?TZ=(\S+)\s+")
_EVERY = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
_HASHED = re.compile(r"H(?:\((\d{1,2})-(\d{1,2})\))?(?:/(\d{1,9}))?", re.ASCII)
_ONE = re.compile(r"(\w+)-\1/0*[1-9]\d*", re.ASCII)
_HASHED_RANGES = ((0, 59), (0, 59), (0, 23), (1, 28), (1, 12), (0, 6))
"""What `H` chooses from: seconds to weekdays. Every month has 28 days."""
_ANY_YEARS = range(2000, 2028)
"""Among 28 years each month begins on every weekday, 29 February too."""


class Expression(NamedTuple):
    """An expression that was read: an interval, or a cron of six fields in that zone (the schedule's own if empty)."""

    zone: str
    fields: str
    every_s: int = 0
    has_seconds: bool = False


def read(text: str, seed: bytes) -> Expression:
    """Reads an expression; a ValueError says what it must be. `seed` is what `H` is hashed from."""
    if len(text) > LONGEST:
        raise ValueError(f"must be at most {LONGEST} characters; has {len(text):,}")
    zone = ""
    rest = text.strip()
    if match := _ZONE.match(rest):
        zone, rest = match[1], rest[match.end() :]
    if rest.startswith("@every"):
        return Expression(zone, "", _every(rest.removeprefix("@every")))
    if rest == "@reboot":
        raise ValueError("must not be @reboot: a schedule is not started by a machine")
    rest = _ALIASES.get(rest, rest)
    fields = rest.upper().split()
    has_seconds = len(fields) == 6
    if len(fields) not in (5, 6):
        raise ValueError(f"{_FORM}; is {text[:64]!r}")
    if not has_seconds:
        fields.insert(0, "0")
    fields = ["*" if field == "?" else _unhashed(field, place, seed) for place, field in enumerate(fields)]
    canonical = " ".join(fields)
    compiled(canonical)
    return Expression(zone, canonical, 0, has_seconds)


def _every(text: str) -> int:
    match = _EVERY.fullmatch(text.strip())
    if match is None or not match[0]:
        raise ValueError("must be @every and a span such as 90s, 10m, 1h30m or 2d")
    days, hours, minutes, seconds = (int(number or 0) for number in match.groups())
    every_s = days * DAY + hours * 3_600 + minutes * 60 + seconds
    if not 1 <= every_s <= LONGEST_EVERY_S:
        raise ValueError("must be @every 1s to @every 3660d")
    return every_s


def _unhashed(field: str, place: int, seed: bytes) -> str:
    """The field with each `H` replaced by what it is for this schedule."""
    if "H" not in field and "-" not in field:
        return field
    return ",".join(_unhashed_term(term, place, seed) for term in field.split(","))


def _unhashed_term(term: str, place: int, seed: bytes) -> str:
    if match := _ONE.fullmatch(term):  # to cronsim `5-5/10` were `5/10`, which goes on until the hour ends
        return match[1]
    match = _HASHED.fullmatch(term)
    if match is None:  # THU, MARCH, or nonsense for cronsim to refuse
        return term
    first, last = _HASHED_RANGES[place]
    low, high, step = int(match[1] or first), int(match[2] or last), int(match[3] or 0)
    if not first <= low <= high <= last or (match[3] and not 1 <= step <= last):
        raise ValueError(f"must hash within {first} to {last}, in steps of 1 to {last}; has {term}")
    number = int.from_bytes(blake2b(seed + bytes([place]), digest_size=8).digest())
    if not step:
        return str(low + number % (high - low + 1))
    start = low + number % min(step, high - low + 1)
    return f"{start}-{high}/{step}" if start < high else str(start)


class Cron:
    """The wall times that an expression means."""

    __slots__ = ("_days", "_hours", "_minutes", "_months", "_seconds", "is_fixed")

    def __init__(self, fields: str) -> None:
        sim = _parsed(fields)
        _second, minute, hour, day, _month, weekday = fields.split()
        self._seconds = _kept(tuple(sorted(sim.seconds)))
        self._minutes = _kept(tuple(sorted(sim.minutes)))
        self._hours = _kept(tuple(sorted(sim.hours)))
        self._months = frozenset(sim.months)
        self._days = _days(day, weekday)
        self.is_fixed = not minute.startswith("*") and not hour.startswith("*")
        """Whether it means set times of the day. Otherwise it means a pace, as in Debian's cron."""
        if not any(self._mask(year, month) for year in _ANY_YEARS for month in self._months):
            raise ValueError("must mean a day that some year has")

    def next(self, first_s: int, until_s: int) -> int | None:
        """The first wall time from `first_s` on, before `until_s`."""
        day, second = divmod(first_s, DAY)
        last_day = (until_s - 1) // DAY
        this_day = self._next_day(day, last_day)
        if this_day is None:
            return None
        if this_day == day:
            found = self._next_second(second)
            if found is not None:
                return day * DAY + found if day * DAY + found < until_s else None
            this_day = self._next_day(day + 1, last_day)
            if this_day is None:
                return None
        found_s = this_day * DAY + self._first_second()
        return found_s if found_s < until_s else None

    def matches(self, wall_s: int) -> bool:
        return self.next(wall_s, wall_s + 1) is not None

    def count(self, first_s: int, until_s: int) -> int:
        """How many wall times from `first_s` on, before `until_s`: by arithmetic."""
        if first_s >= until_s:
            return 0
        day, second = divmod(first_s, DAY)
        last_day, last_second = divmod(until_s, DAY)
        each_day = len(self._hours) * len(self._minutes) * len(self._seconds)
        count = self._count_days(day, last_day) * each_day
        count -= self._rank(second) if self._has_day(day) else 0
        return count + (self._rank(last_second) if self._has_day(last_day) else 0)

    def run_end(self, wall_s: int) -> int:
        """Until when it means every second from one that it means: at least the next, a year ahead at most."""
        if len(self._seconds) < 60:
            return wall_s + 1
        if len(self._minutes) < 60:
            return wall_s - wall_s % 60 + 60
        if len(self._hours) < 24:
            return wall_s - wall_s % 3_600 + 3_600
        tomorrow = wall_s // DAY + 1
        day = self._next_day(tomorrow, tomorrow + 366, but=True)
        return DAY * (tomorrow + 366 if day is None else day)

    def _first_second(self) -> int:
        return self._hours[0] * 3_600 + self._minutes[0] * 60 + self._seconds[0]

    def _next_second(self, of_day: int) -> int | None:
        hour, rest = divmod(of_day, 3_600)
        minute, second = divmod(rest, 60)
        h = bisect_left(self._hours, hour)
        if h == len(self._hours):
            return None
        if self._hours[h] == hour:
            m = bisect_left(self._minutes, minute)
            if m < len(self._minutes) and self._minutes[m] == minute:
                s = bisect_left(self._seconds, second)
                if s < len(self._seconds):
                    return hour * 3_600 + minute * 60 + self._seconds[s]
                m += 1
            if m < len(self._minutes):
                return hour * 3_600 + self._minutes[m] * 60 + self._seconds[0]
            h += 1
            if h == len(self._hours):
                return None
        return self._hours[h] * 3_600 + self._minutes[0] * 60 + self._seconds[0]

    def _rank(self, of_day: int) -> int:
        """How many of a day's times come before that second of it."""
        hour, rest = divmod(of_day, 3_600)
        minute, second = divmod(rest, 60)
        h = bisect_left(self._hours, hour)
        m = s = 0
        if h < len(self._hours) and self._hours[h] == hour:
            m = bisect_left(self._minutes, minute)
            if m < len(self._minutes) and self._minutes[m] == minute:
                s = bisect_left(self._seconds, second)
        return (h * len(self._minutes) + m) * len(self._seconds) + s

    def _mask(self, year: int, month: int) -> int:
        """The days of a month, the first in the lowest bit."""
        return self._days(year, month) if month in self._months else 0

    def _has_day(self, day: int) -> bool:
        return self._next_day(day, day) is not None

    def _next_day(self, day: int, last_day: int, but: bool = False) -> int | None:
        """The first day that it means, or does not mean."""
        if day > last_day:
            return None
        at = date.fromordinal(EPOCH_DAY + day)
        year, month, skipped = at.year, at.month, at.day - 1
        start = day - skipped
        while start <= last_day and year <= LAST_YEAR:
            length = _length(year, month)
            mask = self._mask(year, month) ^ ((1 << length) - 1 if but else 0)
            if mask := mask >> skipped << skipped:
                found = start + (mask & -mask).bit_length() - 1
                return found if found <= last_day else None
            start += length
            year, month, skipped = (year, month + 1, 0) if month < 12 else (year + 1, 1, 0)
        return None

    def _count_days(self, day: int, until_day: int) -> int:
        at = date.fromordinal(EPOCH_DAY + day)
        year, month, start = at.year, at.month, day - at.day + 1
        count = 0
        while start < until_day:
            mask = self._mask(year, month)
            mask &= (1 << min(31, until_day - start)) - 1
            if start < day:
                mask = mask >> (day - start) << (day - start)
            count += mask.bit_count()
            start += _length(year, month)
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        return count


@lru_cache(maxsize=10_000)
def compiled(fields: str) -> Cron:
    """The cron of six fields; a ValueError says what is wrong with it."""
    return Cron(fields)


def _parsed(fields: str) -> CronSim:
    try:
        return CronSim(fields, datetime(2000, 1, 1))
    except CronSimError as error:
        what = str(error).removeprefix("Bad ")
        raise ValueError(f"must have a {what} that can be; {_FORM}") from None


@lru_cache(maxsize=10_000)
def _kept(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """The same numbers are kept once, however many expressions have them."""
    return numbers


@lru_cache(maxsize=1_000)
def _days(day: str, weekday: str) -> Callable[[int, int], int]:
    """Which days of a month those two fields mean. It depends on its length and first weekday alone: 28 answers."""
    masks: dict[tuple[int, int], int] = {}

    def mask(year: int, month: int) -> int:
        kind = _kind(year, month)
        found = masks.get(kind)
        if found is None:
            sim = _parsed(f"0 0 0 {day} * {weekday}")
            first = date(year, month, 1)
            found = sum(1 << i for i in range(kind[1]) if sim.match_day(first + timedelta(days=i)))
            masks[kind] = found
        return found

    return mask


@lru_cache(maxsize=12_000)
def _kind(year: int, month: int) -> tuple[int, int]:
    return monthrange(year, month)


def _length(year: int, month: int) -> int:
    return _kind(year, month)[1]
