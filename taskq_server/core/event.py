"""Hints of what has changed, for whoever shows it."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

MOST_IDS = 50
"""Of what a hint names."""


class Topic(IntEnum):
    """What has changed; numbers as on the wire."""

    TASKS = 1
    PROCESSORS = 2
    CAPABILITIES = 3
    SCHEDULES = 4
    BULK_OPERATIONS = 5
    FAILURE_GROUPS = 6
    AUDIT = 7
    GAP = 8
    """Some hints are missing here: whoever watches looks at everything anew."""


class Hint(NamedTuple):
    """Changes on a topic, and what some of them were of."""

    topic: Topic
    changes: int = 1
    ids: tuple[str, ...] = ()


class Event(NamedTuple):
    """A hint that is kept, by its place among all."""

    seq: int
    time_us: int
    hint: Hint

    @property
    def cursor(self) -> str:
        """With its time, since another database has other events of the same numbers."""
        return f"{self.seq}.{self.time_us}"
