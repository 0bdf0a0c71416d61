"""A call that is repeated until it is answered or its time is up: everything that a scheduler calls may be repeated."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from client_core.backoff import Backoff
from client_core.errors import (
    Cancelled,
    DeadlineExceeded,
    HandshakeFailed,
    ResourceExhausted,
    TaskqError,
    Unavailable,
    from_rpc_error,
)

T = TypeVar("T")

Explain = Callable[[TaskqError], Awaitable[TaskqError]]
"""Finds out why the server cannot be reached: answers the same error, or a better one."""

CALL_TIMEOUT: Final = 10.0
"""Seconds after which one try of a unary call is given up."""

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 2.0

log = logging.getLogger("taskq.scheduler")


def is_transient(error: TaskqError) -> bool:
    """True when the same call may succeed later."""
    if isinstance(error, ResourceExhausted):
        # Without a reason it is gRPC's own: a message that is too large, and always will be.
        return bool(error.reason) or error.retry_delay is not None
    # Cancelled: gRPC's answer to a call that arrives while its server stops. A call that this program cancels raises
    # asyncio.CancelledError instead.
    return isinstance(error, Unavailable | DeadlineExceeded | Cancelled) and not isinstance(error, HandshakeFailed)


def delay_before_retry(backoff: Backoff, error: TaskqError) -> float:
    """Seconds to wait: our own backoff, and no less than the server asks for."""
    return max(backoff.next(), error.retry_delay or 0.0)


async def call(
    method: Callable[[], Callable[..., Awaitable[T]]], request: Any, timeout: float | None, explain: Explain
) -> T:
    """Calls until there is an answer, an error that does not pass, or no time left (seconds; None: for ever). `method`
    is looked up for each try, as its channel may have been opened anew."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout if timeout is not None else float("inf")
    backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
    while True:
        try:
            return await method()(request, timeout=max(0.001, min(CALL_TIMEOUT, deadline - loop.time())))
        except grpc.RpcError as failure:
            error = await explain(from_rpc_error(failure))
        delay = delay_before_retry(backoff, error)
        if not is_transient(error) or loop.time() >= deadline:
            raise error
        await asyncio.sleep(min(delay, max(0.0, deadline - loop.time())))
