"""Registers a processor: again and again until the server answers, loudly when it never will."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

import grpc
import grpc.aio

from client_core.backoff import Backoff
from client_core.channel import CLIENT
from client_core.errors import (
    HandshakeFailed,
    InvalidArgument,
    PermissionDenied,
    TaskqError,
    Unauthenticated,
    Unimplemented,
    from_rpc_error,
)
from processor_client.handler import Handler
from processor_client.link import Link
from taskq.v1.processor_service_pb2 import Capability, RegisterRequest, RegisterResponse

logger = logging.getLogger("taskq.processor")

FIRST_RETRY_SECONDS = 0.5
MAX_RETRY_SECONDS = 30.0
TIMEOUT_SECONDS = 5.0
# No waiting mends these.
HOPELESS = (HandshakeFailed, InvalidArgument, PermissionDenied, Unauthenticated, Unimplemented)


class Registration:
    """What a processor says of itself, and how it says it."""

    def __init__(
        self,
        open_channel: Callable[[int], grpc.aio.Channel],
        explain: Callable[[TaskqError], Awaitable[TaskqError]],
        *,
        name: str,
        handlers: Iterable[Handler],
        labels: Mapping[str, str],
        concurrency: int,
        build_id: str,
    ) -> None:
        self._open_channel = open_channel
        self._explain = explain
        self._registered_before = False
        self._request = RegisterRequest(
            processor_name=name,
            capabilities=[Capability(name=each.name, max_in_flight=each.max_in_flight) for each in handlers],
            labels=labels,
            max_in_flight=concurrency,
            build_id=build_id,
            client=CLIENT,
        )

    async def register(self) -> RegisterResponse:
        """Opens a session. Raises what no waiting mends, but only the first time: a processor that has worked before
        goes on trying, since somebody may be mending the server."""
        link = Link(self._open_channel)
        backoff = Backoff(FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)
        try:
            while True:
                try:
                    registered: RegisterResponse = await link.stub.Register(self._request, timeout=TIMEOUT_SECONDS)
                except grpc.RpcError as failure:
                    error = await self._explain(from_rpc_error(failure))
                    if isinstance(error, HOPELESS) and not self._registered_before:
                        raise error from None
                    if (old := link.failed()) is not None:
                        await old.close()
                    pause = max(backoff.next(), error.retry_delay or 0.0)
                    logger.warning("not registered; again in %.1f s: %s", pause, error)
                    await asyncio.sleep(pause)
                else:
                    self._registered_before = True
                    return registered
        finally:
            await link.channel.close()
