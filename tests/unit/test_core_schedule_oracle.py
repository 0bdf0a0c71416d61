"""Schedules against an oracle that knows the rules and not the code: it watches a wall clock, minute by minute."""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from taskq_server.core.schedule import CatchUp, DstPolicy, Recurrence, Rule, catch_up
from taskq_server.core.schedule.zone import zone_named
from tests.unit.schedules import DAY, HOUR, ID, MINUTE, SECOND, all_of, at
from tests.unit.test_core_schedule_clocks import NAMES


@dataclass(frozen=True)
class Field:
    """A field of a cron, and what it means."""

    text: str
    meant: frozenset[int]


def a_field(low: int, high: int) -> st.SearchStrategy[Field]:
    numbers = st.integers(low, high)
    steps = st.integers(1, high)
    everything = range(low, high + 1)
    return st.one_of(
        st.just(Field("*", frozenset(everything))),
        steps.map(lambda step: Field(f"*/{step}", frozenset(everything[::step]))),
        st.sets(numbers, min_size=1, max_size=3).map(lambda some: Field(",".join(map(str, some)), frozenset(some))),
        st.tuples(numbers, numbers, steps).map(
            lambda it: Field(
                f"{min(it[:2])}-{max(it[:2])}/{it[2]}", frozenset(range(min(it[:2]), max(it[:2]) + 1, it[2]))
            )
        ),
    )


DAYS = st.one_of(a_field(1, 31), st.just(Field("*", frozenset(range(1, 32)))), st.just(Field("L", frozenset({-1}))))
WEEKDAYS = st.one_of(
    st.just(Field("*", frozenset(range(7)))),
    st.sets(st.integers(0, 6), min_size=1, max_size=6).map(
        lambda some: Field(",".join(map(str, some)), frozenset(some))
    ),
    st.tuples(st.integers(0, 6), st.integers(1, 5)).map(
        lambda it: Field(f"{it[0]}#{it[1]}", frozenset({100 * it[1] + it[0]}))
    ),
    st.integers(0, 6).map(lambda day: Field(f"{day}L", frozenset({1_000 + day}))),
)


