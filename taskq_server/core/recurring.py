"""A task that recurs: what somebody says of a schedule besides when it fires, and where it stands."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import NamedTuple

from taskq_server.core.schedule import (
    DEFAULT_CATCH_UP,
    DEFAULT_CATCH_UP_WINDOW_US,
    CatchUp,
    Overlap,
    Rule,
)
from taskq_server.core.task import NewTask

MOST_BUFFERED = 100
HEADERS = NAME_HEADER, ID_HEADER, NOMINAL_HEADER = "taskq-schedule", "taskq-schedule-id", "taskq-nominal-time"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FiringOutcome(IntEnum):
    """What became of a firing; numbers as on the wire."""

    FIRED = 1
    SKIPPED = 2
    BUFFERED = 3


@dataclass(slots=True)
class Definition:
    """What somebody says of a schedule."""

    name: str
    rule: Rule
    task: NewTask
    """What each firing makes, but for its id and when it is due."""
    overlap: Overlap = Overlap.SKIP
    max_buffered: int = MOST_BUFFERED
    catch_up: CatchUp = DEFAULT_CATCH_UP
    catch_up_window_us: int = DEFAULT_CATCH_UP_WINDOW_US
    max_firings: int | None = None
    origin: str = ""
    content_hash: bytes = b""
    """Of all that the caller sent, to tell a retry from a conflict."""


class Key(NamedTuple):
    """Which schedule is meant: by its id or, without one, by its name."""

    schedule_id: bytes | None
    name: str = ""


@dataclass(slots=True)
class Schedule:
    """A schedule as it is stored."""

    schedule_seq: int
    schedule_id: bytes
    definition: Definition
    version: int
    create_time_us: int
    update_time_us: int
    pause_time_us: int | None
    pause_note: str
    next_us: int | None
    """The next nominal time; None: it fires no more."""
    next_due_us: int | None
    last_us: int | None
    last_task_id: bytes | None
    tzdata: str
    used: int
    """How many firings count against `max_firings`."""
    fired: int
    skipped: int
    missed: int
    overlapped: int
    buffered: int = 0
    unfinished: int = 0

    @property
    def etag(self) -> str:
        """What it is after the last change that somebody made; another schedule of its name never has the same."""
        return f"{self.schedule_seq}-{self.version}"


def firing_task_id(schedule_id: bytes, nominal_us: int) -> bytes:
    """The UUIDv8 of the task of one firing: however often that firing were made, it would be this task."""
    raw = bytearray(hashlib.sha256(b"taskq.schedule\0" + schedule_id + b"%d" % nominal_us).digest()[:16])
    raw[6] = 0x80 | raw[6] & 0x0F
    raw[8] = 0x80 | raw[8] & 0x3F
    return bytes(raw)


class Firing(NamedTuple):
    """A schedule at one nominal time, and the task that this is."""

    nominal_us: int
    due_us: int
    task_id: bytes


def task_of(schedule_seq: int, schedule_id: bytes, name: str, template: NewTask, firing: Firing) -> NewTask:
    """The task of a firing."""
    nominal = in_rfc3339(firing.nominal_us)
    digits = schedule_id.hex()
    text = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return replace(
        template,
        task_id=firing.task_id,
        content_hash=hashlib.blake2b(template.content_hash + nominal.encode(), digest_size=16).digest(),
        due_time_us=firing.due_us,
        headers={**(template.headers or {}), NAME_HEADER: name, ID_HEADER: text, NOMINAL_HEADER: nominal},
        firing=(schedule_seq, firing.nominal_us),
    )


def in_rfc3339(time_us: int) -> str:
    """`2026-03-29T01:00:00Z`, with microseconds when there are any."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat().replace("+00:00", "Z")
