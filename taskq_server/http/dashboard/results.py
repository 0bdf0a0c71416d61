"""What has become of the last tasks of a schedule or of a processor: a mark for each, and figures of all."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from taskq.v1 import task_pb2
from taskq_server.http.dashboard.render import moment, seconds_of, spanned

MOST = 30
MINUTES = 30
_HEIGHT = 20
_LEAST = 4
_STATES = {
    task_pb2.TASK_STATE_RUNNING: "running",
    task_pb2.TASK_STATE_SUCCEEDED: "succeeded",
    task_pb2.TASK_STATE_FAILED: "failed",
    task_pb2.TASK_STATE_CANCELLED: "cancelled",
}


@dataclass(frozen=True, slots=True)
class Result:
    """One task: what has become of it, when it was due, and how long its last attempt took."""

    task_id: str
    name: str
    kind: str
    due: Timestamp
    end: Timestamp
    """When it finished; else when it was leased last."""
    run_seconds: float
    """0 for one that has not run, or runs."""
    failure: str

    @property
    def has_failed(self) -> bool:
        return self.kind in ("failed", "retrying")

    @property
    def title(self) -> str:
        ran = f", ran {spanned(self.run_seconds)}" if self.run_seconds else ""
        return f"{moment(self.due)}: {self.kind}{ran}"


@dataclass(frozen=True, slots=True)
class Mark:
    """A result in a row of them, the higher the longer it ran."""

    kind: str
    x: int
    height: int
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """The last results, the last one first; as marks, the last one last; and how many there are of each kind."""

    results: list[Result]
    marks: list[Mark]
    words: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Of all results that were looked at."""

    many: int
    failed: int
    since: Timestamp
    a_minute: float
    run_seconds: float
    """The median."""
    minutes: list[tuple[int, int, int, int]]
    """How many of each of the last minutes succeeded and failed, and how high their bars are, of twenty."""


def results(tasks: Iterable[task_pb2.Task], now: Timestamp) -> list[Result]:
    """Of those that have begun, or should have: what is to come has no result."""
    return [
        _result(task)
        for task in tasks
        if task.state != task_pb2.TASK_STATE_SCHEDULED or task.attempt or seconds_of(task.due_time) <= seconds_of(now)
    ]


def _result(task: task_pb2.Task) -> Result:
    waits = "retrying" if task.failed_attempts else "waiting"
    has_run = task.HasField("finish_time") and task.HasField("lease_time")
    ran = max(seconds_of(task.finish_time) - seconds_of(task.lease_time), 0.0) if has_run else 0.0
    return Result(
        task.task_id,
        task.name,
        _STATES.get(task.state, waits),
        task.due_time,
        task.finish_time if task.HasField("finish_time") else task.lease_time,
        ran,
        task.last_failure.error_type if task.HasField("last_failure") else "",
    )


def row(found: list[Result]) -> Row:
    """The last of these."""
    kinds = [one.kind for one in found[:MOST]]
    words = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    return Row(found[:MOST], _marks(found[:MOST][::-1]), words or "none")


def _marks(row: list[Result]) -> list[Mark]:
    longest = max((one.run_seconds for one in row), default=0.0)

    def height(one: Result) -> int:
        return max(round(_HEIGHT * one.run_seconds / longest), _LEAST) if longest and one.run_seconds else _LEAST

    return [Mark(one.kind, i * 8, _HEIGHT if one.has_failed else height(one), one.title) for i, one in enumerate(row)]


def figures(found: list[Result], now: Timestamp) -> Figures | None:
    """Of those that have ended; None if there are none."""
    ended = [one for one in found if one.kind in ("succeeded", "failed", "retrying")]
    if not ended:
        return None
    since = min((one.end for one in ended), key=seconds_of)
    minutes = max((seconds_of(now) - seconds_of(since)) / 60, 1.0)
    counts = [[0, 0] for _ in range(MINUTES)]
    for one in ended:
        ago = int(seconds_of(now) // 60 - seconds_of(one.end) // 60)
        if 0 <= ago < MINUTES:
            counts[MINUTES - 1 - ago][one.has_failed] += 1
    most = max((sum(pair) for pair in counts), default=0) or 1
    return Figures(
        len(ended),
        sum(one.has_failed for one in ended),
        since,
        round(len(ended) / minutes, 1),
        statistics.median([one.run_seconds for one in ended if one.run_seconds] or [0.0]),
        [(good, bad, _bar(good, most), _bar(bad, most)) for good, bad in counts],
    )


def _bar(many: int, most: int) -> int:
    return max(round(_HEIGHT * many / most), 1) if many else 0