@dataclass(frozen=True)
class Cron:
    minute: Field
    hour: Field
    day: Field
    month: Field
    weekday: Field

    @property
    def text(self) -> str:
        return " ".join(field.text for field in (self.minute, self.hour, self.day, self.month, self.weekday))

    @property
    def is_a_pace(self) -> bool:
        return self.minute.text.startswith("*") or self.hour.text.startswith("*")

    def means(self, wall: datetime) -> bool:
        if wall.minute not in self.minute.meant or wall.hour not in self.hour.meant:
            return False
        length = calendar.monthrange(wall.year, wall.month)[1]
        weekday = wall.isoweekday() % 7
        day = wall.day in self.day.meant or (-1 in self.day.meant and wall.day == length)
        of_week = (
            weekday in self.weekday.meant
            or 100 * ((wall.day - 1) // 7 + 1) + weekday in self.weekday.meant
            or (1_000 + weekday in self.weekday.meant and wall.day + 7 > length)
        )
        both = self.day.text.startswith("*") or self.weekday.text.startswith("*")
        return wall.month in self.month.meant and (day and of_week if both else day or of_week)


CRONS = st.builds(Cron, a_field(0, 59), a_field(0, 23), DAYS, a_field(1, 12), WEEKDAYS)
LOCAL_CRONS = st.builds(
    Cron,
    a_field(0, 59),
    st.sampled_from([0, 1, 2, 3, 23]).map(lambda hour: Field(str(hour), frozenset({hour}))) | a_field(0, 23),
    st.just(Field("*", frozenset(range(1, 32)))),
    st.just(Field("*", frozenset(range(1, 13)))),
    st.just(Field("*", frozenset(range(7)))),
)
"""Every day: they meet each change of the clocks."""

NOONS = [
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Europe/London", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("Australia/Adelaide", "2026-10-04"),
    ("Pacific/Auckland", "2026-04-05"),
    ("America/Santiago", "2026-04-05"),
    ("America/Santiago", "2026-09-06"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("America/Sao_Paulo", "2019-02-17"),
    ("Asia/Kolkata", "2026-03-29"),
    ("America/St_Johns", "2006-04-02"),
    ("America/St_Johns", "2006-10-29"),
    ("Pacific/Chatham", "2026-09-27"),
    ("Africa/Casablanca", "2026-02-15"),
    ("Pacific/Apia", "2011-12-31"),
    ("Antarctica/Troll", "2026-03-29"),
    ("Antarctica/Troll", "2026-10-25"),
    ("America/Nuuk", "2026-03-29"),
    ("America/Caracas", "2016-05-01"),
    ("Asia/Pyongyang", "2018-05-04"),
    ("Europe/Dublin", "2026-03-29"),
]
DAYS_SHOWN = 3
"""Of which the change is about in the middle."""


@lru_cache(maxsize=512)
def wall_clock(zone: str, day: str) -> tuple[tuple[int, datetime], ...]:
    """Each minute of some days, and what the wall shows then."""
    info = zone_named(zone)
    begin = at(f"{day}T00:00") - DAYS_SHOWN * DAY // 2
    shown = []
    for minute in range(DAYS_SHOWN * 24 * 60):
        time_us = begin + minute * MINUTE
        shown.append((time_us, datetime.fromisoformat(info.local(time_us)).replace(tzinfo=None)))
    return tuple(shown)


def expected(cron: Cron, policy: DstPolicy, clock: tuple[tuple[int, datetime], ...]) -> set[int]:
    """The rules: docs/schedules.md."""
    fires = set()
    latest = clock[0][1] - timedelta(minutes=1)
    for time_us, wall in clock:
        if cron.is_a_pace:
            if cron.means(wall):
                fires.add(time_us)
            continue
        lost = [latest + timedelta(minutes=n) for n in range(1, round((wall - latest).total_seconds()) // 60)]
        for n, lost_wall in enumerate(lost):
            midnight = lost_wall.replace(hour=0, minute=0)
            day_exists = midnight not in lost or midnight + timedelta(minutes=1439) not in lost
            if cron.means(lost_wall):
                if policy is DstPolicy.SHIFT:
                    fires.add(time_us + n * MINUTE)
                elif policy is DstPolicy.RUN_ONCE and day_exists:
                    fires.add(time_us)
        if wall > latest and cron.means(wall):
            fires.add(time_us)
        latest = max(latest, wall)
    return fires


def check(cron: Cron, policy: DstPolicy, zone: str, day: str, after_minutes: int) -> None:
    clock = wall_clock(zone, day)
    after, until = clock[0][0] + after_minutes * MINUTE - 1, clock[-1][0]
    recurrence = Recurrence(Rule(crons=(cron.text,), time_zone=zone, dst=policy), ID)

    fires = sorted(time_us for time_us in expected(cron, policy, clock) if time_us > after)

    assert all_of(recurrence, after, until) == fires
    assert recurrence.count(after, until) == len(fires)
    assert recurrence.last_until(until, after) == (fires[-1] if fires else None)


@settings(max_examples=300, deadline=None)
@given(LOCAL_CRONS, st.sampled_from(DstPolicy), st.sampled_from(NOONS), st.integers(0, DAYS_SHOWN * 24 * 60 - 1))
def test_a_cron_fires_about_a_change_of_the_clocks_when_the_rules_say(
    cron: Cron, policy: DstPolicy, noon: tuple[str, str], after_minutes: int
) -> None:
    check(cron, policy, *noon, after_minutes)


@settings(max_examples=100, deadline=None)
@given(
    CRONS,
    st.sampled_from(DstPolicy),
    st.sampled_from(NAMES),
    st.dates(min_value=datetime(1975, 1, 1).date(), max_value=datetime(2060, 1, 1).date()),
)
def test_any_cron_fires_in_any_zone_when_the_rules_say(cron: Cron, policy: DstPolicy, zone: str, day: object) -> None:
    try:
        Recurrence(Rule(crons=(cron.text,)), ID).next_after(0)
    except ValueError:  # 31 February
        return
    check(cron, policy, zone, str(day), 0)


def days_from(first: datetime, cron: Cron) -> Iterator[datetime]:
    for n in range(366 * 8 + 1):
        wall = first + timedelta(days=n)
        if cron.means(wall.replace(hour=min(cron.hour.meant), minute=min(cron.minute.meant))):
            yield wall


@settings(max_examples=60, deadline=None)
@given(CRONS, st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2080, 1, 1)))
def test_the_first_day_of_a_cron_is_found_however_far_it_is(cron: Cron, after: datetime) -> None:
    first = after.replace(hour=0, minute=0, second=0, microsecond=0)
    day = next(days_from(first, cron), None)
    try:
        following = Recurrence(Rule(crons=(cron.text,)), ID).next_after(at(first.isoformat()) - 1)
    except ValueError:
        following = None

    if day is not None:
        opening = day.replace(hour=min(cron.hour.meant), minute=min(cron.minute.meant))
        assert following == at(opening.isoformat())
    elif following is not None:
        assert following > at((first + timedelta(days=366 * 8)).isoformat())


JUMPS = st.lists(st.integers(0, 30) | st.integers(0, 12 * 3600), min_size=1, max_size=12)


@settings(max_examples=120, deadline=None)
@given(
    LOCAL_CRONS,
    st.sampled_from(NOONS),
    st.sampled_from(CatchUp),
    st.integers(0, 30 * 3600),
    st.integers(1, 50),
    JUMPS,
)
def test_each_nominal_time_fires_or_is_missed_once_however_the_clock_moves(
    cron: Cron, noon: tuple[str, str], policy: CatchUp, window_seconds: int, most: int, jumps: list[int]
) -> None:
    zone, day = noon
    recurrence = Recurrence(Rule(crons=(cron.text,), time_zone=zone), ID)
    begin = now = at(f"{day}T00:00") - DAY
    next_us = recurrence.next_after(now)
    fired: list[int] = []
    missed = 0

    for jump in jumps:
        now += jump * SECOND
        while next_us is not None and next_us <= now:
            done = catch_up(recurrence, next_us, now, policy, window_seconds * SECOND, most)
            assert len(done.fire_us) <= most
            assert done.next_us is None or done.next_us > next_us
            fired += done.fire_us
            missed += done.missed
            next_us = done.next_us

    nominal = all_of(recurrence, begin, now)
    assert len(fired) + missed == len(nominal)
    assert set(fired) <= set(nominal)
    assert all(a < b for a, b in pairwise(fired))
    if policy is CatchUp.ALL and window_seconds * SECOND >= now - begin:
        assert fired == nominal
    if max(jumps) <= 10:
        assert fired == nominal


@settings(max_examples=40, deadline=None)
@given(
    st.lists(LOCAL_CRONS, min_size=1, max_size=3),
    st.lists(LOCAL_CRONS, max_size=2),
    st.integers(0, 5) | st.just(97),
    st.sets(st.integers(-2, 1), max_size=2),
    st.sampled_from(NOONS),
)
def test_what_several_crons_and_an_interval_mean_fires_once_and_nothing_that_is_excluded(
    crons: list[Cron], excluded: list[Cron], minutes: int, days_off: set[int], noon: tuple[str, str]
) -> None:
    zone, day = noon
    clock = wall_clock(zone, day)
    shown = dict(clock)
    off = {(datetime.fromisoformat(day) + timedelta(days=n)).date() for n in days_off}
    rule = Rule(
        crons=tuple(cron.text for cron in crons),
        interval_us=minutes * MINUTE,
        time_zone=zone,
        excluded_crons=tuple(cron.text for cron in excluded),
        excluded_dates=tuple(str(each) for each in off),
    )

    fires = set().union(*(expected(cron, DstPolicy.RUN_ONCE, clock) for cron in crons))
    if minutes:
        fires |= {time_us for time_us in shown if time_us % (minutes * MINUTE) == 0}
    left = [
        time_us
        for time_us in sorted(fires)
        if shown[time_us].date() not in off and not any(cron.means(shown[time_us]) for cron in excluded)
    ]

    recurrence = Recurrence(rule, ID)
    until = clock[0][0] + 2 * DAY + HOUR
    assert all_of(recurrence, clock[0][0] - 1, until) == [time_us for time_us in left if time_us <= until]
