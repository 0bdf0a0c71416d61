"""The audit: every change that an administrator answers for, once, with its change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from taskq.v1 import admin_service_pb2 as admin_pb2
from taskq.v1 import (
    admin_task_pb2,
    audit_pb2,
    bulk_operation_pb2,
    failure_group_pb2,
    processor_service_pb2,
    schedule_service_pb2,
)
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server.core.errors import StorageUnavailable
from taskq_server.rpc import origin
from taskq_server.store.verbs import auditing
from taskq_server.store.verbs.failures import Failures
from taskq_server.store.verbs.figures import Round
from tests.rpc.support import SCHEDULED, microseconds, soon, span
from tests.rpc.world import World
from tests.support.schedules import RawSchedules, every

METHODS = {
    f"{service.name}/{method.name}": method
    for file in (scheduler_pb2, processor_service_pb2, schedule_service_pb2, admin_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if origin.is_audited(method)
}
"""What changes something that an administrator answers for, as the contract and the table of rights have it."""
Given = Callable[[World], Awaitable[Message]]
GIVEN: dict[str, Given] = {}
"""For each of these calls: what must be there, and a request that changes it."""


def given(name: str) -> Callable[[Given], Given]:
    def add(make: Given) -> Given:
        GIVEN[name] = make
        return make

    return add


@given("SchedulerService/CancelTask")
async def _(world: World) -> Message:
    return scheduler_pb2.CancelTaskRequest(task_id=await world.scheduler.enqueue(delay=span(60)))


@given("AdminService/DrainProcessor")
async def _(world: World) -> Message:
    session_id = (await world.registered()).session_id
    return admin_pb2.DrainProcessorRequest(session_id=session_id, reason="why")


@given("AdminService/DisconnectProcessor")
async def _(world: World) -> Message:
    session_id = (await world.registered()).session_id
    return admin_pb2.DisconnectProcessorRequest(session_id=session_id, reason="why")


@given("AdminService/PauseCapability")
async def _(world: World) -> Message:
    return admin_pb2.PauseCapabilityRequest(name="cook", reason="why")


@given("AdminService/ResumeCapability")
async def _(world: World) -> Message:
    await world.admin.pause("cook")
    return admin_pb2.ResumeCapabilityRequest(name="cook", reason="why")


def schedules(world: World) -> RawSchedules:
    return RawSchedules(world.channel())


@given("ScheduleService/CreateSchedule")
async def _(world: World) -> Message:
    new = every(60, schedule_id="01935000-0000-7000-8000-000000000002", data=b"a secret")
    return schedule_service_pb2.CreateScheduleRequest(schedule=new)


@given("ScheduleService/UpdateSchedule")
async def _(world: World) -> Message:
    created = await schedules(world).create(every(60))
    changed = every(30, schedule_id=created.schedule_id, etag=created.etag, data=b"a secret")
    return schedule_service_pb2.UpdateScheduleRequest(schedule=changed)


@given("ScheduleService/DeleteSchedule")
async def _(world: World) -> Message:
    return schedule_service_pb2.DeleteScheduleRequest(name=(await schedules(world).create(every(60))).name)


@given("ScheduleService/PauseSchedule")
async def _(world: World) -> Message:
    name = (await schedules(world).create(every(60))).name
    return schedule_service_pb2.PauseScheduleRequest(name=name, note="why")


@given("ScheduleService/ResumeSchedule")
async def _(world: World) -> Message:
    name = (await schedules(world).create(every(60))).name
    await schedules(world).pause(name=name)
    return schedule_service_pb2.ResumeScheduleRequest(name=name)


@given("ScheduleService/TriggerSchedule")
async def _(world: World) -> Message:
    name = (await schedules(world).create(every(60))).name
    return schedule_service_pb2.TriggerScheduleRequest(name=name, task_id="01935000-0000-7000-8000-000000000001")


@given("ScheduleService/BackfillSchedule")
async def _(world: World) -> Message:
    created = await schedules(world).create(every(60, overlap=schedule_service_pb2.OVERLAP_ALLOW_ALL))
    request = schedule_service_pb2.BackfillScheduleRequest(name=created.name)
    request.start_time.FromMicroseconds(world.clock.now_us() - 180_000_000)
    request.end_time.FromMicroseconds(world.clock.now_us() - 60_000_000)
    return request


@given("AdminService/PruneTasks")
async def _(world: World) -> Message:
    await world.scheduler.cancel(await world.scheduler.enqueue(delay=span(60), retention=span(0)))
    return admin_task_pb2.PruneTasksRequest(reason="why")


def a_cancel() -> bulk_operation_pb2.StartBulkOperationRequest:
    action = bulk_operation_pb2.BulkAction(cancel=bulk_operation_pb2.CancelAction())
    operation_id = "01935000-0000-7000-8000-000000000003"
    return bulk_operation_pb2.StartBulkOperationRequest(
        operation_id=operation_id, filter="name:cook", action=action, reason="why"
    )


@given("AdminService/StartBulkOperation")
async def _(world: World) -> Message:
    return a_cancel()


@given("AdminService/CancelBulkOperation")
async def _(world: World) -> Message:
    """No server works on it."""
    await world.scheduler.enqueue(delay=span(60))
    world.server.bulk.tick = asyncio.Event().wait  # type: ignore[assignment, method-assign]
    started = await soon(world.admin.stub.StartBulkOperation(a_cancel()))
    return bulk_operation_pb2.CancelBulkOperationRequest(operation_id=started.operation.operation_id)


@given("AdminService/ResolveFailureGroup")
async def _(world: World) -> Message:
    seen = Failures("a" * 16, "cook", "Burnt", "", first_time_us=1, last_time_us=1, last_task_id=bytes(16))
    await world.server._store.keep_figures(Round(failures=[seen]))
    return failure_group_pb2.ResolveFailureGroupRequest(fingerprint=seen.fingerprint, note="why")


async def send(world: World, name: str, request: Message, *metadata: tuple[str, str]) -> Any:
    method: MethodDescriptor = METHODS[name]
    path = f"/{method.containing_service.full_name}/{method.name}"
    parse = message_factory.GetMessageClass(method.output_type).FromString
    call = world.channel().unary_unary(path, None, parse)
    return await soon(call(request.SerializeToString(), metadata=metadata))


async def entries(world: World, **asked: Any) -> list[audit_pb2.AuditEntry]:
    """The last first."""
    request = audit_pb2.ListAuditEntriesRequest(**asked)
    return list((await soon(world.admin.stub.ListAuditEntries(request))).entries)


@pytest.mark.parametrize("name", METHODS)
async def test_a_call_that_changes_something_leaves_one_entry_and_its_repetition_none(world: World, name: str) -> None:
    assert name in GIVEN, f"say in this file how {name} changes something"
    request = await GIVEN[name](world)
    before = await entries(world)

    await send(world, name, request, ("x-request-id", "42"))

    (entry,) = (await entries(world))[: -len(before) or None]
    assert entry.action == name
    assert (entry.principal, entry.peer, entry.source) == ("", "127.0.0.1", audit_pb2.AUDIT_SOURCE_GRPC)
    assert (entry.request_id, microseconds(entry.change_time)) == ("42", world.clock.now_us())
    assert entry.reason == getattr(request, "reason", getattr(request, "note", ""))
    assert entry.target_kind and (entry.target or "Prune" in name)
    assert entry.before != entry.after
    assert all(json.loads(text) for text in (entry.before, entry.after) if text)
    assert "secret" not in f"{entry}"

    try:
        await send(world, name, request)
    except grpc.aio.AioRpcError as error:  # it is gone, or has another etag by now
        assert error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ABORTED)
    assert len(await entries(world)) == len(before) + 1


def test_what_only_looks_and_what_the_tasks_themselves_need_is_not_audited() -> None:
    assert "SchedulerService/Enqueue" not in METHODS
    assert not any(name.startswith("ProcessorService/") for name in METHODS)
    assert not any(name.split("/")[1].startswith(("Get", "List", "Watch", "Preview", "Explain")) for name in METHODS)


async def test_a_change_whose_entry_cannot_be_written_does_not_happen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await world.scheduler.enqueue(delay=span(60))

    def fail(*_: object) -> None:
        raise StorageUnavailable("the audit is away")

    with monkeypatch.context() as broken:
        broken.setattr(auditing, "write", fail)
        with pytest.raises(grpc.aio.AioRpcError):
            await world.scheduler.cancel(task_id)
        with pytest.raises(grpc.aio.AioRpcError):
            await world.admin.pause("cook")

    assert (await world.scheduler.get(task_id)).state == SCHEDULED
    assert not (await world.admin.capability("cook")).HasField("pause")
    assert await entries(world) == []


async def test_what_was_before_and_what_is_after_stand_in_the_entry(world: World) -> None:
    await world.admin.pause("cook", "the oven is hot")
    await world.admin.pause("cook", "it is on fire")
    await world.admin.resume("cook")

    resumed, again, paused = await entries(world, target_kind="capability", target="cook")

    assert paused.before == "" and json.loads(paused.after)["reason"] == "the oven is hot"
    assert again.before == paused.after and json.loads(again.after)["reason"] == "it is on fire"
    assert resumed.before == again.after and resumed.after == ""


async def test_the_command_is_told_from_others_by_its_user_agent(world: World) -> None:
    options = [("grpc.primary_user_agent", "taskq-cli/1.0"), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(world.server.address, options) as channel:
        call = channel.unary_unary("/taskq.v1.AdminService/PauseCapability")
        await soon(call(admin_pb2.PauseCapabilityRequest(name="cook").SerializeToString()))

    (entry,) = await entries(world)
    assert entry.source == audit_pb2.AUDIT_SOURCE_CLI


async def test_cancels_of_several_callers_in_one_transaction_are_each_told_of_whoever_asked(world: World) -> None:
    ids = [await world.scheduler.enqueue(delay=span(60)) for _ in range(20)]
    requests = [scheduler_pb2.CancelTaskRequest(task_id=one) for one in ids]
    name = "SchedulerService/CancelTask"

    await asyncio.gather(*(send(world, name, one, ("x-request-id", one.task_id)) for one in requests))

    assert {(one.target, one.request_id) for one in await entries(world)} == {(one, one) for one in ids}


async def test_entries_are_listed_a_page_at_a_time_the_last_first(world: World) -> None:
    for i in range(5):
        await world.admin.pause(f"cook{i}")
    pages, token = [], ""
    while True:
        request = audit_pb2.ListAuditEntriesRequest(page_size=2, page_token=token)
        page = await soon(world.admin.stub.ListAuditEntries(request))
        pages.append([one.target for one in page.entries])
        if not (token := page.next_page_token):
            break
    assert pages == [["cook4", "cook3"], ["cook2", "cook1"], ["cook0"]]


async def test_entries_are_found_by_what_they_are_about_and_when_it_was(world: World) -> None:
    await world.admin.pause("cook")
    world.clock.advance(60)
    await world.admin.pause("bake")
    task_id = await world.scheduler.enqueue(delay=span(60))
    await world.scheduler.cancel(task_id)

    async def found(**asked: Any) -> list[str]:
        return [one.target for one in await entries(world, **asked)]

    a_minute_ago = audit_pb2.ListAuditEntriesRequest().start_time
    a_minute_ago.FromMicroseconds(world.clock.now_us() - 60_000_000)
    now = audit_pb2.ListAuditEntriesRequest().start_time
    now.FromMicroseconds(world.clock.now_us())
    assert await found(target_kind="task") == [task_id]
    assert await found(target="cook") == ["cook"]
    assert await found(principal="somebody") == []
    assert await found(start_time=now) == [task_id, "bake"]
    assert await found(start_time=a_minute_ago, end_time=now) == ["cook"]


async def test_pages_of_what_was_asked_for_go_on_where_the_last_one_ended(world: World) -> None:
    """Several entries of the same instant are of one page and of the next."""
    for i in range(6):
        await world.admin.pause(f"cook{i}" if i % 2 else "bake", f"{i}")
        if i == 2:
            world.clock.advance(1)

    for asked in (
        {},
        {"target_kind": "capability"},
        {"target": "bake"},
        {"target_kind": "capability", "target": "bake"},
    ):
        found, token = [], ""
        for _ in range(10):
            request = audit_pb2.ListAuditEntriesRequest(page_size=1, page_token=token, **asked)
            page = await soon(world.admin.stub.ListAuditEntries(request))
            found += [int(one.reason) for one in page.entries]
            if not (token := page.next_page_token):
                break
        assert found == ([4, 2, 0] if "target" in asked else [5, 4, 3, 2, 1, 0])


async def test_a_page_token_is_good_for_the_list_that_it_was_made_for(world: World) -> None:
    for name in ("cook", "bake"):
        await world.admin.pause(name)
    page = await soon(world.admin.stub.ListAuditEntries(audit_pb2.ListAuditEntriesRequest(page_size=1)))

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await entries(world, page_token=page.next_page_token, target="cook")
    assert "page_token" in (raised.value.details() or "")


async def test_a_kind_that_does_not_exist_is_refused_with_those_that_do(world: World) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await entries(world, target_kind="oven")
    assert "target_kind must be one of task, processor" in (raised.value.details() or "")


async def test_entries_are_forgotten_after_their_retention(world: World) -> None:
    await world.restart(audit_retention="60s")
    await world.admin.pause("cook")
    await world.let_pass(59)
    await world.admin.pause("bake")
    assert len(await entries(world)) == 2

    world.clock.advance(3_600)
    await world.server.housekeeper.tick()
    assert await entries(world) == []
