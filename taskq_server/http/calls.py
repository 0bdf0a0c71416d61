"""A call over HTTP: the servicer's method that gRPC calls, for the same callers, with the same limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc import code_pb2
from starlette.requests import Request

from taskq_server.access import Access
from taskq_server.core.origin import Source
from taskq_server.core.rights import Need
from taskq_server.http.errors import Failure, Refusal
from taskq_server.metrics import Metrics
from taskq_server.rpc import origin
from taskq_server.rpc.auth import NEEDS
from taskq_server.rpc.metering import Meter
from taskq_server.rpc.server import answered

MOST_SECONDS = 60.0
"""A call takes no longer, whatever its caller would allow: it holds one of few connections."""

Answer = Callable[[], Awaitable[Message]]


class Call:
    """One method of one service."""

    def __init__(
        self, servicer: object, method: MethodDescriptor, need: Need, metrics: Metrics, access: Access
    ) -> None:
        self.method = method
        self.need = need
        self.request_type: type[Message] = message_factory.GetMessageClass(method.input_type)
        self._behaviour: Callable[[Any], Awaitable[Message]] = getattr(servicer, method.name)
        self._meter = Meter(metrics, method, "http")
        self._teller = origin.Teller(method, access) if origin.is_audited(method) else None

    @property
    def is_stream(self) -> bool:
        return bool(self.method.server_streaming)

    @property
    def path(self) -> str:
        return path_of(self.method)

    async def run(self, request: Message, seconds: float | None, asked_by: Request) -> Message:
        """The answer, if there is one within so many seconds. `asked_by` says where it comes from, for the audit."""
        if self._teller is not None:
            peer = asked_by.client.host if asked_by.client else ""
            request_id = asked_by.headers.get("x-request-id", "")
            self._teller.tell(request, source=Source.HTTP, peer=peer, request_id=request_id)
        limit = MOST_SECONDS if seconds is None else min(seconds, MOST_SECONDS)
        try:
            async with asyncio.timeout(limit) as timer:
                return await self._behaviour(request)
        except TimeoutError:
            if not timer.expired():
                raise
            message = f"there was no answer within {limit:g} s; what was asked for may be done all the same"
            raise Refusal(504, code_pb2.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", message) from None

    async def counted(self, answer: Callable[[], Awaitable[bytes]]) -> bytes | Failure:
        """What `answer` gives, or how it fails."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._meter.begin()
        code = "CANCELLED"
        try:
            body = await answer()
            code = "OK"
            return body
        except Exception as error:  # noqa: BLE001 - whatever it is becomes a status
            failure = Failure(error)
            code = failure.code
            return failure
        finally:
            self._meter.end(code, loop.time() - began)


def path_of(method: MethodDescriptor) -> str:
    """Of gRPC, and of Connect."""
    return f"/{method.containing_service.full_name}/{method.name}"


def all_calls(servicers: Iterable[object], metrics: Metrics, access: Access) -> Iterator[Call]:
    """Those of these servicers that somebody may make at all."""
    for servicer, method in answered(servicers):
        if (need := NEEDS.get(path_of(method))) is not None:
            yield Call(servicer, method, need, metrics, access)
