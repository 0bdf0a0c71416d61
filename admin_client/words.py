"""Times, spans and figures as people read them, and text made safe for a terminal."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime
from typing import Any, Final, Literal

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

TimeStyle = Literal["relative", "iso", "epoch"]

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
# What moves a cursor, colours, or turns the direction of writing: what somebody else wrote must not do so here.
_UNSAFE: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """The text on one line, with nothing in it that a terminal would obey."""
    return _UNSAFE.sub(lambda found: " " if found[0] == "\n" else "�", text.replace("\t", " "))


def span(seconds: float) -> str:
    """`3s`, `2m05s`, `4h30m`, `12d`: the two largest units; below ten seconds one decimal, below one milliseconds."""
    if seconds < 0:
        return "-" + span(-seconds)
    if seconds < 1:
        return f"{seconds * 1_000:.0f}ms" if seconds else "0s"
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for (size, unit), (smaller, rest_unit) in itertools.pairwise(_UNITS):
        if whole >= size:
            count, rest = divmod(whole, size)
            if count >= 10 and rest:
                return span(round(whole / size) * size)
            return f"{count}{unit}{rest // smaller:02d}{rest_unit}" if rest >= smaller else f"{count}{unit}"
    return f"{whole}s"


def duration(message: Duration) -> str:
    """A span from the wire."""
    return span(message.seconds + message.nanos / 1e9)


def count(number: int, *, or_more: bool = False) -> str:
    """`1,234`, or `1,000+` where the count was broken off."""
    return f"{number:,}{'+' if or_more else ''}"


def enum(message: Any, field: str) -> str:
    """The name of an enum's value without its prefix: `SCHEDULED`; empty for the unspecified one."""
    kind = message.DESCRIPTOR.fields_by_name[field].enum_type
    number = getattr(message, field)
    value = kind.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = kind.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return "" if number == 0 else str(value.name).removeprefix(prefix)


class Words:
    """How times are written.

    style   relative: from now; iso: as RFC 3339, in UTC; epoch: as seconds
    now     the server's clock, or ours where it does not say
    """

    def __init__(self, style: TimeStyle = "relative", now: float | None = None) -> None:
        self.style = style
        self.now = datetime.now(UTC).timestamp() if now is None else now

    def by(self, message: Any) -> Words:
        """By the clock of the server that answered this."""
        if "server_time" in message.DESCRIPTOR.fields_by_name and message.HasField("server_time"):
            return Words(self.style, _seconds(message.server_time))
        return self

    def at(self, message: Any, field: str) -> str:
        """A moment; empty when it is absent."""
        return self.moment(getattr(message, field)) if message.HasField(field) else ""

    def moment(self, moment: Timestamp) -> str:
        """A moment."""
        seconds = _seconds(moment)
        if self.style == "epoch":
            return f"{seconds:.6f}".rstrip("0").rstrip(".")
        if self.style == "iso":
            return str(moment.ToJsonString())
        ahead = seconds - self.now
        if abs(ahead) < 0.5:
            return "now"
        return f"in {span(ahead)}" if ahead > 0 else f"{span(-ahead)} ago"


def _seconds(moment: Timestamp) -> float:
    return float(moment.seconds + moment.nanos / 1e9)
