"""The same done to many tasks: what can be done, to tasks in which state, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from taskq_server.core.task import TRANSITIONS, Event, Payload, TaskState


class ActionKind(IntEnum):
    """What is done to each task."""

    CANCEL = 1
    RERUN = 2
    RESCHEDULE = 3
    REPRIORITISE = 4
    DELETE = 5


def _before(event: Event) -> frozenset[TaskState]:
    return frozenset(state for state, its in TRANSITIONS if its is event)


POSSIBLE: dict[ActionKind, frozenset[TaskState]] = {
    ActionKind.CANCEL: _before(Event.CANCEL),
    ActionKind.RERUN: _before(Event.RERUN),
    ActionKind.RESCHEDULE: _before(Event.LEASE),
    ActionKind.REPRIORITISE: _before(Event.LEASE),
    ActionKind.DELETE: frozenset(state for state in TaskState if state.finished),
}
"""In which states each is possible: what can be leased can be moved, what is finished can go."""


class Action(NamedTuple):
    """What is done to each task, and what with."""

    kind: ActionKind
    payload: Payload | None = None
    """Of RERUN: makes new tasks; None lets the tasks themselves run again."""
    due_time_us: int | None = None
    """Of RESCHEDULE: either this or the next."""
    delay_us: int | None = None
    priority: int | None = None


class OperationState(IntEnum):
    """Where a bulk operation is; numbers as on the wire."""

    RUNNING = 1
    SUCCEEDED = 2
    CANCELLED = 3


@dataclass(slots=True)
class NewOperation:
    """A bulk operation to be started."""

    operation_id: bytes
    content_hash: bytes
    """Of all that the caller sent, to tell a retry from a conflict."""
    action: Action
    filter: str = ""
    """In canonical form; empty with `task_ids`."""
    task_ids: tuple[bytes, ...] = ()
    reason: str = ""
    max_tasks: int = 0
    matched: int = 0
    matched_is_partial: bool = False
    place: int = 0
    """Where it begins, going down: after the number of the last task there is, or after the last of `task_ids`."""


@dataclass(slots=True)
class Operation:
    """A bulk operation as it stands."""

    operation_seq: int
    operation_id: bytes
    content_hash: bytes
    state: OperationState
    action: Action
    filter: str
    task_ids: tuple[bytes, ...]
    reason: str
    principal: str
    max_tasks: int
    start_time_us: int
    end_time_us: int | None
    matched: int
    matched_is_partial: bool
    done: int = 0
    skipped: int = 0
    skipped_samples: tuple[str, ...] = ()
