"""The checks on what comes in: every fault of a request is found, and named by its field."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from taskq_server.core.errors import Fault, InvalidFields
from taskq_server.core.filter import EVERYTHING, Filter, FilterRefused, parse
from taskq_server.task_id import from_text

Message = TypeVar("Message")
Item = TypeVar("Item")

NAME = re.compile(r"[A-Za-z0-9._/-]{1,128}")
PRINTABLE = re.compile(r"[\x20-\x7e]*")
LAST_SECOND = 253_402_300_799
"""9999-12-31T23:59:59Z, the last one that a Timestamp may hold."""
DAY_US = 86_400_000_000
EXAMPLE = "019353a4-5b67-7cc2-9d1a-4b7e1c8f2a10"
_NO_BYTES = bytes(16)


class Faults:
    """What is wrong with a request, so far."""

    def __init__(self) -> None:
        self.found: list[Fault] = []
        self._placed = 0

    def belong_to(self, field: str, index: int) -> None:
        """What was found since this was called last is about that item of a repeated field. Whoever checks the item
        need not put its name together a thousand times, in case."""
        for i in range(self._placed, len(self.found)):
            fault = self.found[i]
            self.found[i] = Fault(f"{field}[{index}].{fault.field}", fault.rule)
        self._placed = len(self.found)

    def add(self, field: str, rule: str) -> None:
        self.found.append(Fault(field, rule))

    def raise_if_any(self) -> None:
        if self.found:
            raise InvalidFields(self.found)

    def uuid(self, field: str, text: str) -> bytes:
        try:
            return from_text(text)
        except ValueError:
            self.add(field, f"must be a UUID such as {EXAMPLE}; is {_shown(text)}" if text else "must be set")
            return _NO_BYTES

    def name(self, field: str, text: str) -> str:
        if not NAME.fullmatch(text):
            self.add(field, f"must be 1 to 128 characters of A-Z a-z 0-9 . _ / -; is {_shown(text)}")
        return text

    def printable(self, field: str, text: str, most: int, least: int = 0) -> str:
        if not least <= len(text) <= most or not _is_printable(text):
            self.add(field, f"must be {least} to {most} characters of printable ASCII; is {_shown(text)}")
        return text

    def text(self, field: str, text: str, most: int, least: int = 0) -> str:
        if not least <= len(text) <= most:
            self.add(field, f"must be {least} to {most} characters; has {len(text)}")
        if "\0" in text:
            self.add(field, "must not hold U+0000")
        return text

    def filter(self, field: str, text: str) -> Filter:
        """Which tasks are asked for; of a text that is no filter, all."""
        try:
            return parse(text)
        except FilterRefused as refused:
            self.add(field, str(refused))
            return EVERYTHING

    def number(self, field: str, value: float, least: float, most: float) -> None:
        if not least <= value <= most:  # false for NaN too
            self.add(field, f"must be {least:,} to {most:,}; is {value}")

    def string_map(self, field: str, values: Mapping[str, str]) -> dict[str, str]:
        if len(values) > 64:
            self.add(field, f"must have at most 64 entries; has {len(values)}")
        for key, value in values.items():
            self.text(f"{field}[{_shown(key)}] (key)", key, 128, 1)
            self.text(f"{field}[{_shown(key)}]", value, 4096)
        return dict(values)

    def time_us(self, field: str, time: Timestamp) -> int:
        if not 0 <= time.seconds <= LAST_SECOND or not 0 <= time.nanos <= 999_999_999:
            self.add(
                field, f"must be from 1970 to 9999, with nanos of 0 to 999,999,999; is {time.seconds} s {time.nanos} ns"
            )
            return 0
        return time.seconds * 1_000_000 + time.nanos // 1_000

    def span_us(self, field: str, span: Duration, least_us: int, most_us: int, rule: str) -> int:
        in_form = -999_999_999 <= span.nanos <= 999_999_999 and (
            span.seconds == 0 or span.nanos == 0 or (span.seconds < 0) == (span.nanos < 0)
        )
        span_us = span.seconds * 1_000_000 + span.nanos // 1_000
        if not in_form or not least_us <= span_us <= most_us:
            self.add(field, f"must be {rule}; is {span.seconds} s {span.nanos} ns")
        return span_us


def items(
    field: str, messages: Sequence[Message], least: int, most: int, convert: Callable[[Faults, Message], Item]
) -> list[Item]:
    """What each message of a repeated field says; InvalidFields names every fault of every one."""
    faults = Faults()
    if not least <= len(messages) <= most:
        rule = f"must be {least} to {most:,}" if least else f"must be at most {most:,}"
        faults.add(field, f"{rule}; are {len(messages):,}")
        faults.raise_if_any()
    found = []
    for i, message in enumerate(messages):
        found.append(convert(faults, message))
        faults.belong_to(field, i)
    faults.raise_if_any()
    return found


@lru_cache(maxsize=10_000)
def _is_printable(text: str) -> bool:
    return PRINTABLE.fullmatch(text) is not None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 64 else text[:61] + "...")
