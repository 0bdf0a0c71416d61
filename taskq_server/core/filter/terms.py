"""What a filter says: terms that must all be true of a task, and the one text in which all spellings of them agree."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import NamedTuple

from taskq_server.core.task import TaskState

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS_US = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
_PLAIN = re.compile(r'[^\s",*]+')


class Op(Enum):
    """How a value compares. `=` is another spelling of `:`, and `!=` of `-` and `:`."""

    IS = ":"
    BELOW = "<"
    AT_MOST = "<="
    ABOVE = ">"
    AT_LEAST = ">="


class Text(NamedTuple):
    """A text, or how texts begin; of nothing but a `*`, any text that is there."""

    text: str
    begins: bool = False

    def __str__(self) -> str:
        plain = self.text if _PLAIN.fullmatch(self.text) else _quoted(self.text) if self.text else ""
        return f"{plain}*" if self.begins else plain

    def matches(self, text: str | None) -> bool:
        if text is None:
            return False
        return text.startswith(self.text) if self.begins else text == self.text


class Moment(NamedTuple):
    """A time, or one that moves with the clock."""

    time_us: int
    """Since 1970; of one that moves, since now."""
    moves: bool = False

    def __str__(self) -> str:
        if self.moves:
            return f"now{_span(self.time_us)}"
        time = (EPOCH + timedelta(microseconds=self.time_us)).isoformat()
        return time.replace("+00:00", "Z")

    def at(self, now_us: int) -> int:
        return now_us + self.time_us if self.moves else self.time_us


class Flag(Enum):
    """What a task is besides its state."""

    DUE = "due"
    """SCHEDULED, and its due time has come."""
    RETRYING = "retrying"
    """SCHEDULED after an attempt that has failed."""
    UNFINISHED = "unfinished"
    """SCHEDULED or RUNNING."""
    FINISHED = "finished"
    """SUCCEEDED, FAILED or CANCELLED."""


class Present(Enum):
    """Whatever it is, it is there."""

    PRESENT = "*"


PRESENT = Present.PRESENT

Value = Text | Moment | Flag | Present | TaskState | uuid.UUID | int


class Term(NamedTuple):
    """What must be true of a task; of several values, of one."""

    key: str
    op: Op
    values: tuple[Value, ...]
    negated: bool = False

    def __str__(self) -> str:
        values = ",".join(sorted({shown(value) for value in self.values}))
        return f"{'-' if self.negated else ''}{self.key}{self.op.value}{values}"


@dataclass(frozen=True, slots=True)
class Filter:
    """What must all be true of a task. `parse` makes them."""

    terms: tuple[Term, ...] = ()

    def __str__(self) -> str:
        """The same for all that differ by spelling alone."""
        return " ".join(str(term) for term in self.terms)

    def of(self, key: str) -> list[Term]:
        """The terms of a key."""
        return [term for term in self.terms if term.key == key]


EVERYTHING = Filter()


# ── canonical text ───────────────────────────────────────────────────────────────────────────────────────────────────


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _span(span_us: int) -> str:
    if span_us == 0:
        return ""
    unit = next(unit for unit, unit_us in UNITS_US.items() if span_us % unit_us == 0)
    return f"{'-' if span_us < 0 else '+'}{abs(span_us) // UNITS_US[unit]}{unit}"


def shown(value: Value) -> str:
    """A value as it stands in canonical text."""
    if isinstance(value, TaskState):
        return value.name
    if isinstance(value, Flag | Present):
        return str(value.value)
    return str(value)
