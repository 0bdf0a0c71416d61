"""Bulk operations, started and waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from taskq.v1 import bulk_operation_pb2, task_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from tests.rpc.support import soon, span
from tests.rpc.world import World

GOING_ON = bulk_operation_pb2.BULK_OPERATION_STATE_RUNNING
DONE = bulk_operation_pb2.BULK_OPERATION_STATE_SUCCEEDED
BROKEN_OFF = bulk_operation_pb2.BULK_OPERATION_STATE_CANCELLED

CANCEL = bulk_operation_pb2.BulkAction(cancel=bulk_operation_pb2.CancelAction())
RERUN = bulk_operation_pb2.BulkAction(rerun=bulk_operation_pb2.RerunAction())
DELETE = bulk_operation_pb2.BulkAction(delete=bulk_operation_pb2.DeleteAction())


def rerun_with(data: bytes) -> bulk_operation_pb2.BulkAction:
    rerun = bulk_operation_pb2.RerunAction(payload=task_pb2.Payload(data=data))
    return bulk_operation_pb2.BulkAction(rerun=rerun)


def reschedule(**when: Any) -> bulk_operation_pb2.BulkAction:
    return bulk_operation_pb2.BulkAction(reschedule=bulk_operation_pb2.RescheduleAction(**when))


def reprioritise(priority: int) -> bulk_operation_pb2.BulkAction:
    return bulk_operation_pb2.BulkAction(reprioritise=bulk_operation_pb2.ReprioritiseAction(priority=priority))


async def start(world: World, action: bulk_operation_pb2.BulkAction, **asked: Any) -> bulk_operation_pb2.BulkOperation:
    request = bulk_operation_pb2.StartBulkOperationRequest(action=action, **asked)
    return (await soon(world.admin.stub.StartBulkOperation(request))).operation


async def get(world: World, operation_id: str) -> bulk_operation_pb2.BulkOperation:
    request = bulk_operation_pb2.GetBulkOperationRequest(operation_id=operation_id)
    return (await soon(world.admin.stub.GetBulkOperation(request))).operation


async def ended(world: World, operation_id: str) -> bulk_operation_pb2.BulkOperation:
    async with asyncio.timeout(20):
        while (operation := await get(world, operation_id)).state == GOING_ON:
            pass  # each look is a call, which lets the server go on
    return operation


async def done(world: World, action: bulk_operation_pb2.BulkAction, **asked: Any) -> bulk_operation_pb2.BulkOperation:
    """The operation, once it has come to its end."""
    return await ended(world, (await start(world, action, **asked)).operation_id)


async def refused(world: World, action: bulk_operation_pb2.BulkAction, **asked: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await start(world, action, **asked)
    return raised.value


async def later(world: World, many: int, name: str = "cook", **fields: Any) -> list[str]:
    tasks = [scheduler_pb2.NewTask(name=name, delay=span(60), **fields) for _ in range(many)]
    return [one.task_id for one in await world.scheduler.enqueue_all(*tasks)]
