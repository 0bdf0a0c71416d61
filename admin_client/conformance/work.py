"""The tasks that a processor under test must know: four names, with JSON as payloads. docs/clients.md has the table."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from taskq.v1.processor_service_pb2 import AssignedTask, AttemptRef
from taskq.v1.task_pb2 import Payload

ECHO: Final = "conformance.echo"
SLEEP: Final = "conformance.sleep"
FAIL: Final = "conformance.fail"
LARGE: Final = "conformance.large"
NAMES: Final = (ECHO, SLEEP, FAIL, LARGE)

JSON: Final = "application/json"
LEAST_IN_FLIGHT: Final = 20
"""A processor under test takes at least so many tasks at a time."""
MAX_PAYLOAD_BYTES: Final = 256 * 1024
"""What the server takes of a payload, unless its settings say otherwise."""

Key = tuple[str, int]


class Sleeper:
    """A `conformance.sleep`, and the file in which its handler notes that it begins, and that it has slept it out."""

    def __init__(self, folder: Path, seconds: float, task_id: str | None = None, attempt: int = 1) -> None:
        self.file = folder / f"{uuid.uuid4()}.txt"
        self.seconds = seconds
        self.task = assigned(SLEEP, {"seconds": seconds, "file": str(self.file)}, task_id, attempt)

    @property
    def begun(self) -> int:
        """How often a handler has begun it."""
        return self._count("begin")

    @property
    def slept(self) -> int:
        """How often a handler has slept to the end."""
        return self._count("end")

    def _count(self, word: str) -> int:
        return self.file.read_text().split().count(word) if self.file.exists() else 0


def assigned(name: str, arguments: Any, task_id: str | None = None, attempt: int = 1) -> AssignedTask:
    """A task as a server assigns it."""
    now = Timestamp()
    now.FromNanoseconds(time.time_ns())
    return AssignedTask(
        task_id=task_id or str(uuid.uuid4()),
        name=name,
        attempt=attempt,
        payload=Payload(data=json.dumps(arguments, ensure_ascii=False).encode(), content_type=JSON),
        due_time=now,
        enqueue_time=now,
        lease_time=now,
        max_attempts=5,
    )


def echo(value: Any) -> AssignedTask:
    """Succeeds with its payload."""
    return assigned(ECHO, value)


def fail(error_type: str, message: str, *, retryable: bool) -> AssignedTask:
    """Fails as it says."""
    return assigned(FAIL, {"error_type": error_type, "message": message, "retryable": retryable})


def large(size_bytes: int) -> AssignedTask:
    """Succeeds with a result of so many bytes."""
    return assigned(LARGE, {"bytes": size_bytes})


def key(task: AssignedTask) -> Key:
    """The attempt that it is."""
    return task.task_id, task.attempt


def ref(task: AssignedTask) -> AttemptRef:
    """The attempt that it is, as the wire names it."""
    return AttemptRef(task_id=task.task_id, attempt=task.attempt)
