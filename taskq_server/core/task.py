"""What a task is, and every legal change of its state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

from taskq_server.core.matching import Route
from taskq_server.core.retry import DEFAULT_RETRY_POLICY, RetryPolicy

EXPIRED = "EXPIRED"
RUN_TIMEOUT = "RUN_TIMEOUT"
PROCESSOR_LOST = "PROCESSOR_LOST"
CORRUPT = "CORRUPT"


class TaskState(IntEnum):
    """Numbers as on the wire."""

    SCHEDULED = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5

    @property
    def finished(self) -> bool:
        return self >= TaskState.SUCCEEDED


class Outcome(IntEnum):
    """How an attempt ended."""

    SUCCEEDED = 1
    FAILED = 2
    RELEASED = 3
    CANCELLED = 4
    LOST = 5
    """Its session ended without a word."""
    TIMED_OUT = 6
    """It ran longer than its run_timeout."""
    NOT_RECEIVED = 7
    """It was pushed, and never arrived."""


class Event(IntEnum):
    """What may happen to a task."""

    LEASE = 1
    SUCCEED = 2
    RETRY = 3
    """An attempt failed, was lost or ran too long, and another is allowed."""
    GIVE_UP = 4
    """The same, and no other is allowed."""
    RELEASE = 5
    CANCEL = 6
    EXPIRE = 7
    RERUN = 8
    """An administrator lets it run again, as if it had not been tried."""


TRANSITIONS: dict[tuple[TaskState, Event], TaskState] = {
    (TaskState.SCHEDULED, Event.LEASE): TaskState.RUNNING,
    (TaskState.SCHEDULED, Event.CANCEL): TaskState.CANCELLED,
    (TaskState.SCHEDULED, Event.EXPIRE): TaskState.FAILED,
    (TaskState.RUNNING, Event.SUCCEED): TaskState.SUCCEEDED,
    (TaskState.RUNNING, Event.RETRY): TaskState.SCHEDULED,
    (TaskState.RUNNING, Event.RELEASE): TaskState.SCHEDULED,
    (TaskState.RUNNING, Event.GIVE_UP): TaskState.FAILED,
    (TaskState.RUNNING, Event.CANCEL): TaskState.CANCELLED,
    (TaskState.SUCCEEDED, Event.RERUN): TaskState.SCHEDULED,
    (TaskState.FAILED, Event.RERUN): TaskState.SCHEDULED,
    (TaskState.CANCELLED, Event.RERUN): TaskState.SCHEDULED,
}
"""Every legal change. What is not here cannot happen."""


class IllegalTransition(Exception):
    """The table of transitions does not have this change: a fault of ours, never of a caller."""


def next_state(state: TaskState, event: Event) -> TaskState:
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"{event.name} of a task that is {state.name}") from None


class Payload(NamedTuple):
    """Bytes that the server keeps and passes on without reading them."""

    data: bytes = b""
    content_type: str = ""
    metadata: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt did not succeed."""

    error_type: str
    message: str = ""
    stack: str = ""
    attempt: int = 0
    failure_time_us: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt is: `fraction` from 0 to 1."""

    fraction: float
    message: str = ""


class DedupConflict(IntEnum):
    """What to do when another task holds the key; numbers as on the wire."""

    RETURN_EXISTING = 1
    REJECT = 2
    REPLACE = 3
    DEBOUNCE = 4


class DedupHold(IntEnum):
    """How long a key is held; numbers as on the wire."""

    UNFINISHED = 1
    TTL = 2
    BOTH = 3


@dataclass(frozen=True, slots=True)
class Dedup:
    """Lets at most one task hold `key` within `scope`."""

    key: str
    scope: str
    on_conflict: DedupConflict = DedupConflict.RETURN_EXISTING
    hold: DedupHold = DedupHold.UNFINISHED
    ttl_us: int | None = None


@dataclass(slots=True)
class NewTask:
    """A task to be stored. `due_time_us` wins over `delay_us`; neither means now."""

    task_id: bytes
    route: Route
    content_hash: bytes = b""
    """Of all that the caller sent, to tell a retry from a conflict."""
    payload: Payload | None = None
    due_time_us: int | None = None
    delay_us: int = 0
    priority: int = 0
    dedup: Dedup | None = None
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY
    run_timeout_us: int | None = None
    expire_time_us: int | None = None
    headers: dict[str, str] | None = None
    tags: tuple[str, ...] = ()
    retention_us: int | None = None
    firing: tuple[int, int] | None = None
    """The number of the schedule that it is a firing of, and the nominal time."""


class EnqueueOutcome(IntEnum):
    """What became of a new task; numbers as on the wire."""

    CREATED = 1
    EXISTING = 2
    REPLACED = 3
    REJECTED = 4
    CONFLICT = 5


class Enqueued(NamedTuple):
    """What became of a new task, and which task exists now."""

    task_id: bytes
    outcome: EnqueueOutcome
    due_time_us: int


@dataclass(slots=True)
class Task:
    """A task as it is stored."""

    task_id: bytes
    route: Route
    state: TaskState
    payload: Payload | None
    due_time_us: int
    enqueue_time_us: int
    priority: int
    attempt: int
    failed_attempts: int
    retry_policy: RetryPolicy
    run_timeout_us: int | None
    expire_time_us: int | None
    headers: dict[str, str]
    tags: tuple[str, ...]
    retention_us: int | None
    lease_time_us: int | None
    processor_name: str
    finish_time_us: int | None
    result: Payload | None
    last_failure: Failure | None
    progress: Progress | None


@dataclass(slots=True)
class Assignment:
    """One leased attempt of a task, as its processor needs it."""

    seq: int
    task_id: bytes
    session_seq: int
    route: Route
    attempt: int
    payload: Payload | None
    due_time_us: int
    enqueue_time_us: int
    lease_time_us: int
    run_timeout_us: int | None
    priority: int
    headers: dict[str, str] | None
    tags: tuple[str, ...]
    last_failure: Failure | None
    checkpoint: Payload | None
    failed_attempts: int
    max_attempts: int
    dedup_key: str

    @property
    def size_bytes(self) -> int:
        """About what it takes on the wire."""
        size = (
            256
            + (len(self.payload.data) if self.payload else 0)
            + (len(self.checkpoint.data) if self.checkpoint else 0)
        )
        if self.headers:
            size += sum(len(key) + len(value) for key, value in self.headers.items())
        if self.last_failure:
            size += len(self.last_failure.stack) + len(self.last_failure.message)
        return size


@dataclass(slots=True)
class Ending:
    """The word on an attempt: its processor's, or the server's own."""

    task_id: bytes
    attempt: int
    session_seq: int
    outcome: Outcome
    result: Payload | None = None
    failure: Failure | None = None
    retryable: bool = True
    retry_delay_us: int | None = None
    due_time_us: int | None = None
    """Of a released task: when it is due again; None means as before."""
    seq: int | None = None
    """The task's number and that no key hangs on it, where that is still known from its lease: then a success can be
    written without reading the row first."""
    name: str = ""
    """The task's, known as its number is."""


