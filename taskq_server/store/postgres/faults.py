"""What PostgreSQL, its driver and the network between may raise, and what it is to those who wait."""

from __future__ import annotations

import asyncpg
from asyncpg.exceptions import TargetServerAttributeNotMatched
from sqlalchemy import exc

from taskq_server.core.errors import StorageFull, StorageUnavailable, StoreRefused, TaskqError
from taskq_server.store.transaction import Again

STORAGE_FAILS = 74
TRY_AGAIN = 75

_CONNECTION_IS_LOST = ("08", "57P", "25006", "25P03")
"""SQLSTATEs, or how they begin: no connection; the server stops or starts; it can only be read, as after fail-over; it
has broken off since a transaction was idle for too long."""
_AGAIN = ("40001", "40P01")
_FULL = "53100"
_UNAVAILABLE = ("53", "55P03", "57014", "58", "28", "3D")
"""Out of something; a lock or a statement took too long; the server's own files fail; it lets nobody in any more, which
an operator may mend while we run."""
_OPERATORS = ("28", "3D", "42501")
"""Who may not, what is not there."""
OF_POSTGRES = (exc.DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_OF_THE_NETWORK = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)


def sqlstate(error: BaseException) -> str:
    """What PostgreSQL calls it; empty when the server has not said anything."""
    return getattr(_original(error), "sqlstate", None) or ""


def _original(error: BaseException) -> BaseException:
    return (error.orig if isinstance(error, exc.DBAPIError) else None) or error


def is_lost(error: BaseException) -> bool:
    """Whether the connection on which this happened can no longer be used."""
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    cause = _original(error)
    chain = (cause, getattr(cause, "__cause__", None))
    return isinstance(cause, _OF_THE_NETWORK) or any(
        isinstance(one, _OF_THE_NETWORK) or sqlstate(one).startswith(_CONNECTION_IS_LOST) for one in chain if one
    )


def wants_another_try(error: BaseException) -> bool:
    """Whether the transaction was undone only since another came between."""
    return isinstance(error, Again) or sqlstate(error) in _AGAIN


def translate(error: BaseException) -> TaskqError | None:
    """What those who wait are told; None for a fault of what they asked for, or of ours."""
    if isinstance(error, TaskqError):
        return error
    if sqlstate(error) == _FULL:
        return StorageFull()
    if is_lost(error) or wants_another_try(error) or sqlstate(error).startswith(_UNAVAILABLE):
        return StorageUnavailable(in_short(error))
    return None


def in_short(error: BaseException) -> str:
    """Without the statement and its values, which may be somebody's payload."""
    original = _original(error)
    return f"{type(original).__name__}: {original}"


def cannot_connect(error: BaseException, name: str) -> StoreRefused | None:
    """Why a connection to the database of that name could not be opened; None for a fault of ours."""
    if isinstance(error, OSError | TimeoutError):
        return StoreRefused(f"{name} cannot be reached: {error or 'no answer'}", "start it, or mend the URL", TRY_AGAIN)
    if isinstance(error, ValueError):  # whose words may be those of the password
        return StoreRefused(f"{name} is no URL", "what is special in a password must be %-encoded")
    return refusal(error, when_not_said=_OPERATORS[0]) if isinstance(error, OF_POSTGRES) else None


def refusal(error: BaseException, when_not_said: str = "08") -> StoreRefused:
    """What an operator is told. Without a word of the server's: when connecting, the URL is no good; later, the
    connection broke."""
    if isinstance(_original(error).__cause__ or error, TargetServerAttributeNotMatched):
        return StoreRefused("the database can only be read", "name the primary in the URL", TRY_AGAIN)
    state = sqlstate(error) or when_not_said
    who = "PostgreSQL says" if sqlstate(error) else "the connection failed"
    why = f"{who}: {_original(error)}"
    if state.startswith(_OPERATORS):
        return StoreRefused(why, "mend the URL, or what the database allows this user")
    if state.startswith((*_CONNECTION_IS_LOST, "57", "53300")):
        return StoreRefused(why, "try again", TRY_AGAIN)
    return StoreRefused(why, "look at its log, then try again", STORAGE_FAILS)
