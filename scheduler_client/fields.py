"""Each field that a scheduler may set: its check, by the rule in protos/taskq/v1, and its form on the wire."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal
from uuid import UUID

from client_core.times import (
    Moment,
    Span,
    microseconds_to_timestamp,
    timestamp_to_microseconds,
    to_duration,
    to_microseconds,
    to_timestamp,
)
from scheduler_client.ids import checked_task_id
from scheduler_client.retry import Retry
from taskq.v1.scheduler_service_pb2 import DedupConflict, DedupHold, NewTask

OnConflict = Literal["return_existing", "reject", "replace", "debounce"]
KeyHold = Literal["unfinished", "ttl", "both"]

_NAME: Final = re.compile(r"[A-Za-z0-9._/-]{1,128}", re.ASCII)
_PRINTABLE: Final = re.compile(r"[ -~]{1,256}", re.ASCII)
_DAY_US: Final = 86_400_000_000
_YEAR_US: Final = 365 * _DAY_US
_CONFLICTS: Final = {
    "return_existing": DedupConflict.DEDUP_CONFLICT_RETURN_EXISTING,
    "reject": DedupConflict.DEDUP_CONFLICT_REJECT,
    "replace": DedupConflict.DEDUP_CONFLICT_REPLACE,
    "debounce": DedupConflict.DEDUP_CONFLICT_DEBOUNCE,
}
_HOLDS: Final = {
    "unfinished": DedupHold.DEDUP_HOLD_UNFINISHED,
    "ttl": DedupHold.DEDUP_HOLD_TTL,
    "both": DedupHold.DEDUP_HOLD_BOTH,
}


def checked_name(name: object) -> str:
    """A task name, which is a capability's. ValueError when it is not one."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"is {name!r:.200}; must be 1 to 128 of A-Z a-z 0-9 . _ / -")
    return name


def _write_task_id(message: NewTask, value: str | UUID) -> None:
    message.task_id = checked_task_id(value)


def _write_at(message: NewTask, value: Moment) -> None:
    message.due_time.CopyFrom(to_timestamp(value))


def _write_delay(message: NewTask, value: Span) -> None:
    message.delay.CopyFrom(to_duration(_bounded(value, 0, 3_650 * _DAY_US, "0 to 3,650 days")))


def _write_priority(message: NewTask, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 9:
        raise ValueError(f"is {value!r}; must be a whole number from 0 to 9, larger runs sooner")
    message.priority = value


def _write_requires(message: NewTask, value: Sequence[str]) -> None:
    message.requires.extend(_texts(value, 16, 512))


def _write_tags(message: NewTask, value: Sequence[str]) -> None:
    message.tags.extend(_texts(value, 32, 128))


def _write_headers(message: NewTask, value: Mapping[str, str]) -> None:
    if not isinstance(value, Mapping) or len(value) > 64:
        raise ValueError(f"is {value!r:.100}; must be a mapping of at most 64")
    for key, text in value.items():
        if not isinstance(key, str) or not 1 <= len(key) <= 128 or not isinstance(text, str) or len(text) > 4_096:
            raise ValueError(f"has {key!r:.140}; must have keys of 1 to 128 and values of up to 4,096 characters")
    message.headers.update(value)


def _write_retry(message: NewTask, value: Retry) -> None:
    if not isinstance(value, Retry):
        raise TypeError(f"is {type(value).__name__} {value!r:.100}; must be a Retry")
    message.retry_policy.CopyFrom(value.to_message())


def _write_run_timeout(message: NewTask, value: Span) -> None:
    message.run_timeout.CopyFrom(to_duration(_bounded(value, 1_000, _YEAR_US, "1 ms to 365 days")))


def _write_retention(message: NewTask, value: Span) -> None:
    message.retention.CopyFrom(to_duration(_bounded(value, 0, 3_650 * _DAY_US, "0 to 3,650 days")))


def _write_key(message: NewTask, value: str) -> None:
    if not isinstance(value, str) or not _PRINTABLE.fullmatch(value):
        raise ValueError(f"is {value!r:.300}; must be 1 to 256 characters of printable ASCII")
    message.dedup.key = value


def _write_key_scope(message: NewTask, value: str) -> None:
    message.dedup.scope = checked_name(value)


def _write_on_conflict(message: NewTask, value: OnConflict) -> None:
    message.dedup.on_conflict = _CONFLICTS[_among(value, _CONFLICTS)]


def _write_key_ttl(message: NewTask, value: Span) -> None:
    message.dedup.ttl.CopyFrom(to_duration(_bounded(value, 1_000, _YEAR_US, "1 ms to 365 days")))


def _write_key_hold(message: NewTask, value: KeyHold) -> None:
    message.dedup.hold = _HOLDS[_among(value, _HOLDS)]
    if value != "unfinished" and not message.dedup.HasField("ttl"):
        raise ValueError(f"is {value!r}; must be given with key_ttl")


def _write_expire_after(message: NewTask, value: Span) -> None:
    span = _bounded(value, 1_000, 3_650 * _DAY_US, "1 ms to 3,650 days")
    message.expire_time.CopyFrom(microseconds_to_timestamp(_due_us(message) + to_microseconds(span)))


def _write_expire_time(message: NewTask, value: Moment) -> None:
    expire_time = to_timestamp(value)
    if message.HasField("due_time") and timestamp_to_microseconds(expire_time) <= _due_us(message):
        raise ValueError(f"is {value!r}; must be after the due time")
    message.expire_time.CopyFrom(expire_time)


def _due_us(message: NewTask) -> int:
    if message.HasField("due_time"):
        return timestamp_to_microseconds(message.due_time)
    # The server counts a delay on its own clock; for an expiry ours is near enough.
    return time.time_ns() // 1_000 + message.delay.seconds * 1_000_000 + message.delay.nanos // 1_000


def _bounded(span: Span, low_us: int, high_us: int, bounds: str) -> Span:
    if not low_us <= to_microseconds(span) <= high_us:
        raise ValueError(f"is {span!r}; must be {bounds}")
    return span


def _texts(value: object, most: int, longest: int) -> Sequence[str]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) > most:
        raise ValueError(f"is {value!r:.100}; must be a list of at most {most} texts")
    for text in value:
        if not isinstance(text, str) or not 1 <= len(text) <= longest:
            raise ValueError(f"has {text!r:.100}; must have texts of 1 to {longest} characters")
    return value


def _among(value: object, known: Mapping[str, Any]) -> str:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"is {value!r}; must be one of {', '.join(known)}")
    return value


WRITERS: Final[dict[str, Callable[[NewTask, Any], None]]] = {
    # In this order, because an expiry is counted from the due time, and a hold needs its ttl.
    "task_id": _write_task_id,
    "at": _write_at,
    "delay": _write_delay,
    "priority": _write_priority,
    "requires": _write_requires,
    "tags": _write_tags,
    "headers": _write_headers,
    "retry": _write_retry,
    "run_timeout": _write_run_timeout,
    "retention": _write_retention,
    "key": _write_key,
    "key_scope": _write_key_scope,
    "on_conflict": _write_on_conflict,
    "key_ttl": _write_key_ttl,
    "key_hold": _write_key_hold,
    "expire_after": _write_expire_after,
    "expire_time": _write_expire_time,
}
