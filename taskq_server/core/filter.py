"""Which tasks somebody asks for: `state:FAILED name:kitchen.* -tag:test due_time<now-1h`.

Terms stand between spaces and must all be true. A term is a key, an operator and a value, or several values between
commas, of which one must hold; `-` before it turns it round. What a task does not have makes a term false, and with `-`
true. docs/filters.md tells it to people.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import NamedTuple

from taskq_server.core.matching import Requirement
from taskq_server.core.task import TaskState

MOST_CHARACTERS = 1_024
MOST_TERMS = 32
MOST_NUMBER = (1 << 31) - 1
MOST_SPAN_US = 3_650 * 86_400_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SPACE = re.compile(r"\s*")
_HEAD = re.compile(r"(-?)([A-Za-z_]*)(!=|<=|>=|[:=<>])?")
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"(\*?)')
_BARE = re.compile(r'[^\s",]+')
_PLAIN = re.compile(r'[^\s",*]+')
_TIME = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII)
_SECONDS = re.compile(r"\d{1,12}", re.ASCII)
_NOW = re.compile(r"now(?:([+-])((?:\d{1,9}(?:us|ms|[smhdw]))+))?", re.ASCII)
_SPAN = re.compile(r"(\d+)(us|ms|[smhdw])", re.ASCII)
_UNITS_US = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9._/-]+")


class FilterRefused(ValueError):
    """The text is no filter: what must stand where, and what stands there."""

    def __init__(self, at: int, expected: str, found: str) -> None:
        self.position = at + 1
        self.expected = expected
        self.found = found
        shown = repr(found if len(found) <= 64 else found[:61] + "...") if found else "nothing"
        super().__init__(f"must have {expected} at character {self.position}; has {shown}")


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
        time = (_EPOCH + timedelta(microseconds=self.time_us)).isoformat()
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
        shown = ",".join(sorted({_shown(value) for value in self.values}))
        return f"{'-' if self.negated else ''}{self.key}{self.op.value}{shown}"


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


def parse(text: str) -> Filter:
    """The filter that a text says, in its canonical form; else FilterRefused."""
    if len(text) > MOST_CHARACTERS:
        raise FilterRefused(MOST_CHARACTERS, f"no more than {MOST_CHARACTERS:,} characters", text[MOST_CHARACTERS:])
    if (at := text.find("\0")) >= 0:
        raise FilterRefused(at, "no U+0000", text[at])
    terms: list[Term] = []
    at = _after_space(text, 0)
    while at < len(text):
        if len(terms) == MOST_TERMS:
            raise FilterRefused(at, f"an end after {MOST_TERMS} terms", text[at:])
        term, end = _term(text, at)
        terms.append(term)
        at = _after_space(text, end)
    found = Filter(tuple(sorted(set(terms), key=str)))
    if len(str(found)) > MOST_CHARACTERS:  # times and requirements may be written shorter than they are kept
        raise FilterRefused(len(text), f"no more than {MOST_CHARACTERS:,} characters once it is spelt out", "more")
    return found


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _term(text: str, start: int) -> tuple[Term, int]:
    head = _HEAD.match(text, start)
    assert head is not None, "it matches nothing, too"
    minus, name, sign = head.groups()
    key = KEYS.get(name)
    if key is None:
        raise FilterRefused(head.start(2), f"one of the keys {', '.join(KEYS)}", name or text[start : start + 16])
    if sign is None or sign not in key.signs:
        raise FilterRefused(head.end(2), f"one of {' '.join(key.signs)} after {name}", sign or text[head.end(2) :][:8])
    negated = bool(minus) != (sign == "!=")
    op = Op.IS if sign in ("=", "!=") else Op(sign)
    values, end = _values(text, head.end(), key, op)
    return Term(name, op, values, negated), end


class _Raw(NamedTuple):
    """A value as it was written."""

    at: int
    text: str
    starred: bool
    quoted: bool

    @property
    def shown(self) -> str:
        return f"{self.text}*" if self.starred else self.text

    def refuse(self, expected: str) -> FilterRefused:
        return FilterRefused(self.at, expected, self.shown)


def _values(text: str, at: int, key: Key, op: Op) -> tuple[tuple[Value, ...], int]:
    found: list[Value] = []
    while True:
        raw, at = _raw(text, at, key)
        found.append(key.read(raw))
        if op is not Op.IS and found[-1] is PRESENT:
            raise raw.refuse(f"{key.what} after {op.value}")
        if not text.startswith(",", at):
            break
        if op is not Op.IS:
            raise FilterRefused(at, f"a single value after {op.value}", text[at:])
        at += 1
    if at < len(text) and not text[at].isspace():
        raise FilterRefused(at, "a comma or a space after a value", text[at:])
    return tuple(sorted(set(found), key=_shown)), at


def _raw(text: str, at: int, key: Key) -> tuple[_Raw, int]:
    if text.startswith('"', at):
        quoted = _QUOTED.match(text, at)
        if quoted is None:
            raise FilterRefused(at, 'a closing ", and before it only \\" and \\\\ after a \\', text[at:])
        plain = re.sub(r'\\(["\\])', r"\1", quoted[1])
        return _Raw(at, plain, bool(quoted[2]), quoted=True), quoted.end()
    bare = _BARE.match(text, at)
    if bare is None:
        raise FilterRefused(at, key.what, text[at:])
    starred = bare[0].endswith("*")
    return _Raw(at, bare[0][:-1] if starred else bare[0], starred, quoted=False), bare.end()


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_EQUAL = (":", "=", "!=")
_ORDER = ("<", "<=", ">", ">=")


class Key(NamedTuple):
    """What a term may be about."""

    what: str
    """Which values it has, for whoever wrote another."""
    read: Callable[[_Raw], Value]
    """FilterRefused for what is none of them."""
    signs: tuple[str, ...] = _EQUAL


def _is_star(raw: _Raw) -> bool:
    return raw.starred and not raw.text and not raw.quoted


def _text(raw: _Raw) -> Text:
    if "*" in raw.text and not raw.quoted:
        raise raw.refuse("a * at the end alone, or quotes,")
    if not raw.text and not raw.starred:
        raise raw.refuse("a text that is not empty")
    return Text(raw.text, raw.starred)


def _part(raw: _Raw) -> Text:
    """Of what is looked for within a text, `*` means nothing special but where it is alone."""
    if _is_star(raw):
        return Text("", begins=True)
    if not raw.shown:
        raise raw.refuse("a text that is not empty")
    return Text(raw.shown)


def _requirement(raw: _Raw) -> Text:
    if _is_star(raw):
        return Text("", begins=True)
    try:
        return Text(str(Requirement.parse(raw.shown)))
    except ValueError:
        if _LABEL.fullmatch(raw.text) and not raw.starred:
            return Text(raw.text)
        raise raw.refuse(_WHAT_REQUIREMENT) from None


def _number(most: int, what: str) -> Callable[[_Raw], Value]:
    def read(raw: _Raw) -> int:
        if raw.starred or not _SECONDS.fullmatch(raw.text) or int(raw.text) > most:
            raise raw.refuse(what)
        return int(raw.text)

    return read


def _uuid(raw: _Raw) -> uuid.UUID:
    if raw.starred or not _UUID.fullmatch(raw.text):
        raise raw.refuse(_WHAT_UUID)
    return uuid.UUID(raw.text)


def _state(raw: _Raw) -> TaskState:
    if raw.starred or raw.text.upper() not in TaskState.__members__:
        raise raw.refuse(_WHAT_STATE)
    return TaskState[raw.text.upper()]


def _flag(raw: _Raw) -> Flag:
    if raw.starred or raw.text not in {flag.value for flag in Flag}:
        raise raw.refuse(_WHAT_FLAG)
    return Flag(raw.text)


def _moment(raw: _Raw) -> Moment:
    moment = None if raw.starred else _moving(raw.text) or _fixed(raw.text)
    if moment is None:
        raise raw.refuse(_WHAT_TIME)
    return moment


def _moving(text: str) -> Moment | None:
    found = _NOW.fullmatch(text)
    if found is None:
        return None
    span_us = sum(int(many) * _UNITS_US[unit] for many, unit in _SPAN.findall(found[2] or ""))
    return Moment(-span_us if found[1] == "-" else span_us, moves=True) if span_us <= MOST_SPAN_US else None


def _fixed(text: str) -> Moment | None:
    if _SECONDS.fullmatch(text):
        return Moment(int(text) * 1_000_000) if int(text) < 253_402_300_800 else None
    if not _TIME.fullmatch(text):
        return None
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
        time_us = (time - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None
    return Moment(time_us) if 0 <= time_us < 253_402_300_800_000_000 else None


def _or_present(read: Callable[[_Raw], Value]) -> Callable[[_Raw], Value]:
    return lambda raw: PRESENT if _is_star(raw) else read(raw)


_WHAT_TEXT = "a text, or how texts begin and *,"
_WHAT_PART = "a part of the text"
_WHAT_UUID = "a UUID"
_WHAT_STATE = f"one of {', '.join(TaskState.__members__)}"
_WHAT_FLAG = f"one of {', '.join(flag.value for flag in Flag)}"
_WHAT_COUNT = "a whole number"
_WHAT_PRIORITY = "a number of 0 to 9"
_WHAT_TIME = "a time such as 2026-01-31T12:00:00Z, now, now-5m or now+1h"
_WHAT_REQUIREMENT = "a label, or what is required of one, such as region=eu,"

_TEXTS = Key(_WHAT_TEXT, _text)
_COUNTS = Key(_WHAT_COUNT, _number(MOST_NUMBER, _WHAT_COUNT), _EQUAL + _ORDER)
_TIMES = Key(_WHAT_TIME, _moment, _ORDER)
_TIMES_OR_NONE = Key(_WHAT_TIME, _or_present(_moment), (":", *_ORDER))

KEYS: dict[str, Key] = {
    "id": Key(_WHAT_UUID, _uuid),
    "state": Key(_WHAT_STATE, _state),
    "is": Key(_WHAT_FLAG, _flag, (":",)),
    "name": _TEXTS,
    "requires": Key(_WHAT_REQUIREMENT, _requirement),
    "tag": _TEXTS,
    "key": _TEXTS,
    "content_type": _TEXTS,
    "priority": Key(_WHAT_PRIORITY, _number(9, _WHAT_PRIORITY), _EQUAL + _ORDER),
    "attempt": _COUNTS,
    "failed_attempts": _COUNTS,
    "due_time": _TIMES,
    "enqueue_time": _TIMES,
    "expire_time": _TIMES_OR_NONE,
    "lease_time": _TIMES_OR_NONE,
    "finish_time": _TIMES_OR_NONE,
    "processor": _TEXTS,
    "error": Key(_WHAT_PART, _part, (":",)),
    "error_type": _TEXTS,
    "failure": _TEXTS,
    "schedule": _TEXTS,
    "rerun_of": Key(_WHAT_UUID, _or_present(_uuid)),
}
"""Every key, in the order in which people are told of them."""


# ── canonical text ───────────────────────────────────────────────────────────────────────────────────────────────────


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _span(span_us: int) -> str:
    if span_us == 0:
        return ""
    unit = next(unit for unit, unit_us in _UNITS_US.items() if span_us % unit_us == 0)
    return f"{'-' if span_us < 0 else '+'}{abs(span_us) // _UNITS_US[unit]}{unit}"


def _shown(value: Value) -> str:
    if isinstance(value, TaskState):
        return value.name
    if isinstance(value, Flag | Present):
        return str(value.value)
    return str(value)
