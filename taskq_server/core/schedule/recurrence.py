"""A rule compiled for one schedule: its next firing, and the ones after that."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b

from taskq_server.core.errors import Fault
from taskq_server.core.schedule.cron import Cron, compiled, read
from taskq_server.core.schedule.rule import LAST_US, SECOND_US, Rule, days_of, faults_of_fields
from taskq_server.core.schedule.sources import AHEAD_S, CronInZone, Dates, Interval, Nominal, Source
from taskq_server.core.schedule.words import in_words
from taskq_server.core.schedule.zone import DAY, Zone, zone_named

MOST_EXCLUDED = 500
"""How many runs of excluded times are passed over before a schedule counts as one that never fires again."""
MOST_WALKED = 2_000
"""How many nominal times and runs of excluded times are counted one by one: some 20 ms."""


class Dst(IntEnum):
    """What the clocks have to do with a nominal time."""

    NORMAL = 1
    GAP = 2
    """The clocks jump over the time that was meant; it was moved."""
    REPEAT = 3
    """Its local time occurs twice."""


@dataclass(frozen=True, slots=True)
class Preview:
    """One firing to come."""

    nominal_us: int
    due_us: int
    local: str
    """The nominal time in the schedule's zone, such as `2026-03-29T03:00:00+02:00`."""
    dst: Dst


def faults(rule: Rule) -> list[Fault]:
    """What is wrong with the rule: each field and the rule that it breaks; also that it would never fire."""
    found = faults_of_fields(rule)
    if not (rule.crons or rule.interval_us or rule.dates_us):
        found.append(Fault("crons", "must have an entry, unless there is an interval or a date"))
    if not found and Recurrence(rule, bytes(16)).next_after(-1) is None:
        bounds = [("end_time", rule.end_us), ("start_time", rule.start_us), ("excluded_dates", rule.excluded_dates)]
        field = next((name for name, value in bounds if value), "excluded_crons" if rule.excluded_crons else "crons")
        found.append(Fault(field, "must leave a time to fire at; there is none"))
    return found


class Recurrence:
    """A rule compiled for one schedule, whose id says what `H` is, and each jitter.

    It is compiled when it is first asked, and what rules have in common is shared.
    """

    __slots__ = ("_compiled", "_schedule_id", "rule")

    def __init__(self, rule: Rule, schedule_id: bytes) -> None:
        self.rule = rule
        self._schedule_id = schedule_id
        self._compiled: _Compiled | None = None

    def next_after(self, time_us: int) -> int | None:
        """The first nominal time that is later; None: never again.

        A rule with nothing for fifty years, or with five hundred runs of excluded times in a row, never fires again.
        """
        nominal = self._next_after(time_us)
        return None if nominal is None else nominal.time_us

    def due_us(self, nominal_us: int) -> int:
        """The nominal time and its jitter: always the same for it, before the next nominal time and before the end."""
        spread_us = self.rule.jitter_us
        if spread_us:
            if (next_us := self.next_after(nominal_us)) is not None:
                spread_us = min(spread_us, next_us - nominal_us)
            if self.rule.end_us is not None:
                spread_us = max(0, min(spread_us, self.rule.end_us - nominal_us))
            seed = self._schedule_id + nominal_us.to_bytes(8, signed=True)
            spread_us = spread_us * int.from_bytes(blake2b(seed, digest_size=8).digest()) >> 64
        return nominal_us + spread_us

    def last_due_by(self, time_us: int) -> int:
        """Nominal times until then, and no later ones, are due by that time: the last before it may be put off."""
        spread_us = self.rule.jitter_us
        if not spread_us:
            return time_us
        last_us = self.last_until(time_us, time_us - spread_us)
        return time_us if last_us is None or self.due_us(last_us) <= time_us else last_us - 1

    def preview(self, after_us: int, count: int) -> list[Preview]:
        """The next firings, `count` at most."""
        found: list[Preview] = []
        while len(found) < count and (nominal := self._next_after(after_us)) is not None:
            after_us = nominal.time_us
            found.append(
                Preview(after_us, self.due_us(after_us), self._zone.local(after_us), self._dst(nominal)),
            )
        return found

    def count(self, after_us: int, until_us: int) -> int:
        """How many nominal times are later than the one and not later than the other.

        Exact when one cron, one interval or dates give them and nothing is excluded: that is arithmetic. Otherwise they
        are walked; past 2,000, what is excluded among them, it is the most that it can be.
        """
        after_us = max(after_us, self._before_first_us)
        until_us = min(until_us, self._last_us)
        if len(self._parts.sources) == 1 and not self._parts.excludes:
            return self._parts.sources[0].count(after_us, until_us)
        walked = looks = 0
        while looks < MOST_WALKED:
            nominal, looks_here = self._look_after(after_us)
            if nominal is None or nominal.time_us > until_us:
                return walked
            walked, looks, after_us = walked + 1, looks + looks_here, nominal.time_us
        return walked + sum(source.count(after_us, until_us) for source in self._parts.sources)

    def last_until(self, time_us: int, after_us: int) -> int | None:
        """The last nominal time that is not later than the one, but later than the other."""
        found = self.next_after(after_us)
        if found is None or found > time_us:
            return None
        beyond_us = time_us
        while found < beyond_us:
            middle_us = (found + beyond_us) // 2
            next_us = self.next_after(middle_us)
            if next_us is None or next_us > time_us:
                beyond_us = middle_us
            else:
                found = next_us
        return found

    def explain(self) -> str:
        """The rule in words."""
        return in_words(self.rule, self._schedule_id)

    @property
    def _parts(self) -> _Compiled:
        if self._compiled is None:
            self._compiled = _Compiled(self.rule, self._schedule_id)
        return self._compiled

    @property
    def _zone(self) -> Zone:
        return zone_named(self.rule.time_zone)

    @property
    def _before_first_us(self) -> int:
        return -1 if self.rule.start_us is None else self.rule.start_us - 1

    @property
    def _last_us(self) -> int:
        return LAST_US if self.rule.end_us is None else self.rule.end_us - 1

    def _next_after(self, time_us: int) -> Nominal | None:
        return self._look_after(time_us)[0]

    def _look_after(self, time_us: int) -> tuple[Nominal | None, int]:
        """The next nominal time, and how many were looked at: those before it were excluded."""
        parts = self._parts
        time_us = max(time_us, self._before_first_us)
        last_us = self._last_us
        given_up_us = time_us + AHEAD_S * SECOND_US
        for looks in range(1, MOST_EXCLUDED + 1):
            if time_us >= last_us:
                return None, looks
            nominal = parts.next_after(time_us)
            if nominal is None or nominal.time_us > last_us:
                return None, looks
            if not parts.excludes:
                return nominal, looks
            allowed_us = parts.allowed_from(nominal.time_us)
            if allowed_us == nominal.time_us:
                return nominal, looks
            time_us = allowed_us - 1
            if time_us > given_up_us:
                return None, looks
        return None, MOST_EXCLUDED

    def _dst(self, nominal: Nominal) -> Dst:
        if nominal.is_moved:
            return Dst.GAP
        time_s = nominal.time_us // SECOND_US
        return Dst.REPEAT if self._zone.is_shown_twice(time_s) else Dst.NORMAL


