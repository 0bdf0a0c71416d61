"""What there is to ask for, asked for by gRPC and by HTTP, and answers that take their time."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_status import rpc_status

from taskq.v1 import admin_service_pb2 as admin_pb2
from taskq.v1 import admin_task_pb2, bulk_operation_pb2
from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq.v1 import schedule_service_pb2 as schedule_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server.store.store import Store
from tests.http.asking import Answered, Asked, ask_now
from tests.rpc.bounds import a_valid
from tests.rpc.support import a_task, span
from tests.rpc.wire import send
from tests.support.schedules import every

NOT_THERE = "ResolveFailureGroup", "CancelBulkOperation"
"""Calls about what the world has not: a failure, and an operation that still runs."""


class Both:
    """A server, asked by gRPC and by HTTP."""

    def __init__(self, http_address: str, channel: grpc.aio.Channel) -> None:
        self._address = http_address
        self._channel = channel

    async def grpc(self, name: str, request: Message) -> Message | status_pb2.Status:
        try:
            return await send(self._channel, name, request.SerializeToString())
        except grpc.aio.AioRpcError as error:
            status = rpc_status.from_call(error)
            assert status is not None
            return status

    async def http(self, asked: Asked) -> Answered:
        return await asyncio.to_thread(ask_now, self._address, asked)


class SlowLooks:
    """From now on, whoever looks at tasks has to wait until they may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.may_go_on = asyncio.Event(), asyncio.Event()
        get = Store.get

        async def get_slowly(store: Store, task_ids: list[bytes]) -> object:
            self.begun.set()
            await self.may_go_on.wait()
            return await get(store, task_ids)

        monkeypatch.setattr(Store, "get", get_slowly)


async def a_world(both: Both) -> dict[str, Any]:
    """Something to look at, and something to change."""

    async def done(name: str, request: Message) -> Any:
        answered = await both.grpc(name, request)
        assert not isinstance(answered, status_pb2.Status), answered
        return answered

    tasks = [a_task("cook/pasta", b"\0\xff", delay=span(3600), tags=["ü"], headers={"a": "b"}) for _ in range(2)]
    enqueued = await done("Enqueue", scheduler_pb2.EnqueueRequest(tasks=tasks))
    new = every(3_600, f"s-{enqueued.results[0].task_id}", data=b"pasta")
    created = await done("CreateSchedule", schedule_pb2.CreateScheduleRequest(schedule=new))
    capability = processor_pb2.Capability(name="cook/pasta")
    register = processor_pb2.RegisterRequest(processor_name="oven", max_in_flight=1, capabilities=[capability])
    registered = await done("Register", register)
    await done("PauseCapability", admin_pb2.PauseCapabilityRequest(name="cook/pasta"))
    await done("PruneTasks", admin_task_pb2.PruneTasksRequest(max_tasks=10_000))  # what others have left
    reprioritise = bulk_operation_pb2.StartBulkOperationRequest(
        task_ids=[enqueued.results[1].task_id], action={"reprioritise": {"priority": 3}}
    )
    started = (await done("StartBulkOperation", reprioritise)).operation
    look = bulk_operation_pb2.GetBulkOperationRequest(operation_id=started.operation_id)
    while (await done("GetBulkOperation", look)).operation.state == bulk_operation_pb2.BULK_OPERATION_STATE_RUNNING:
        await asyncio.sleep(0.01)
    return {
        "operation_id": started.operation_id,
        "task_id": enqueued.results[0].task_id,
        "schedule_id": created.schedule.schedule_id,
        "schedule": created.schedule,
        "session_id": registered.session_id,
        "name": "cook/pasta",
    }


def about(name: str, world: dict[str, Any]) -> Message:
    """A request about what is in the world."""
    request = a_valid(name)
    fields = request.DESCRIPTOR.fields_by_name
    for field in ("task_id", "session_id", "schedule_id", "operation_id", "name"):
        oneof = fields[field].containing_oneof if field in fields else None
        if field in fields and (oneof is None or field == "schedule_id") and name != "TriggerSchedule":
            setattr(request, field, world[field])
    if name in NOT_THERE:
        return a_valid(name)  # type: ignore[no-any-return]
    if name == "StartBulkOperation":
        request.task_ids[:] = [world["task_id"]]
        request.operation_id = ""
    if name in ("ListTasks", "ListBulkOperations"):
        request.page_size = 1
    if name == "ListAuditEntries":
        request.page_size, request.target_kind = 1, "schedule"
    if name == "TriggerSchedule":
        request.schedule_id = world["schedule_id"]
    if name == "ListSchedules":
        request.name_prefix = world["schedule"].name
    if name == "UpdateSchedule":
        request.schedule.CopyFrom(world["schedule"])
        request.schedule.recurrence.interval.seconds = 7_200
    if name == "BackfillSchedule":
        request.end_time.GetCurrentTime()
        request.end_time.nanos = 0
        request.start_time.seconds = request.end_time.seconds - 60
    return request  # type: ignore[no-any-return]
