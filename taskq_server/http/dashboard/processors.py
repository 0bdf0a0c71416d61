"""The processors that live: what they run, what they hold, when they were heard."""

from __future__ import annotations

from starlette.responses import Response

from taskq.v1 import admin_service_pb2
from taskq_server.core.errors import SessionNotFound
from taskq_server.http.dashboard.visit import Visit

MOST_PAGES = 20


async def page(visit: Visit) -> Response:
    request = admin_service_pb2.ListProcessorsRequest(page_size=100, page_token=visit.query("page"))
    answer = await visit.call("AdminService/ListProcessors", request)
    return visit.show("processors", answer=answer, is_first=not request.page_token)


async def one(visit: Visit) -> Response:
    session_id = visit.path("session_id")
    request = admin_service_pb2.ListProcessorsRequest(page_size=1_000)
    for _ in range(MOST_PAGES):
        answer = await visit.call("AdminService/ListProcessors", request)
        for processor in answer.processors:
            if processor.session_id == session_id:
                return visit.show("processor", processor=processor)
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    raise SessionNotFound(session_id[:64])
