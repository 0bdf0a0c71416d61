"""What tasks ask for, by name, and what there is for them."""

from __future__ import annotations

from starlette.responses import Response

from taskq.v1 import admin_service_pb2
from taskq_server.http.dashboard.visit import Visit


async def page(visit: Visit) -> Response:
    request = admin_service_pb2.ListCapabilitiesRequest(page_size=200, page_token=visit.query("page"))
    answer = await visit.call("AdminService/ListCapabilities", request)
    return visit.show("capabilities", answer=answer, is_first=not request.page_token)
