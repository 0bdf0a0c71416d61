"""What stands in flags and arguments: times, spans, payloads, choices of the contract."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

_SPAN: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:us|ms|s|m|h|d))+", re.ASCII)
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)", re.ASCII)
_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_END: Final = 253_402_300_800.0  # year 10000


@dataclass(frozen=True, slots=True)
class When:
    """A moment, or so many seconds from now: then by the server's clock where it has a field for that."""

    seconds: float
    is_relative: bool = False

    def moment(self) -> datetime:
        """The moment, by our clock where it is relative."""
        return datetime.fromtimestamp(self.seconds + (time.time() if self.is_relative else 0.0), UTC)


class MomentType(click.ParamType):  # type: ignore[type-arg]
    """Epoch seconds, ISO 8601 with a zone, `+5m`, `-1h`, `now`."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> When:
        if isinstance(value, When):
            return value
        text = str(value).strip()
        if text == "now":
            return When(0.0, True)
        if text[:1] in "+-" and _SPAN.fullmatch(text[1:]):
            seconds = _seconds(text[1:])
            return When(-seconds if text[0] == "-" else seconds, True)
        if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
            if float(text) >= _END:
                self.fail(f"{text} lies after 9999; must be epoch seconds, not milliseconds", param, ctx)
            return When(float(text))
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} must be epoch seconds, ISO 8601 such as 2026-12-24T18:00:00Z, or +5m", param, ctx)
        if moment.utcoffset() is None:
            self.fail(f"{text!r} has no time zone; must end in Z or in an offset such as +01:00", param, ctx)
        return When(moment.timestamp())


class SpanType(click.ParamType):  # type: ignore[type-arg]
    """Seconds, from `500ms`, `30s`, `1h30m`, `7d`."""

    name = "SPAN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        text = str(value).strip().removeprefix("+")
        if not _SPAN.fullmatch(text):
            self.fail(f"{text!r} must be a number and a unit, such as 500ms, 30s, 1h30m or 7d", param, ctx)
        return _seconds(text)


class PairType(click.ParamType):  # type: ignore[type-arg]
    """`KEY=VALUE`."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not equals or not key:
            self.fail(f"{value!r} must be KEY=VALUE", param, ctx)
        return key, text


MOMENT: Final = MomentType()
SPAN: Final = SpanType()
PAIR: Final = PairType()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """While somebody types, Ctrl-C ends it. An event loop would only note it, and wait for what is typed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def content(text: str, flag: str) -> bytes:
    """What `@file` or `-` (stdin) stands for, or the text itself."""
    if text == "-":
        with interruptible():
            return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode("utf-8", errors="surrogateescape")
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise click.BadParameter(f"{text[1:]} cannot be read: {error.strerror}", param_hint=flag) from None


def payload(text: str, content_type: str) -> bytes:
    """The bytes of a payload. What is to be JSON must be JSON, and is sent as it is: no number loses a digit."""
    data = content(text, "--data")
    if content_type == "application/json":
        try:
            json.loads(data)
        except ValueError as fault:
            hint = "for other content, give --content-type"
            raise click.BadParameter(f"is not JSON: {fault}; {hint}", param_hint="--data") from None
    return data


def choice(kind: Any) -> click.Choice[str]:
    """The values of one of the contract's enums, in small letters: `run-once`."""
    return click.Choice([_small(kind, name) for name in kind.keys()[1:]])


def chosen(kind: Any, text: str | None) -> Any:
    """The enum's number for what was chosen; the unspecified one for nothing."""
    if text is None:
        return 0
    return next(kind.Value(name) for name in kind.keys()[1:] if _small(kind, name) == text)


def _small(kind: Any, name: str) -> str:
    return str(name.removeprefix(kind.Name(0).removesuffix("UNSPECIFIED")).lower().replace("_", "-"))


def _seconds(text: str) -> float:
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
