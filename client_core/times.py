"""Spans and moments as people write them, to the wire and back, kept to the microsecond."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

Span = timedelta | int | float | str
"""A timedelta, seconds as a number, or text such as `500ms`, `30s`, `10m`, `1h`, `7d`."""

Moment = datetime | int | float
"""An aware datetime, or epoch seconds."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_END: Final = 253_402_300_800_000_000  # the first microsecond of year 10000, where Timestamp ends
_LONGEST: Final = 315_576_000_000 * 1_000_000  # where Duration ends: about 10,000 years
_UNITS: Final = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d)", re.ASCII)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_microseconds(span: Span) -> int:
    """A span as whole microseconds; may be negative. ValueError or TypeError when it is not a span."""
    if isinstance(span, timedelta):
        return span // _MICROSECOND
    if isinstance(span, str):
        return _parse(span)
    return _whole(_number(span, "a timedelta, seconds, or text such as '30s'"), _LONGEST)


def to_seconds(span: Span) -> float:
    """A span as seconds."""
    return to_microseconds(span) / 1_000_000


def to_duration(span: Span) -> Duration:
    """A span for the wire."""
    microseconds = to_microseconds(span)
    seconds, rest = divmod(abs(microseconds), 1_000_000)
    sign = -1 if microseconds < 0 else 1
    return Duration(seconds=sign * seconds, nanos=sign * rest * 1_000)


def from_duration(duration: Duration) -> timedelta:
    """A span from the wire."""
    return timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1_000)


def to_epoch_microseconds(moment: Moment) -> int:
    """A moment from 1970 to 9999 as microseconds since 1970. ValueError when it is a naive datetime, or outside."""
    if isinstance(moment, datetime):
        if moment.utcoffset() is None:
            raise ValueError("is a naive datetime; must have a time zone, such as datetime.now(UTC)")
        microseconds = (moment - _EPOCH) // _MICROSECOND
    else:
        microseconds = _whole(_number(moment, "an aware datetime or epoch seconds"), _LONGEST)
    if not 0 <= microseconds < _END:
        raise ValueError(f"is {moment}; must lie from 1970 to 9999 (epoch seconds, not milliseconds)")
    return microseconds


def to_timestamp(moment: Moment) -> Timestamp:
    """A moment for the wire."""
    return microseconds_to_timestamp(to_epoch_microseconds(moment))


def microseconds_to_timestamp(microseconds: int) -> Timestamp:
    """Microseconds since 1970 for the wire. ValueError when that is after 9999."""
    if not 0 <= microseconds < _END:
        raise ValueError("lies outside 1970 to 9999; must lie within")
    seconds, rest = divmod(microseconds, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1_000)


def timestamp_to_microseconds(timestamp: Timestamp) -> int:
    """A moment from the wire as microseconds since 1970."""
    return timestamp.seconds * 1_000_000 + timestamp.nanos // 1_000


def from_timestamp(timestamp: Timestamp) -> datetime:
    """A moment from the wire, aware, in UTC."""
    return from_epoch_microseconds(timestamp_to_microseconds(timestamp))


def from_epoch_microseconds(microseconds: int) -> datetime:
    """A moment from microseconds since 1970, aware, in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


@lru_cache(maxsize=256)
def _parse(text: str) -> int:
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"is {text!r}; must be a number and one of us, ms, s, m, h, d, such as '30s'")
    number, unit = match.groups()
    return _whole(float(number) * _UNITS[unit] / 1_000_000, _LONGEST) if "." in number else int(number) * _UNITS[unit]


def _number(value: object, wanted: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"is {type(value).__name__} {value!r}; must be {wanted}")
    return value


def _whole(seconds: int | float, limit: int) -> int:
    if isinstance(seconds, float) and not math.isfinite(seconds):
        raise ValueError(f"is {seconds}; must be a finite number")
    microseconds = seconds * 1_000_000 if isinstance(seconds, int) else round(seconds * 1_000_000)
    if abs(microseconds) > limit:
        raise ValueError(f"is {seconds} seconds; must be at most {limit // 1_000_000}")
    return microseconds
