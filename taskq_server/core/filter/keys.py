"""What a term may be about: every key, and how its values are written."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from taskq_server.core.filter.terms import EPOCH, PRESENT, UNITS_US, Flag, Moment, Text, Value
from taskq_server.core.filter.written import Raw
from taskq_server.core.matching import Requirement
from taskq_server.core.task import TaskState

MOST_NUMBER = (1 << 31) - 1
MOST_SPAN_US = 3_650 * 86_400_000_000

_TIME = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII)
_SECONDS = re.compile(r"\d{1,12}", re.ASCII)
_NOW = re.compile(r"now(?:([+-])((?:\d{1,9}(?:us|ms|[smhdw]))+))?", re.ASCII)
_SPAN = re.compile(r"(\d+)(us|ms|[smhdw])", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9._/-]+")

_EQUAL = (":", "=", "!=")
_ORDER = ("<", "<=", ">", ">=")


class Key(NamedTuple):
    """What a term may be about."""

    what: str
    """Which values it has, for whoever wrote another."""
    read: Callable[[Raw], Value]
    """FilterRefused for what is none of them."""
    signs: tuple[str, ...] = _EQUAL


def _is_star(raw: Raw) -> bool:
    return raw.starred and not raw.text and not raw.quoted


def _text(raw: Raw) -> Text:
    if "*" in raw.text and not raw.quoted:
        raise raw.refuse("a * at the end alone, or quotes,")
    if not raw.text and not raw.starred:
        raise raw.refuse("a text that is not empty")
    return Text(raw.text, raw.starred)


def _part(raw: Raw) -> Text:
    """Of what is looked for within a text, `*` means nothing special but where it is alone."""
    if _is_star(raw):
        return Text("", begins=True)
    if not raw.shown:
        raise raw.refuse("a text that is not empty")
    return Text(raw.shown)


def _requirement(raw: Raw) -> Text:
    if _is_star(raw):
        return Text("", begins=True)
    try:
        return Text(str(Requirement.parse(raw.shown)))
    except ValueError:
        if _LABEL.fullmatch(raw.text) and not raw.starred:
            return Text(raw.text)
        raise raw.refuse(_WHAT_REQUIREMENT) from None


def _number(most: int, what: str) -> Callable[[Raw], Value]:
    def read(raw: Raw) -> int:
        if raw.starred or not _SECONDS.fullmatch(raw.text) or int(raw.text) > most:
            raise raw.refuse(what)
        return int(raw.text)

    return read


def _uuid(raw: Raw) -> uuid.UUID:
    if raw.starred or not _UUID.fullmatch(raw.text):
        raise raw.refuse(_WHAT_UUID)
    return uuid.UUID(raw.text)


def _state(raw: Raw) -> TaskState:
    if raw.starred or raw.text.upper() not in TaskState.__members__:
        raise raw.refuse(_WHAT_STATE)
    return TaskState[raw.text.upper()]


def _flag(raw: Raw) -> Flag:
    if raw.starred or raw.text not in {flag.value for flag in Flag}:
        raise raw.refuse(_WHAT_FLAG)
    return Flag(raw.text)


def _moment(raw: Raw) -> Moment:
    moment = None if raw.starred else _moving(raw.text) or _fixed(raw.text)
    if moment is None:
        raise raw.refuse(_WHAT_TIME)
    return moment


def _moving(text: str) -> Moment | None:
    found = _NOW.fullmatch(text)
    if found is None:
        return None
    span_us = sum(int(many) * UNITS_US[unit] for many, unit in _SPAN.findall(found[2] or ""))
    return Moment(-span_us if found[1] == "-" else span_us, moves=True) if span_us <= MOST_SPAN_US else None


def _fixed(text: str) -> Moment | None:
    if _SECONDS.fullmatch(text):
        return Moment(int(text) * 1_000_000) if int(text) < 253_402_300_800 else None
    if not _TIME.fullmatch(text):
        return None
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
        time_us = (time - EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None
    return Moment(time_us) if 0 <= time_us < 253_402_300_800_000_000 else None


def _or_present(read: Callable[[Raw], Value]) -> Callable[[Raw], Value]:
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
