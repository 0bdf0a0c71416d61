"""Builders for sentences about schedules."""

from __future__ import annotations

from datetime import UTC, datetime

from taskq_server.core.schedule import Recurrence, Rule

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
ID = bytes(range(16))


def at(text: str) -> int:
    """Microseconds of an ISO time; without an offset it is UTC."""
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * SECOND


def a_cron(*crons: str, zone: str = "UTC", **rest: object) -> Recurrence:
    return Recurrence(Rule(crons=crons, time_zone=zone, **rest), ID)  # type: ignore[arg-type]


def all_of(recurrence: Recurrence, after: int, until: int) -> list[int]:
    """The nominal times later than the one and not later than the other."""
    found: list[int] = []
    following = recurrence.next_after(after)
    while following is not None and following <= until:
        found.append(following)
        following = recurrence.next_after(following)
    return found


def locals_of(recurrence: Recurrence, after: str, count: int) -> list[str]:
    return [preview.local for preview in recurrence.preview(at(after), count)]
