"""What can go wrong with a task, beside what can go wrong with a call (client_core.errors, which see for the tree).

TaskqError
├─ AlreadyExists
│  ├─ Conflict            the task_id belongs to a task with other content
│  └─ Rejected            another task holds the key, and `on_conflict` is "reject"
├─ TaskFailed             the task ended FAILED: see `.failure`
├─ TaskCancelled          the task ended CANCELLED
├─ EnqueueManyFailed      some of many tasks were not enqueued: see `.errors`
└─ FiringsNotSent         a main scheduler stopped while the server was away
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from client_core.errors import AlreadyExists, TaskqError
from scheduler_client.view import Failure


class Conflict(AlreadyExists):
    """The `task_id` belongs to a task with other content. That one stays as it is."""

    def __init__(self, task_id: str) -> None:
        super().__init__(
            f"task {task_id!r} exists with other content; must be the same task, or have another task_id",
            reason="TASK_ID_CONFLICT",
            metadata={"task_id": task_id},
        )
        self.task_id = task_id


class Rejected(AlreadyExists):
    """Another task, `task_id`, holds the key, and `on_conflict` is "reject". Nothing was enqueued."""

    def __init__(self, key: str, task_id: str) -> None:
        super().__init__(
            f"key {key!r} is held by task {task_id!r}; must be free",
            reason="KEY_HELD",
            metadata={"key": key, "task_id": task_id},
        )
        self.key = key
        self.task_id = task_id


class TaskFailed(TaskqError):
    """The task ended FAILED. `failure` holds the last failure: error_type, message, stack, attempt, failure_time."""

    code = grpc.StatusCode.ABORTED

    def __init__(self, task_id: str, name: str, failure: Failure) -> None:
        super().__init__(
            f"task {task_id!r} ({name}) failed in attempt {failure.attempt}: {failure.error_type}: {failure.message}",
            reason="TASK_FAILED",
            metadata={"task_id": task_id, "name": name},
        )
        self.task_id = task_id
        self.name = name
        self.failure = failure


class TaskCancelled(TaskqError):
    """The task ended CANCELLED."""

    code = grpc.StatusCode.CANCELLED

    def __init__(self, task_id: str, name: str) -> None:
        super().__init__(
            f"task {task_id!r} ({name}) was cancelled",
            reason="TASK_CANCELLED",
            metadata={"task_id": task_id, "name": name},
        )
        self.task_id = task_id
        self.name = name


class EnqueueManyFailed(TaskqError):
    """Some of the tasks given to `enqueue_many` were not enqueued; the others were.

    errors     the error of each that was not, by its place in what was given
    handles    a handle for each that was, None for each that was not, in order; shorter than what was given when the
               server could not be reached and the rest was not looked at
    """

    def __init__(self, errors: Mapping[int, TaskqError], handles: Sequence[Any]) -> None:
        place, first = min(errors.items(), key=lambda entry: entry[0])
        super().__init__(
            f"{len(errors)} of {len(handles)} tasks were not enqueued; the first is number {place}: {first}",
            reason="NOT_ALL_ENQUEUED",
        )
        self.code = first.code
        self.errors = dict(errors)
        self.handles = list(handles)


class FiringsNotSent(TaskqError):
    """A main scheduler was stopped while firings waited for a server that was away. `firings` says which."""

    code = grpc.StatusCode.UNAVAILABLE

    def __init__(self, firings: Sequence[str]) -> None:
        super().__init__(
            f"{len(firings)} firings were not enqueued, from {firings[0]} to {firings[-1]}", reason="FIRINGS_NOT_SENT"
        )
        self.firings = list(firings)
