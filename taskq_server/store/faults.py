"""What PostgreSQL, its driver and the network between may raise, and what it is to those who wait."""

from __future__ import annotations

import asyncpg
from sqlalchemy import exc

from taskq_server.core.errors import StorageFull, StorageUnavailable, TaskqError
from taskq_server.store.transaction import Again

_CONNECTION_IS_LOST = ("08", "57P", "25006")
"""SQLSTATEs, or how they begin: no connection; the server stops or starts; it can only be read, as after fail-over."""
_AGAIN = ("40001", "40P01")
_FULL = "53100"
_UNAVAILABLE = ("53", "55P03", "57014", "58")
"""Out of something; a lock or a statement took too long; the server's own files fail."""
_OF_THE_NETWORK = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)


def _state(error: BaseException) -> str:
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    return getattr(cause, "sqlstate", None) or ""


def is_lost(error: BaseException) -> bool:
    """Whether the connection on which this happened can no longer be used."""
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    chain = (cause, getattr(cause, "__cause__", None))
    return isinstance(cause, _OF_THE_NETWORK) or any(
        isinstance(one, _OF_THE_NETWORK) or _state(one).startswith(_CONNECTION_IS_LOST) for one in chain if one
    )


def wants_another_try(error: BaseException) -> bool:
    """Whether the transaction was undone only since another came between."""
    return isinstance(error, Again) or _state(error) in _AGAIN


def translate(error: BaseException) -> TaskqError | None:
    """What those who wait are told; None for a fault of what they asked for, or of ours."""
    if isinstance(error, TaskqError):
        return error
    if _state(error) == _FULL:
        return StorageFull()
    if is_lost(error) or wants_another_try(error) or _state(error).startswith(_UNAVAILABLE):
        return StorageUnavailable(f"{type(error).__name__}: {error}")
    return None