class EndStatus(IntEnum):
    """What became of the word on an attempt; numbers as on the wire."""

    ACCEPTED = 1
    ALREADY_ACCEPTED = 2
    LEASE_LOST = 3
    NOT_FOUND = 4


class Ended(NamedTuple):
    """What became of an attempt, and where its task is now."""

    task_id: bytes
    attempt: int
    status: EndStatus
    state: TaskState | None = None
    due_time_us: int | None = None


class RunningTask(Protocol):
    """A leased task, as much of it as its end needs."""

    @property
    def due_time_us(self) -> int: ...
    @property
    def failed_attempts(self) -> int: ...
    @property
    def lost_leases(self) -> int: ...
    @property
    def retry_policy(self) -> RetryPolicy: ...


class AfterAttempt(NamedTuple):
    """What a task becomes when an attempt ends."""

    state: TaskState
    due_time_us: int
    failed_attempts: int
    lost_leases: int
    failure: Failure | None = None
    """The failure to keep; None leaves the one before."""


_WITHOUT_FAILURE = {
    Outcome.SUCCEEDED: next_state(TaskState.RUNNING, Event.SUCCEED),
    Outcome.CANCELLED: next_state(TaskState.RUNNING, Event.CANCEL),
    Outcome.RELEASED: next_state(TaskState.RUNNING, Event.RELEASE),
    Outcome.NOT_RECEIVED: next_state(TaskState.RUNNING, Event.RELEASE),
}


def after_attempt(
    task: RunningTask, ending: Ending, now_us: int, *, max_lost_leases: int, random: Callable[[], float]
) -> AfterAttempt:
    """Decides what a running task becomes when its attempt ends."""
    outcome = ending.outcome
    if (state := _WITHOUT_FAILURE.get(outcome)) is not None:
        released_until_us = ending.due_time_us if state is TaskState.SCHEDULED else None
        due_time_us = task.due_time_us if released_until_us is None else released_until_us
        return AfterAttempt(state, due_time_us, task.failed_attempts, task.lost_leases)

    failure = ending.failure
    assert failure is not None, "a failed attempt says why"
    failed_attempts = task.failed_attempts + 1
    lost_leases = task.lost_leases + (outcome is Outcome.LOST)
    retry = ending.retryable and task.retry_policy.allows(failed_attempts, failure.error_type)
    if lost_leases >= max_lost_leases:  # a task that kills its processors must not eat the fleet
        retry = False
    if not retry:
        state, due_time_us = next_state(TaskState.RUNNING, Event.GIVE_UP), task.due_time_us
    else:
        state = next_state(TaskState.RUNNING, Event.RETRY)
        due_time_us = _retry_time_us(task, ending, failed_attempts, now_us, random)
    return AfterAttempt(state, due_time_us, failed_attempts, lost_leases, failure)


def _retry_time_us(
    task: RunningTask, ending: Ending, failed_attempts: int, now_us: int, random: Callable[[], float]
) -> int:
    if ending.retry_delay_us is not None:
        return now_us + ending.retry_delay_us
    if ending.outcome is Outcome.LOST and task.lost_leases == 0:
        return task.due_time_us  # a processor that dies is its own fault, until it happens again: the place is kept
    return now_us + task.retry_policy.delay_us(failed_attempts, random)
