"""Health: whether calls should come here. The stock servicer, with List, whose watches end when the server stops."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from taskq_server.rpc.standing import Standing

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health(health.aio.HealthServicer):
    """All services are healthy, or none: they share the database."""

    def __init__(self, standing: Standing) -> None:
        super().__init__()
        self._standing = standing
        self._names: list[str] = []
        self._status: Any = NOT_SERVING
        self._stopping = False

    async def tell(self, names: list[str], *, serving: bool) -> None:
        """These services are healthy, or not."""
        if self._stopping:
            return
        self._names = names
        self._status = SERVING if serving else NOT_SERVING
        for name in names:
            await self.set(name, self._status)

    async def stop(self) -> None:
        """None is, for good."""
        self._stopping, self._status = True, NOT_SERVING
        await self.enter_graceful_shutdown()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await self._standing.run(super().Watch(request, context), context)

    async def List(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """The health of all services, from a HealthListRequest: the types that are published are older."""
        status = health_pb2.HealthCheckResponse(status=self._status)
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(self._names, status))  # type: ignore[attr-defined]
