"""What a form has sent, bounded; and fields of it as what they mean."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from starlette.requests import Request

from taskq.v1 import task_pb2
from taskq_server.core.errors import Fault, InvalidFields
from taskq_server.http import body

MOST_BYTES = 1 << 20
MOST_FIELDS = 2_000
MOST_EDITED_BYTES = 256 << 10
"""What is larger might not come back: a form sends three bytes for one."""
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}


class Form:
    """Fields with their values."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs
        self._values = dict(reversed(pairs))

    def get(self, name: str, default: str = "") -> str:
        return self._values.get(name, default).strip()

    def raw(self, name: str) -> str:
        """As it was typed, with the line ends of this world."""
        return _with_line_ends(self._values.get(name, ""))

    def all(self, name: str) -> list[str]:
        return [value for key, value in self._pairs if key == name and value]

    def lines(self, name: str) -> list[str]:
        """One thing a line."""
        return [line.strip() for line in self.raw(name).split("\n") if line.strip()]

    def lines_of(self, name: str, stored: Iterable[str]) -> list[str]:
        """The same; as they are stored while nobody has typed anything else: one that a line cannot show stays."""
        kept = list(stored)
        return kept if self.raw(name) == _with_line_ends("\n".join(kept)) else self.lines(name)

    def number(self, name: str, default: int = 0, bits: int = 32) -> int:
        """As large as its field in the contract can be."""
        text = self.get(name)
        if not text:
            return default
        try:
            number = int(text)
        except ValueError:
            raise fault(name, f"must be a whole number; is {text[:40]!r}") from None
        if not -(1 << bits - 1) <= number < 1 << bits - 1:
            raise fault(name, f"must be a whole number of {bits} bits; is {text[:40]!r}")
        return number

    def choice(self, name: str, enum: Any, default: str = "", prefix: str = "") -> Any:
        """A value of an enum by its name, in either case, of which `prefix` is left out."""
        text = self.get(name) or default
        if (value := enum.DESCRIPTOR.values_by_name.get(prefix + text.upper())) is not None:
            return value.number
        names = [one.removeprefix(prefix).lower() for one in enum.keys()]  # noqa: SIM118
        raise fault(name, f"must be one of {', '.join(names)}; is {text[:40]!r}")

    def duration(self, name: str) -> Duration | None:
        """`90s`, `10m`, `1.5h`, `2d`; a bare number is seconds."""
        text = self.get(name).lower().replace(" ", "")
        if not text:
            return None
        digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
        try:
            microseconds = round(float(digits) * _UNITS[text[len(digits) :] or "s"] * 1_000_000)
            return Duration(seconds=microseconds // 1_000_000, nanos=microseconds % 1_000_000 * 1_000)
        except (ValueError, KeyError, OverflowError):
            raise fault(name, f"must be a span such as 90s, 10m, 1.5h or 2d; is {text[:40]!r}") from None

    def time(self, name: str) -> Timestamp | None:
        """ISO 8601; without an offset it is UTC."""
        text = self.get(name)
        if not text:
            return None
        try:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            found = Timestamp()
            found.FromDatetime(moment.astimezone(UTC))
            return found
        except (ValueError, OverflowError):
            raise fault(name, f"must be a time such as 2026-01-31T08:00; is {text[:40]!r}") from None


def text_of(data: bytes) -> str | None:
    """A payload as a form shows it; None for what would not come back from there as it is."""
    if len(data) > MOST_EDITED_BYTES or b"\0" in data:
        return None
    try:
        return _with_line_ends(data.decode("utf-8"))
    except UnicodeDecodeError:
        return None


def read_payload(form: Form, payload: task_pb2.Payload) -> None:
    """Text as it was typed; JSON has to be JSON. What `payload` holds stays, byte by byte, unless something else was
    typed than a form shows of it."""
    text, content_type, shown = form.raw("payload"), form.get("content_type"), text_of(payload.data)
    is_kept = shown is None or shown == text
    if is_kept and content_type == payload.content_type:
        return
    if "json" in content_type and text.strip():
        try:
            json.loads(text)
        except (ValueError, RecursionError) as error:
            raise fault("payload", f"must be JSON: {error}") from None
    if not is_kept:
        payload.data = text.encode()
    payload.content_type = content_type


def _with_line_ends(text: str) -> str:
    """Browsers send each end of a line as CR LF, whichever it was."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def fault(field: str, rule: str) -> InvalidFields:
    return InvalidFields([Fault(field, rule)])


async def read(request: Request) -> Form:
    """What was posted; InvalidFields when it is no form, Refusal when there is too much of it, or too slowly."""
    if not request.headers.get("content-type", "").startswith(body.FORM):
        raise fault("form", f"must be {body.FORM}")
    return parse(await body.read(request, body.FORM, MOST_BYTES))


def parse(posted: bytes) -> Form:
    try:
        text = posted.decode("ascii")
        return Form(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS))
    except ValueError:
        raise fault("form", f"must be UTF-8 of at most {MOST_FIELDS} fields") from None
