"""When a task that runs will have ended, as far as its progress tells; and whether that still moves."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from taskq.v1 import stats_pb2, task_pb2
from taskq_server.http.dashboard.render import seconds_of
from taskq_server.http.dashboard.visit import Visit

STALE_HEARTBEATS = 3
"""Progress comes with heartbeats: after so many without any, it is said."""
_DAY_SECONDS = 86_400
_LONGEST_SECONDS = 366 * _DAY_SECONDS


@dataclass(frozen=True, slots=True)
class Expected:
    """Of one task that has told its progress."""

    end: Timestamp | None
    """None for one that has only just begun, or is done but for its report."""
    stale_seconds: float
    """For how long its progress has not moved, as far as pages have seen; 0 while that is no wonder."""


async def expected(visit: Visit, task: task_pb2.Task) -> Expected | None:
    """None for a task that does not run, or has told no progress."""
    if task.state != task_pb2.TASK_STATE_RUNNING or not task.HasField("progress"):
        return None
    now = seconds_of(visit.now)
    usual = await _usual_seconds(visit, task.name)
    left = seconds_left(task.progress.fraction, now - seconds_of(task.lease_time), usual)
    end = None
    if left is not None and left < _LONGEST_SECONDS:
        end = Timestamp(seconds=round(now + left))
    unmoved = _unmoved_seconds(visit, task)
    return Expected(end, unmoved if unmoved >= STALE_HEARTBEATS * visit.frame.heartbeat_seconds else 0.0)


def seconds_left(fraction: float, spent: float, usual: float | None) -> float | None:
    """By its own rate, the more the further it is; and by how long half of its name's runs take. None while neither
    says anything."""
    if not 0 < fraction < 1 or spent <= 0:
        return None
    by_rate = spent * (1 - fraction) / fraction
    return by_rate if usual is None else fraction * by_rate + (1 - fraction) * max(usual - spent, 0.0)


async def _usual_seconds(visit: Visit, name: str) -> float | None:
    """How long half of the runs of this name took in the last day: the mean of its hours."""
    start = Timestamp(seconds=visit.now_us // 1_000_000 - _DAY_SECONDS)
    asked = stats_pb2.GetStatsRequest(start_time=start, step=stats_pb2.STATS_STEP_HOUR, name=name)
    found = await visit.part("AdminService/GetStats", asked)
    hours = [one.run_time for one in found.answer.history if one.run_time.count] if found else []
    many = sum(one.count for one in hours)
    return sum(seconds_of(one.p50) * one.count for one in hours) / many if many else None


def _unmoved_seconds(visit: Visit, task: task_pb2.Task) -> float:
    """Since it was first seen as it is: nobody keeps when progress was told."""
    key = f"progress {visit.caller.rights.reads_payloads} {task.task_id}"  # others do not see its message
    told = task.attempt, task.progress.fraction, task.progress.message
    since_us = visit.kept.of(key, told)
    if since_us is None:
        visit.kept.keep(key, told, visit.now_us)
        return 0.0
    return float(visit.now_us - since_us) / 1e6
