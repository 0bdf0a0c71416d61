"""What a user writes: when a schedule fires. Checked here, so that every fault is found at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import IntEnum

from taskq_server.core.errors import Fault
from taskq_server.core.schedule.cron import LONGEST_EVERY_S, Expression, read
from taskq_server.core.schedule.zone import DAY, EPOCH_DAY, LAST_DAY, LAST_YEAR, zone_named

SECOND_US = 1_000_000
DAY_US = DAY * SECOND_US
MOST_CRONS = 32
MOST_EXCLUDED_CRONS = 16
MOST_DATES = 1_000
MOST_EXCLUDED_DATES = 1_000
LAST_US = LAST_DAY * DAY_US
_RANGE = re.compile(r"(\d{4}-\d\d-\d\d)(?:/(\d{4}-\d\d-\d\d))?", re.ASCII)


class DstPolicy(IntEnum):
    """What becomes of a set time of day that the clocks jump over. One that occurs twice always fires once, the first
    time. A cron that means a pace (its minutes or hours begin with `*`) keeps its pace, whatever the policy: it fires
    in both passes of an hour that is repeated, and makes nothing up.
    """

    RUN_ONCE = 1
    """It fires when the jump is over: 02:30 at 03:00. A day that does not exist at all has no firings."""
    SKIP = 2
    """It does not fire on that day."""
    SHIFT = 3
    """It fires as much later as the jump is long: 02:30 at 03:30."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When a schedule fires: at what any of its crons means, at each interval, and on its dates."""

    crons: tuple[str, ...] = ()
    interval_us: int = 0
    """0: none. Counted from 1970, plus `phase_us`: real time, the same in every zone."""
    phase_us: int = 0
    dates_us: tuple[int, ...] = ()
    time_zone: str = "UTC"
    """What crons and excluded days are read in; `CRON_TZ=Europe/Paris ` before a cron overrides it."""
    excluded_crons: tuple[str, ...] = ()
    """What falls on their times does not fire. Five fields mean whole minutes: `* * * * SAT,SUN` is weekends."""
    excluded_dates: tuple[str, ...] = ()
    """Days such as `2026-12-25`, or from the first to the last, `2026-12-24/2026-12-26`."""
    start_us: int | None = None
    """Nothing fires before."""
    end_us: int | None = None
    """Nothing fires from then on."""
    jitter_us: int = 0
    """Each firing is due up to so much later, never past the next."""
    dst: DstPolicy = DstPolicy.RUN_ONCE


def faults_of_fields(rule: Rule) -> list[Fault]:
    """Every field that breaks a rule by itself."""
    return [
        *_expressions("crons", rule.crons, MOST_CRONS),
        *_spans(rule),
        *_times(rule),
        *_zone(rule.time_zone),
        *_expressions("excluded_crons", rule.excluded_crons, MOST_EXCLUDED_CRONS),
        *_excluded_dates(rule.excluded_dates),
    ]


def days_of(text: str) -> tuple[int, int]:
    """The first and the last day, counted from 1970, of a day or a range; a ValueError says what it must be."""
    match = _RANGE.fullmatch(text)
    try:
        first, last = (date.fromisoformat(day) for day in (match[1], match[2] or match[1])) if match else (None, None)
    except ValueError:  # 30 February
        first = last = None
    if first is None or last is None:
        raise ValueError("must be a day such as 2026-12-25, or a range such as 2026-12-24/2026-12-26")
    if last < first:
        raise ValueError("must not end before it begins")
    return first.toordinal() - EPOCH_DAY, last.toordinal() - EPOCH_DAY


def _expressions(field: str, texts: tuple[str, ...], most: int) -> Iterator[Fault]:
    if len(texts) > most:
        yield Fault(field, f"must have at most {most} entries; has {len(texts):,}")
    for i, text in enumerate(texts[:most]):
        try:
            expression = read(text, bytes(16))
            if field == "excluded_crons":
                _must_mean_times(expression)
            if expression.zone:
                zone_named(expression.zone)
        except ValueError as error:
            yield Fault(f"{field}[{i}]", str(error))


def _must_mean_times(expression: Expression) -> None:
    if expression.every_s:
        raise ValueError("must be a cron of five or six fields; is an interval")


def _spans(rule: Rule) -> Iterator[Fault]:
    if rule.interval_us and not SECOND_US <= rule.interval_us <= LONGEST_EVERY_S * SECOND_US:
        yield Fault("interval", f"must be 1 s to 3,660 days; is {_seconds(rule.interval_us)}")
    elif not 0 <= rule.phase_us < max(rule.interval_us, 1):
        yield Fault("phase", f"must be 0 or more and less than the interval; is {_seconds(rule.phase_us)}")
    if not 0 <= rule.jitter_us <= DAY_US:
        yield Fault("jitter", f"must be 0 s to a day; is {_seconds(rule.jitter_us)}")
    if rule.dst not in tuple(DstPolicy):
        yield Fault("dst", f"must be one of {', '.join(policy.name for policy in DstPolicy)}; is {rule.dst}")


def _times(rule: Rule) -> Iterator[Fault]:
    if len(rule.dates_us) > MOST_DATES:
        yield Fault("dates", f"must have at most {MOST_DATES:,} entries; has {len(rule.dates_us):,}")
    named = [(f"dates[{i}]", time_us) for i, time_us in enumerate(rule.dates_us[:MOST_DATES])]
    for field, time_us in [*named, ("start_time", rule.start_us), ("end_time", rule.end_us)]:
        if time_us is not None and not 0 <= time_us < LAST_US:
            yield Fault(field, f"must be from 1970 to the end of {LAST_YEAR}")
    if rule.start_us is not None and rule.end_us is not None and rule.end_us <= rule.start_us:
        yield Fault("end_time", "must be after start_time")


def _zone(name: str) -> Iterator[Fault]:
    try:
        zone_named(name)
    except ValueError as error:
        yield Fault("time_zone", str(error))


def _excluded_dates(texts: tuple[str, ...]) -> Iterator[Fault]:
    if len(texts) > MOST_EXCLUDED_DATES:
        yield Fault("excluded_dates", f"must have at most {MOST_EXCLUDED_DATES:,} entries; has {len(texts):,}")
    for i, text in enumerate(texts[:MOST_EXCLUDED_DATES]):
        try:
            days_of(text)
        except ValueError as error:
            yield Fault(f"excluded_dates[{i}]", f"{error}; is {text[:64]!r}")


def _seconds(span_us: int) -> str:
    return f"{span_us / SECOND_US:g} s"