class _Compiled:
    """A rule's parts, ready to be asked."""

    __slots__ = ("_days", "_off", "_zone", "excludes", "sources")

    def __init__(self, rule: Rule, schedule_id: bytes) -> None:
        self._zone = zone_named(rule.time_zone)
        self.sources = tuple(_sources(rule, schedule_id, self._zone))
        self._off = tuple(_off(rule, schedule_id, self._zone))
        self._days = _merged(days_of(text) for text in rule.excluded_dates)
        self.excludes = bool(self._off or self._days)

    def next_after(self, time_us: int) -> Nominal | None:
        best: Nominal | None = None
        for source in self.sources:
            nominal = source.next_after(time_us)
            if nominal is None or (best is not None and nominal.time_us > best.time_us):
                continue
            is_same = best is not None and nominal.time_us == best.time_us
            best = nominal if not is_same or nominal.is_moved else best
        return best

    def allowed_from(self, time_us: int) -> int:
        """That time if nothing excludes it; otherwise how far it is excluded at least."""
        time_s = time_us // SECOND_US
        wall = time_s + self._zone.offset_s(time_s)
        i = bisect_right(self._days, (wall // DAY, LAST_US)) - 1
        if i >= 0 and wall // DAY <= self._days[i][1]:
            return self._zone.until_shown((self._days[i][1] + 1) * DAY, time_s) * SECOND_US
        for cron, zone in self._off:
            wall = time_s + zone.offset_s(time_s)
            if cron.matches(wall):
                return zone.until_shown(cron.run_end(wall), time_s) * SECOND_US
        return time_us


def _sources(rule: Rule, schedule_id: bytes, zone: Zone) -> Iterator[Source]:
    for text in dict.fromkeys(rule.crons):
        expression = read(text, schedule_id)
        if expression.every_s:
            yield Interval(expression.every_s * SECOND_US)
        else:
            there = zone_named(expression.zone) if expression.zone else zone
            yield CronInZone(compiled(expression.fields), there, rule.dst)
    if rule.interval_us:
        yield Interval(rule.interval_us, rule.phase_us)
    if rule.dates_us:
        yield Dates(rule.dates_us)


def _off(rule: Rule, schedule_id: bytes, zone: Zone) -> Iterator[tuple[Cron, Zone]]:
    for text in rule.excluded_crons:
        expression = read(text, schedule_id)
        fields = expression.fields if expression.has_seconds else "*" + expression.fields[1:]
        yield compiled(fields), zone_named(expression.zone) if expression.zone else zone


def _merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return tuple(merged)
