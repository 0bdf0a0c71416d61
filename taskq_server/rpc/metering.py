"""Counts calls, and how long they took."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import MethodDescriptor
from prometheus_client import Counter

from taskq_server.metrics import Metrics

Answer = TypeVar("Answer")
Call = Callable[[Any, Any], Awaitable[Answer]]

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class Meter:
    """Stands around the calls of one method; `kind` is how they come, if not by gRPC."""

    def __init__(self, metrics: Metrics, method: MethodDescriptor, kind: str = "") -> None:
        kind = kind or ("server_stream" if method.server_streaming else "unary")
        self._labels = method.containing_service.full_name, method.name, kind
        self._metrics = metrics
        self._started = metrics.calls_started.labels(*self._labels)
        self._ended: dict[str, Counter] = {}

    def around(self, call: Call[Answer]) -> Call[Answer]:
        """The same call, counted."""

        async def counted(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Answer:
            loop = asyncio.get_running_loop()
            began = loop.time()
            self.begin()
            code = ""
            try:
                return await call(request, context)
            except asyncio.CancelledError:  # by its caller, or its deadline
                code = grpc.StatusCode.CANCELLED.name
                raise
            finally:
                self.end(code or _code_of(context), loop.time() - began)

        return counted

    def begin(self) -> None:
        """A call has begun."""
        self._started.inc()

    def end(self, code: str, seconds: float) -> None:
        """It has ended, with this code."""
        ended = self._ended.get(code)
        if ended is None:
            ended = self._ended[code] = self._metrics.calls_handled.labels(*self._labels, code)
        ended.inc()
        self._metrics.handled(self._labels, seconds)


def _code_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The library says a number where it is typed as a code."""
    code: Any = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return _CODES.get(code or 0, grpc.StatusCode.UNKNOWN.name)
