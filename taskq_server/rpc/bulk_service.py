"""AdminService, as far as it does the same to many tasks."""

from __future__ import annotations

from taskq.v1 import admin_task_pb2, bulk_operation_pb2
from taskq_server.bulk import Bulk
from taskq_server.config import Config
from taskq_server.rpc import convert_bulk as convert
from taskq_server.rpc.checks import Faults
from taskq_server.rpc.pages import fill, page_of

MOST_REASON = 1_024
PRUNED, MOST_PRUNED = 1_000, 10_000


class BulkService:
    """What is done to many at once."""

    def __init__(self, bulk: Bulk, config: Config) -> None:
        self._bulk = bulk
        self._most_payload_bytes = config.max_payload_bytes

    async def StartBulkOperation(
        self, request: bulk_operation_pb2.StartBulkOperationRequest
    ) -> bulk_operation_pb2.StartBulkOperationResponse:
        faults = Faults()
        new = convert.new_operation(faults, request, self._most_payload_bytes)
        faults.number("expected_count", request.expected_count, 0, convert.MOST_TASKS)
        faults.raise_if_any()
        started = await self._bulk.start(new, expected=request.expected_count, dry_run=request.dry_run)
        return bulk_operation_pb2.StartBulkOperationResponse(operation=convert.operation(started))

    async def GetBulkOperation(
        self, request: bulk_operation_pb2.GetBulkOperationRequest
    ) -> bulk_operation_pb2.GetBulkOperationResponse:
        found = await self._bulk.get(_operation_id(request.operation_id))
        return bulk_operation_pb2.GetBulkOperationResponse(operation=convert.operation(found))

    async def ListBulkOperations(
        self, request: bulk_operation_pb2.ListBulkOperationsRequest
    ) -> bulk_operation_pb2.ListBulkOperationsResponse:
        faults = Faults()
        page = page_of(faults, "operations", request, 0)
        faults.raise_if_any()
        found = await self._bulk.find(page)
        operations, token = fill("operations", page, found, convert.operation, lambda one: one.operation_seq)
        return bulk_operation_pb2.ListBulkOperationsResponse(operations=operations, next_page_token=token)

    async def CancelBulkOperation(
        self, request: bulk_operation_pb2.CancelBulkOperationRequest
    ) -> bulk_operation_pb2.CancelBulkOperationResponse:
        cancelled = await self._bulk.cancel(_operation_id(request.operation_id))
        return bulk_operation_pb2.CancelBulkOperationResponse(operation=convert.operation(cancelled))

    async def PruneTasks(self, request: admin_task_pb2.PruneTasksRequest) -> admin_task_pb2.PruneTasksResponse:
        faults = Faults()
        if request.max_tasks < 0:
            faults.add("max_tasks", f"must not be negative; is {request.max_tasks}")
        faults.text("reason", request.reason, MOST_REASON)
        faults.raise_if_any()
        tasks, has_more = await self._bulk.prune(min(request.max_tasks or PRUNED, MOST_PRUNED))
        return admin_task_pb2.PruneTasksResponse(pruned_tasks=tasks, has_more=has_more)


def _operation_id(text: str) -> bytes:
    faults = Faults()
    raw = faults.uuid("operation_id", text)
    faults.raise_if_any()
    return raw
