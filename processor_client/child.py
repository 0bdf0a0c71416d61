"""What runs in a child process: handlers that their processor must be able to kill."""

import asyncio
import importlib
import inspect
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

from processor_client import report
from processor_client.context import Context
from processor_client.handler import Handler, Reference, handlers_of, of_function
from processor_client.server_clock import ServerClock
from processor_client.task import Task
from taskq.v1.processor_service_pb2 import AssignedTask, TaskResult
from taskq.v1.task_pb2 import Payload


@dataclass(frozen=True, slots=True)
class Work:
    """Sent to the child: run this."""

    reference: Reference
    assigned: bytes
    clock_ahead: timedelta


@dataclass(frozen=True, slots=True)
class Progressed:
    """Sent by the child while its handler runs."""

    fraction: float
    message: str


@dataclass(frozen=True, slots=True)
class Saved:
    """Sent by the child: a checkpoint, as a serialized Payload."""

    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """Sent by the child: the outcome, as a serialized TaskResult."""

    result: bytes


def serve(pipe: Connection) -> None:
    """Runs what comes through `pipe` until it is closed."""
    # Ctrl-C reaches the whole group; only the processor decides what stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="taskq-parent", daemon=True).start()
    handlers: dict[Reference, Handler] = {}
    while True:
        try:
            work: Work = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        result = _run(work, handlers, _Sender(pipe))
        _send(pipe, Ended(result.SerializeToString()))


def _run(work: Work, handlers: dict[Reference, Handler], sender: "_Sender") -> TaskResult:
    assigned = AssignedTask.FromString(work.assigned)
    try:
        handler = handlers.get(work.reference) or handlers.setdefault(work.reference, _find(work.reference))
        value = handler.call(Context(assigned, sender))
        if inspect.isawaitable(value):
            value = asyncio.run(_wait_for(value))
    except BaseException as error:  # noqa: BLE001 - also SystemExit: the child goes on
        return report.of_error(assigned, error, ServerClock(work.clock_ahead))
    return report.of_value(assigned, value)


async def _wait_for(value: Any) -> Any:
    return await value


def _find(reference: Reference) -> Handler:
    found: Any = importlib.import_module(reference.module)
    for part in reference.qualname.split("."):
        found = getattr(found, part)
    if isinstance(found, type) and issubclass(found, Task):
        return next(handler for handler in handlers_of(found) if handler.name == reference.name)
    # The module's name may lead to a scheduler's declaration that has taken the function's place.
    function: Callable[..., Any] = getattr(found, "function", found)
    return of_function(reference.name, function)


class _Sender:
    """Passes on what a handler says."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def progressed(self, context: Context, fraction: float, message: str) -> None:
        _send(self._pipe, Progressed(fraction, message))

    def saved(self, context: Context, checkpoint: Payload) -> None:
        _send(self._pipe, Saved(checkpoint.SerializeToString()))


def _send(pipe: Connection, message: object) -> None:
    # A handler's own threads may speak at the same time.
    with _SENDING:
        pipe.send_bytes(pickle.dumps(message))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


_SENDING = threading.Lock()
