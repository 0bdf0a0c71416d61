"""A rule in words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cronsim import CronSim

from taskq_server.core.schedule.cron import read
from taskq_server.core.schedule.rule import SECOND_US, Rule
from taskq_server.core.schedule.zone import zone_named

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
_MOST_NAMED = 10


def in_words(rule: Rule, schedule_id: bytes) -> str:
    """Such as `At 02:30 every day; in Europe/Berlin; not on 2026-12-25`."""
    return "; ".join([*_when(rule, schedule_id), f"in {rule.time_zone}", *_but(rule, schedule_id)])


def _when(rule: Rule, schedule_id: bytes) -> Iterator[str]:
    for text in rule.crons:
        yield _expression(text, schedule_id)
    if rule.interval_us:
        yield f"Every {_span(rule.interval_us)}" + (f" plus {_span(rule.phase_us)}" if rule.phase_us else "")
    if rule.dates_us:
        zone = zone_named(rule.time_zone)
        yield f"On {_some([zone.local(time_us) for time_us in rule.dates_us[: _MOST_NAMED + 1]])}"


def _but(rule: Rule, schedule_id: bytes) -> Iterator[str]:
    zone = zone_named(rule.time_zone)
    for text in rule.excluded_crons:
        words = _expression(text, schedule_id)
        yield f"not {words[0].lower()}{words[1:]}"
    if rule.excluded_dates:
        yield f"not on {_some(list(rule.excluded_dates))}"
    if rule.start_us is not None:
        yield f"from {zone.local(rule.start_us)}"
    if rule.end_us is not None:
        yield f"before {zone.local(rule.end_us)}"
    if rule.jitter_us:
        yield f"up to {_span(rule.jitter_us)} later"


def _expression(text: str, schedule_id: bytes) -> str:
    expression = read(text, schedule_id)
    there = f" ({expression.zone})" if expression.zone else ""
    if expression.every_s:
        return f"Every {_span(expression.every_s * SECOND_US)}"
    fields = expression.fields if expression.has_seconds else expression.fields.split(" ", 1)[1]
    return CronSim(fields, datetime(2000, 1, 1)).explain() + there


def _span(span_us: int) -> str:
    seconds, micros = divmod(span_us, SECOND_US)
    words = []
    for unit, name in _UNITS:
        count, seconds = divmod(seconds, unit)
        words += [f"{count} {name}"] if count else []
    if seconds or micros or not words:
        words.append(f"{seconds + micros / SECOND_US:g} s")
    return " ".join(words)


def _some(items: list[str]) -> str:
    return ", ".join(items[:_MOST_NAMED]) + (" and more" if len(items) > _MOST_NAMED else "")
