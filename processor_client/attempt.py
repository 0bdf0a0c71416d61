"""One attempt that this processor holds, from its arrival until its report is answered."""

import asyncio
import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from processor_client.context import Context
from processor_client.handler import Handler
from taskq.v1.processor_service_pb2 import AssignedTask

if TYPE_CHECKING:
    from processor_client.session import Session

AttemptKey = tuple[str, int]


class Phase(enum.Enum):
    """Where an attempt is in its life here. It only moves down."""

    WAITING = enum.auto()
    RUNNING = enum.auto()
    # Its handler was stopped for running too long; the server, whose clock decides, will say what becomes of it.
    SILENT = enum.auto()
    # Its report is on its way.
    REPORTED = enum.auto()
    # Nothing more is said about it: the report was answered, or the lease is lost.
    GONE = enum.auto()


class Stop(enum.Enum):
    """Why a running attempt was told to stop."""

    # Report nothing.
    LOST = enum.auto()
    # Report `cancelled`.
    CANCELLED = enum.auto()
    # Report nothing until the server has spoken.
    OUT_OF_TIME = enum.auto()
    # Report `released`.
    DRAINED = enum.auto()


class Attempt:
    """Belongs to the loop: no other thread changes it."""

    __slots__ = (
        "assigned",
        "context",
        "error",
        "handler",
        "interrupt",
        "key",
        "phase",
        "session",
        "stop",
        "timer",
        "value",
    )

    def __init__(self, key: AttemptKey, assigned: AssignedTask, handler: Handler, session: "Session") -> None:
        self.key = key
        self.assigned = assigned
        self.handler = handler
        self.session = session
        self.context = Context(assigned, session.held)
        self.phase = Phase.WAITING
        self.stop: Stop | None = None
        # Stops the running handler: cancels its asyncio task, or kills its process. A thread has only the context.
        self.interrupt: Callable[[], object] | None = None
        self.timer: asyncio.TimerHandle | None = None
        # What the handler returned or raised, for the hooks.
        self.value: Any = None
        self.error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Attempt {self.assigned.name} {self.key[0]} attempt {self.key[1]} {self.phase.name}>"

    def tell_to_stop(self, why: Stop) -> None:
        """Stops a running handler as far as it can be. The first reason stands, unless the lease is lost."""
        if self.phase is not Phase.RUNNING:
            return
        first = self.stop is None
        if first or why is Stop.LOST or self.stop is Stop.OUT_OF_TIME:
            self.stop = why
        self.context.stop()
        if first and self.interrupt is not None:
            self.interrupt()
