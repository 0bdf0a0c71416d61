"""Who has changed what, from where, and why."""

from __future__ import annotations

from starlette.responses import Response

from taskq.v1 import audit_pb2
from taskq_server.http.dashboard.forms import Form
from taskq_server.http.dashboard.visit import Visit

KINDS = ("task", "processor", "capability", "schedule", "operation", "failure_group", "token")


async def page(visit: Visit) -> Response:
    asked = Form(list(visit.request.query_params.multi_items()))
    request = audit_pb2.ListAuditEntriesRequest(
        page_size=100,
        page_token=asked.get("page"),
        principal=asked.get("principal"),
        target_kind=asked.get("kind"),
        target=asked.get("target"),
        start_time=asked.time("from"),
        end_time=asked.time("until"),
    )
    answer = await visit.call("AdminService/ListAuditEntries", request)
    return visit.show("audit", answer=answer, asked=asked, kinds=KINDS, is_first=not request.page_token)
