"""What each observer saw: one JSON line an event, written by the one nearest to the fact, and never changed.

A line is written by one `write` to a file opened for appending, so it survives the SIGKILL of its writer whole. No
fsync: the machine outlives the processes that are killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Phase = Literal["invoke", "ok", "fail", "info"]
"""invoke: about to ask. ok: it was done. fail: it was not, and never will be. info: it was, or was not."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that one observer saw."""

    time: float
    """Wall clock, epoch seconds: all observers are on one machine."""
    observer: str
    op: str
    phase: Phase
    task: str
    attempt: int
    facts: dict[str, Any]


class History:
    """Writes what one observer sees."""

    def __init__(self, folder: Path, observer: str) -> None:
        self._observer = observer
        self._file = os.open(folder / f"{observer}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, op: str, phase: Phase, task: str = "", attempt: int = 0, **facts: Any) -> None:
        """`facts` are JSON values."""
        line = json.dumps([time.time(), self._observer, op, phase, task, attempt, facts])
        os.write(self._file, line.encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


class Tail:
    """What is written into a folder from now on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = {path: path.stat().st_size for path in folder.glob("*.jsonl")}

    def next(self) -> list[Event]:
        """What has been written since it was asked last, by all observers."""
        events = []
        for path in self._folder.glob("*.jsonl"):
            with path.open("rb") as lines:
                lines.seek(self._seen.get(path, 0))
                for line in lines:
                    if line.endswith(b"\n"):
                        events.append(Event(*json.loads(line)))
                        self._seen[path] = self._seen.get(path, 0) + len(line)
        return events


def read(folder: Path) -> list[Event]:
    """All events of all observers, in the order of time."""
    return sorted(_read(folder), key=lambda event: event.time)


def _read(folder: Path) -> Iterator[Event]:
    for path in folder.glob("*.jsonl"):
        with path.open("rb") as lines:
            for line in lines:
                yield Event(*json.loads(line))


def digest(payload: bytes) -> str:
    """What stands for a payload in a history."""
    return hashlib.sha256(payload).hexdigest()[:16]
