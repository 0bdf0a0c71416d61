"""The same done to many tasks: what was started, how far it is, and one of them."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from taskq.v1 import bulk_operation_pb2
from taskq_server.http.dashboard.render import iso, span
from taskq_server.http.dashboard.visit import Visit


async def page(visit: Visit) -> Response:
    request = bulk_operation_pb2.ListBulkOperationsRequest(page_size=50, page_token=visit.query("page"))
    answer = await visit.call("AdminService/ListBulkOperations", request)
    told = {one.operation_id: what(one.action) for one in answer.operations}
    return visit.show("operations", answer=answer, what=told, is_first=not request.page_token)


async def one(visit: Visit) -> Response:
    request = bulk_operation_pb2.GetBulkOperationRequest(operation_id=visit.path("operation_id"))
    operation = (await visit.call("AdminService/GetBulkOperation", request)).operation
    return visit.show("operation", operation=operation, what=what(operation.action))


def what(action: Any) -> str:
    """In words: what is done to each task."""
    kind = action.WhichOneof("action") or "nothing"
    if kind == "reschedule":
        moved = action.reschedule
        if moved.WhichOneof("when") == "due_time":
            return f"reschedule to {iso(moved.due_time)}"
        return f"reschedule to {span(moved.delay)} from then" if moved.delay.ByteSize() else "run now"
    if kind == "reprioritise":
        return f"set priority {action.reprioritise.priority}"
    if kind == "rerun" and action.rerun.HasField("payload"):
        return "rerun with another payload"
    return str(kind)
