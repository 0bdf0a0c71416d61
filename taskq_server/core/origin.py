"""Who asks for a change, from where and by what way, for the audit.

Whoever takes calls in says it once around each that may change something (`rpc/origin.py`, by whatever way it comes),
and what is written to the store within that call carries it along. What the server does by itself has no origin, and
stands in no audit.
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import IntEnum
from typing import NamedTuple


class Source(IntEnum):
    """By what way a change came; numbers as on the wire."""

    GRPC = 1
    CLI = 2
    HTTP = 3
    DASHBOARD = 4
    DATABASE = 5


class Origin(NamedTuple):
    """Who asks, and what for."""

    source: Source
    action: str
    """The RPC, as `AdminService/PauseCapability`, or the command."""
    principal: str = ""
    """Empty where nobody is asked who they are."""
    peer: str = ""
    """The caller's address, without its port."""
    reason: str = ""
    request_id: str = ""


_origin: ContextVar[Origin | None] = ContextVar("taskq_origin", default=None)


def enter(origin: Origin) -> None:
    """From now on, in this call, that is who asks."""
    _origin.set(origin)


def current() -> Origin | None:
    """Who asks for what is written now; None: nobody, the server does it by itself."""
    return _origin.get()
