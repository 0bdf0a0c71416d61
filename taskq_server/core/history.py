"""What happened to a task so far, and what will if nobody does anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from taskq_server.core.task import Failure, Outcome, Task, TaskState


@dataclass(frozen=True, slots=True)
class Attempt:
    """One lease of a task."""

    attempt: int
    session_id: bytes | None
    """None once that is forgotten."""
    processor_name: str
    lease_time_us: int
    end_time_us: int | None
    outcome: Outcome | None
    """None while it runs."""
    failure: Failure | None = None


class TimelineEvent(IntEnum):
    """One point of a task's life; numbers as on the wire."""

    ENQUEUED = 1
    DUE = 2
    LEASED = 3
    ATTEMPT_ENDED = 4
    EXPIRES = 5
    RUN_DEADLINE = 6
    FINISHED = 7
    PRUNED = 8


class TimelineEntry(NamedTuple):
    """When, what, of which attempt (0: of none), and in words."""

    time_us: int
    event: TimelineEvent
    attempt: int
    text: str


@dataclass(slots=True)
class History:
    """A task with its past."""

    task: Task
    attempts: list[Attempt] = field(default_factory=list)
    """In their order; of very many, the first and the last."""
    rerun_of: bytes | None = None
    reruns: list[bytes] = field(default_factory=list)
    """The last of them, in their order."""
    schedule_name: str = ""
    nominal_us: int | None = None
    dedup_key: str = ""
    prune_time_us: int | None = None
    run_deadline_us: int | None = None
    """Of the attempt that runs."""

    def timeline(self) -> list[TimelineEntry]:
        """In the order of time."""
        task = self.task
        found = [TimelineEntry(task.enqueue_time_us, TimelineEvent.ENQUEUED, 0, "the server accepted it")]
        before, last = self._last_apart()
        for attempt in before:
            found += _of_attempt(attempt)
        due_us = max(task.due_time_us, task.enqueue_time_us)
        if task.finish_time_us is None or due_us <= task.finish_time_us:
            found.append(TimelineEntry(due_us, TimelineEvent.DUE, 0, "it is due again" if before else "it is due"))
        for attempt in last:
            found += _of_attempt(attempt)
        if task.state is TaskState.SCHEDULED and task.expire_time_us is not None and task.failed_attempts == 0:
            text = "it will have failed as EXPIRED unless it is started"
            found.append(TimelineEntry(task.expire_time_us, TimelineEvent.EXPIRES, 0, text))
        if self.run_deadline_us is not None:
            text = "the attempt that runs will be ended"
            found.append(TimelineEntry(self.run_deadline_us, TimelineEvent.RUN_DEADLINE, task.attempt, text))
        if task.finish_time_us is not None:
            found.append(TimelineEntry(task.finish_time_us, TimelineEvent.FINISHED, 0, f"it is {task.state.name}"))
        if self.prune_time_us is not None:
            text = "it will be deleted, from then on"
            found.append(TimelineEntry(self.prune_time_us, TimelineEvent.PRUNED, 0, text))
        return sorted(found, key=lambda entry: entry.time_us)

    def _last_apart(self) -> tuple[list[Attempt], list[Attempt]]:
        """The attempts after which it went on, and the one that runs or has finished it, if there is one."""
        if not self.attempts or self.attempts[-1].end_time_us != self.task.finish_time_us:
            return self.attempts, []
        return self.attempts[:-1], self.attempts[-1:]


_ENDED = {
    Outcome.SUCCEEDED: "it succeeded",
    Outcome.FAILED: "it failed",
    Outcome.RELEASED: "its processor gave it back unrun",
    Outcome.CANCELLED: "it was cancelled",
    Outcome.LOST: "its processor was not heard any more",
    Outcome.TIMED_OUT: "it ran longer than its run_timeout",
    Outcome.NOT_RECEIVED: "it never reached its processor",
}


def _of_attempt(attempt: Attempt) -> list[TimelineEntry]:
    number, by = attempt.attempt, attempt.processor_name
    found = [TimelineEntry(attempt.lease_time_us, TimelineEvent.LEASED, number, f"{by} got it")]
    if attempt.end_time_us is not None and attempt.outcome is not None:
        text = f"{_ENDED[attempt.outcome]}, on {by}"
        if attempt.failure is not None and attempt.outcome is Outcome.FAILED:
            text += f": {in_short(attempt.failure)}"
        found.append(TimelineEntry(attempt.end_time_us, TimelineEvent.ATTEMPT_ENDED, number, text))
    return found


MOST_SHOWN = 200


def in_short(failure: Failure) -> str:
    """A failure in a line."""
    message = " ".join(failure.message.split())
    shown = message if len(message) <= MOST_SHOWN else message[: MOST_SHOWN - 1] + "…"
    return f"{failure.error_type}: {shown}" if shown else failure.error_type
