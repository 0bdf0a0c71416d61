"""What runs, on what database, beside which other servers, and by which settings."""

from __future__ import annotations

from starlette.responses import Response

from taskq.v1 import admin_service_pb2
from taskq_server.http.dashboard.visit import Visit


async def page(visit: Visit) -> Response:
    info = await visit.call("AdminService/GetServerInfo", admin_service_pb2.GetServerInfoRequest())
    return visit.show("system", info=info)
