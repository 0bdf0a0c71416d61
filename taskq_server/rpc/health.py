"""Health: whether calls should come here. The stock servicer, whose watches end when the server stops."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2


class Health(health.aio.HealthServicer):
    """The stock one lets each Watch stand until its caller goes, and a stopping server wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._watches: set[asyncio.Task[None]] = set()
        self._ended = False

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        watch = asyncio.create_task(super().Watch(request, context))
        self._watches.add(watch)
        try:
            await asyncio.wait({watch})
        finally:
            watch.cancel()
            self._watches.discard(watch)
        if self._ended:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
        await watch

    def end_watches(self) -> None:
        """Lets those who watch go; they have been told NOT_SERVING."""
        self._ended = True
        for watch in self._watches:
            watch.cancel()
