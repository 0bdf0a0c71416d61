"""Time zones, as stretches of one offset, and where their rules come from.

A wall time is what a clock on the wall shows, as seconds since it showed the beginning of 1970. Within a stretch it and
real time differ by the offset; where one stretch meets the next the hands jump.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tzdata import IANA_VERSION

DAY = 86_400
EPOCH_DAY = date(1970, 1, 1).toordinal()
LAST_YEAR = 9998
"""Local times of the year 9999 do not all have an instant that Python can name."""
LAST_DAY = date(LAST_YEAR, 12, 31).toordinal() - EPOCH_DAY


def tzdata_version() -> str:
    """Which release of the IANA database the server follows, such as `2026f`.

    The rules always come from the `tzdata` package, never from the files of the machine, so that servers of one release
    agree and an upgrade of the machine moves nothing.
    """
    version: str = IANA_VERSION
    return version


class Stretch(NamedTuple):
    """From `start_s` until before `end_s` (real time) the wall shows `offset_s` more."""

    start_s: int
    end_s: int
    offset_s: int


class Zone:
    """One zone of the database."""

    __slots__ = ("_info", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as rules:
            self._info = ZoneInfo.from_file(rules, key=name)

    def offset_s(self, time_s: int) -> int:
        offset = datetime.fromtimestamp(time_s, self._info).utcoffset()
        assert offset is not None
        return offset.days * DAY + offset.seconds

    def stretches(self, from_s: int, until_s: int) -> Iterator[Stretch]:
        """What lies between, in order; a stretch may come in several pieces."""
        year, offset, start = _year_of(from_s), self.offset_s(from_s), from_s
        while start < until_s and year <= LAST_YEAR:
            for change_s, offset_then in _changes(self.name, year):
                if change_s > start:
                    yield Stretch(start, change_s, offset)
                    start, offset = change_s, offset_then
            year += 1
            yield Stretch(start, _start_of(year), offset)
            start = _start_of(year)

    def until_shown(self, wall_s: int, from_s: int) -> int:
        """When the wall shows that, or its hands jump, whichever is first from that moment on."""
        now = next(self.stretches(from_s, from_s + 1))
        return min(now.end_s, wall_s - now.offset_s)

    def is_shown_twice(self, time_s: int) -> bool:
        """Whether the wall shows that moment's time at another moment too."""
        at = datetime.fromtimestamp(time_s, self._info)
        return at.utcoffset() != at.replace(fold=1 - at.fold).utcoffset()

    def local(self, time_us: int) -> str:
        """ISO 8601 with the offset."""
        seconds, micros = divmod(time_us, 1_000_000)
        return datetime.fromtimestamp(seconds, self._info).replace(microsecond=micros).isoformat()


@lru_cache(maxsize=1_000)
def zone_named(name: str) -> Zone:
    """The zone; a ValueError says what a name must be."""
    if name not in _names():
        near = get_close_matches(name[:64], _names(), 1) or ["Europe/Berlin"]
        raise ValueError(f"must be a time zone of the IANA database such as {near[0]}; is {name[:64]!r}")
    try:
        return Zone(name)
    except OSError as error:  # the package was exchanged while we run
        raise ValueError(f"must be a time zone that can be read; {name} cannot: {error}") from error


@cache
def _names() -> frozenset[str]:
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="ascii").split())


@lru_cache(maxsize=16_384)
def _changes(name: str, year: int) -> tuple[tuple[int, int], ...]:
    """When the offset changes in that year (UTC), and what it is from then on. zoneinfo tells offsets but not changes:
    they are looked for day by day, and no zone changes and changes back within one (a test holds that)."""
    zone = zone_named(name)
    found = []
    before_s = _start_of(year) - 1
    before = zone.offset_s(before_s)
    for time_s in range(before_s + DAY, _start_of(year + 1), DAY):
        offset = zone.offset_s(time_s)
        if offset != before:
            found.append((_first_with(zone, offset, before_s, time_s), offset))
        before_s, before = time_s, offset
    return tuple(found)


def _first_with(zone: Zone, offset: int, before_s: int, from_s: int) -> int:
    while from_s - before_s > 1:
        middle = (from_s + before_s) // 2
        if zone.offset_s(middle) == offset:
            from_s = middle
        else:
            before_s = middle
    return from_s


def _year_of(time_s: int) -> int:
    return date.fromordinal(EPOCH_DAY + time_s // DAY).year


@lru_cache(maxsize=10_000)
def _start_of(year: int) -> int:
    return (date(year, 1, 1).toordinal() - EPOCH_DAY) * DAY
