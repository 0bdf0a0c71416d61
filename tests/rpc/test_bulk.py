"""The same done to many tasks, over the wire: what is matched, what is done, and what is left out."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from taskq.v1 import admin_task_pb2, bulk_operation_pb2, task_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from tests.rpc.support import (
    CANCELLED,
    FAILED,
    RUNNING,
    SCHEDULED,
    SUCCEEDED,
    UNKNOWN_ID,
    microseconds,
    retrying,
    soon,
    span,
    time_at,
)
from tests.rpc.world import World

ID = "01935000-0000-7000-8000-00000000000a"
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


# ── cancel ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by", ["ids", "filter"])
async def test_all_that_wait_are_cancelled_in_as_many_batches_as_it_takes(world: World, by: str) -> None:
    ids, others = await later(world, 450), await later(world, 3, "bake")
    asked: dict[str, Any] = {"task_ids": ids} if by == "ids" else {"filter": "name:cook"}

    operation = await done(world, CANCEL, reason="why", **asked)

    assert (operation.state, operation.matched_tasks, operation.done_tasks) == (DONE, 450, 450)
    assert (operation.skipped_tasks, operation.reason) == (0, "why")
    assert set(await world.scheduler.states(ids)) == {CANCELLED}
    assert await world.scheduler.states(others) == [SCHEDULED] * 3


async def test_a_processor_is_told_to_stop_what_is_cancelled_with_others(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()

    await done(world, CANCEL, filter="state:RUNNING")

    stop = await processor.stream.next("cancel")
    assert [(one.task_id, one.attempt) for one in stop.attempts] == [(task.task_id, task.attempt)]
    assert (await world.scheduler.get(task_id)).state == CANCELLED


async def test_what_is_finished_by_then_or_gone_is_skipped_and_told_why(world: World) -> None:
    processor = await world.processor()
    finished = await world.scheduler.enqueue()
    await processor.succeed(await processor.take_one())
    waiting = (await later(world, 1))[0]

    operation = await done(world, CANCEL, task_ids=[finished, waiting, UNKNOWN_ID])

    assert (operation.matched_tasks, operation.done_tasks, operation.skipped_tasks) == (2, 1, 2)
    assert sorted(operation.skipped_samples) == sorted(
        [
            f"task '{finished}' is succeeded; must be scheduled or running",
            f"task '{UNKNOWN_ID}' does not exist",
        ]
    )


async def test_what_is_enqueued_after_the_start_is_not_touched(world: World) -> None:
    await later(world, 5)
    operation = await start(world, CANCEL, filter="name:cook")
    after = await later(world, 5)

    assert (await ended(world, operation.operation_id)).done_tasks == 5
    assert await world.scheduler.states(after) == [SCHEDULED] * 5


async def test_an_operation_ends_after_as_many_as_it_may_do(world: World) -> None:
    ids = await later(world, 10)

    operation = await done(world, CANCEL, filter="name:cook", max_tasks=3)

    assert (operation.matched_tasks, operation.done_tasks) == (10, 3)
    assert (await world.scheduler.states(ids)).count(CANCELLED) == 3


@pytest.mark.parametrize("by", ["ids", "filter"])
async def test_what_is_skipped_does_not_count_against_as_many_as_it_may_do(world: World, by: str) -> None:
    ids = await later(world, 10)
    for task_id in ids[6:]:
        await world.scheduler.cancel(task_id)
    asked: dict[str, Any] = {"task_ids": ids} if by == "ids" else {"filter": "name:cook"}

    operation = await done(world, CANCEL, max_tasks=5, **asked)

    assert (operation.done_tasks, operation.skipped_tasks) == (5, 4)
    assert (await world.scheduler.states(ids)).count(SCHEDULED) == 1


# ── before it begins ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_dry_run_tells_how_many_are_matched_and_stores_nothing(world: World) -> None:
    ids = await later(world, 3)

    operation = await start(world, CANCEL, filter="name:cook", dry_run=True, operation_id=ID)

    assert operation.matched_tasks == 3
    assert await world.scheduler.states(ids) == [SCHEDULED] * 3
    with pytest.raises(grpc.aio.AioRpcError, match="does not exist"):
        await get(world, ID)


async def test_other_than_the_expected_number_is_refused_and_changes_nothing(world: World) -> None:
    ids = await later(world, 3)

    error = await refused(world, CANCEL, filter="name:cook", expected_count=2)

    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "3 tasks are matched; must be 2, as expected; nothing was changed"
    assert await world.scheduler.states(ids) == [SCHEDULED] * 3
    assert (await done(world, CANCEL, filter="name:cook", expected_count=3)).done_tasks == 3


@pytest.mark.parametrize(("max_tasks", "most"), [(0, 2), (1, 1), (9, 2)])
async def test_no_more_are_done_than_were_expected_though_others_come_to_match(
    world: World, monkeypatch: pytest.MonkeyPatch, max_tasks: int, most: int
) -> None:
    ids = await later(world, 4)
    for task_id in ids[:2]:
        await world.scheduler.cancel(task_id)
    tick, may_begin = world.server.bulk.tick, asyncio.Event()

    async def held_up() -> int:
        await may_begin.wait()
        return await tick()

    monkeypatch.setattr(world.server.bulk, "tick", held_up)
    operation = await start(world, RERUN, filter="state:CANCELLED", expected_count=2, max_tasks=max_tasks)
    for task_id in ids[2:]:
        await world.scheduler.cancel(task_id)
    may_begin.set()

    operation = await ended(world, operation.operation_id)
    assert (operation.matched_tasks, operation.max_tasks, operation.done_tasks) == (2, most, most)


async def test_the_same_again_is_the_same_operation_and_another_with_its_id_is_refused(world: World) -> None:
    await later(world, 3)
    first = await done(world, CANCEL, filter="name:cook", operation_id=ID)
    ids = await later(world, 3)

    assert await start(world, CANCEL, filter=" name=cook ", operation_id=ID.upper()) == first
    error = await refused(world, CANCEL, filter="name:bake", operation_id=ID)

    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    assert await world.scheduler.states(ids) == [SCHEDULED] * 3


@pytest.mark.parametrize(
    ("action", "asked", "field"),
    [
        (CANCEL, {}, "filter must be set, or task_ids"),
        (CANCEL, {"filter": "name:cook", "task_ids": [UNKNOWN_ID]}, "filter must be set, or task_ids"),
        (CANCEL, {"filter": " \t "}, "filter must have a term; `priority>=0` is every task"),
        (CANCEL, {"filter": "colour:red"}, "filter must have one of the keys"),
        (CANCEL, {"task_ids": ["1"]}, "task_ids[0] must be a UUID"),
        (CANCEL, {"task_ids": [UNKNOWN_ID] * 1_001}, "task_ids must be at most 1,000; are 1,001"),
        (CANCEL, {"filter": "name:cook", "max_tasks": -1}, "max_tasks must be"),
        (CANCEL, {"filter": "name:cook", "expected_count": -1}, "expected_count must be"),
        (CANCEL, {"filter": "name:cook", "operation_id": "1"}, "operation_id must be a UUID"),
        (CANCEL, {"filter": "name:cook", "reason": "x" * 1_025}, "reason must be"),
        (bulk_operation_pb2.BulkAction(), {"filter": "name:cook"}, "action must be one of cancel, rerun"),
        (reschedule(), {"filter": "name:cook"}, "action.reschedule must have due_time or delay"),
        (reschedule(delay=span(-1)), {"filter": "name:cook"}, "action.reschedule.delay must be 0 to 3,650 days"),
        (reprioritise(10), {"filter": "name:cook"}, "action.reprioritise.priority must be 0 to 9; is 10"),
        (rerun_with(b"x" * 300_000), {"filter": "name:cook"}, "action.rerun.payload.data must be at most"),
    ],
)
async def test_what_breaks_a_rule_is_named_with_the_rule_and_stores_nothing(
    world: World, action: bulk_operation_pb2.BulkAction, asked: dict[str, Any], field: str
) -> None:
    error = await refused(world, action, **asked)

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in (error.details() or "")
    listed = await soon(world.admin.stub.ListBulkOperations(bulk_operation_pb2.ListBulkOperationsRequest()))
    assert not listed.operations


# ── rerun ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_has_failed_runs_again_with_as_many_attempts_as_at_first(world: World) -> None:
    processor = await world.processor()
    policy = retrying(1, max_attempts=2)
    task_id = await world.scheduler.enqueue(data=b"pasta", retry_policy=policy)
    await processor.fail(await processor.take_one())
    world.clock.advance(1)
    await processor.fail(await processor.take_one())
    assert (await world.scheduler.get(task_id)).state == FAILED

    assert (await done(world, RERUN, filter="state:FAILED")).done_tasks == 1

    third = await processor.take_one()
    assert (third.attempt, third.payload.data) == (3, b"pasta")
    await processor.fail(third)
    waits = await world.scheduler.get(task_id)
    assert (waits.state, waits.failed_attempts) == (SCHEDULED, 1)
    world.clock.advance(1)
    assert (await processor.succeed(await processor.take_one())).state == SUCCEEDED


@pytest.mark.parametrize("state", ["SUCCEEDED", "CANCELLED"])
async def test_what_has_succeeded_or_was_cancelled_runs_again_too(world: World, state: str) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    first = await processor.take_one()
    if state == "SUCCEEDED":
        await processor.succeed(first, b"al dente")
    else:
        await world.scheduler.cancel(task_id)
        await processor.stream.next("cancel")
        await processor.succeed(first)

    await done(world, RERUN, task_ids=[task_id])

    again = await processor.take_one()
    task = await world.scheduler.get(task_id)
    assert (again.task_id, again.attempt) == (task_id, 2)
    assert (task.state, task.result.data, task.HasField("finish_time")) == (RUNNING, b"", False)
    await processor.succeed(again)
    assert (await processor.succeed(first)).status != 1, "the attempt before has ended for good"


async def test_what_expired_before_it_was_started_runs_when_it_is_run_again(world: World) -> None:
    expires = time_at(world.clock.now_us() + 1_000_000)
    task_id = await world.scheduler.enqueue(expire_time=expires)
    await world.let_pass(5)
    assert (await world.scheduler.get(task_id)).state == FAILED

    await done(world, RERUN, filter="state:FAILED")

    processor = await world.processor()
    assert (await processor.take_one()).task_id == task_id


async def test_a_rerun_with_a_payload_makes_a_new_task_that_is_linked_to_the_old(world: World) -> None:
    processor = await world.processor()
    old = await world.scheduler.enqueue(data=b"bad", priority=7, tags=["x"], headers={"a": "b"})
    await processor.fail(await processor.take_one(), retryable=False)
    before = await world.scheduler.get(old)

    operation = await done(world, rerun_with(b"good"), filter="state:FAILED")

    again = await processor.take_one()
    assert (again.payload.data, again.attempt, again.priority) == (b"good", 1, 7)
    assert (list(again.tags), dict(again.headers)) == (["x"], {"a": "b"})
    assert again.task_id != old
    assert await world.scheduler.get(old) == before
    linked = await soon(world.admin.stub.ListTasks(admin_task_pb2.ListTasksRequest(filter=f"rerun_of:{old}")))
    assert [one.task_id for one in linked.tasks] == [again.task_id]
    assert operation.action.rerun.HasField("payload")
    assert not operation.action.rerun.payload.data, "who looks at operations need not be one who sees payloads"


# ── reschedule and reprioritise ──────────────────────────────────────────────────────────────────────────────────────


async def test_what_waits_is_pushed_at_once_when_it_is_moved_to_now(world: World) -> None:
    processor = await world.processor()
    (task_id,) = await later(world, 1)

    await done(world, reschedule(delay=span(0)), filter="name:cook")

    assert (await processor.take_one()).task_id == task_id


async def test_what_waits_is_due_when_it_was_moved_to(world: World) -> None:
    due_us = world.clock.now_us() + 3_600_000_000
    ids = await later(world, 2)

    await done(world, reschedule(due_time=time_at(due_us)), filter="name:cook")

    assert {microseconds((await world.scheduler.get(one)).due_time) for one in ids} == {due_us}


async def test_what_is_due_and_waits_is_pushed_in_the_order_of_its_new_priority(world: World) -> None:
    first, second = await world.scheduler.enqueue(), await world.scheduler.enqueue(tags=["soon"])

    assert (await done(world, reprioritise(9), filter="tag:soon")).done_tasks == 1

    processor = await world.processor(max_in_flight=1)
    one = await processor.take_one()
    assert one.task_id == second
    await processor.succeed(one)
    assert (await processor.take_one()).task_id == first


# ── delete and prune ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_finished_is_deleted_whatever_its_retention(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    await processor.succeed(await processor.take_one())
    (waiting,) = await later(world, 1)

    operation = await done(world, DELETE, task_ids=[task_id, waiting])

    assert (operation.done_tasks, operation.skipped_tasks) == (1, 1)
    with pytest.raises(grpc.aio.AioRpcError, match="does not exist"):
        await world.scheduler.get(task_id)
    assert (await world.scheduler.get(waiting)).state == SCHEDULED


async def test_pruning_by_hand_deletes_what_is_past_its_retention_and_says_whether_there_is_more(world: World) -> None:
    ids = await later(world, 3, retention=span(10))
    await done(world, CANCEL, filter="name:cook")
    await world.dispatched()

    async def prune(many: int) -> tuple[int, bool]:
        pruned = await soon(world.admin.stub.PruneTasks(admin_task_pb2.PruneTasksRequest(max_tasks=many)))
        return pruned.pruned_tasks, pruned.has_more

    assert await prune(2) == (0, False)
    world.clock.advance(10)
    assert await prune(2) == (2, True)
    assert await prune(2) == (1, False)
    assert len(ids) == 3


# ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_operation_that_is_cancelled_stops_and_what_it_has_done_stays_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await later(world, 10)
    advance = world.server._store.advance
    may_go_on, has_come = asyncio.Event(), asyncio.Event()

    async def slow(step: Any) -> Any:
        advanced = await advance(step)
        has_come.set()
        await may_go_on.wait()
        return advanced

    monkeypatch.setattr("taskq_server.store.verbs.bulk.MOST_A_BATCH", 2)
    monkeypatch.setattr(world.server._store, "advance", slow)
    operation = await start(world, CANCEL, filter="name:cook")
    await soon(has_come.wait())

    request = bulk_operation_pb2.CancelBulkOperationRequest(operation_id=operation.operation_id)
    cancelled = (await soon(world.admin.stub.CancelBulkOperation(request))).operation
    may_go_on.set()

    assert (cancelled.state, cancelled.done_tasks) == (BROKEN_OFF, 2)
    assert (await soon(world.admin.stub.CancelBulkOperation(request))).operation == cancelled
    assert (await world.scheduler.states(ids)).count(CANCELLED) == 2


async def test_an_operation_that_has_ended_cannot_be_cancelled_and_one_that_never_was_does_not_exist(
    world: World,
) -> None:
    await later(world, 1)
    operation = await done(world, CANCEL, filter="name:cook")

    async def cancel(operation_id: str) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            request = bulk_operation_pb2.CancelBulkOperationRequest(operation_id=operation_id)
            await soon(world.admin.stub.CancelBulkOperation(request))
        return raised.value

    has_ended = await cancel(operation.operation_id)
    assert has_ended.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "is succeeded; must be running" in (has_ended.details() or "")
    assert (await cancel(UNKNOWN_ID)).code() is grpc.StatusCode.NOT_FOUND


async def test_operations_are_listed_a_page_at_a_time_those_started_last_first(world: World) -> None:
    ids = [(await start(world, CANCEL, filter=f"name:cook{i}")).operation_id for i in range(3)]
    pages, token = [], ""
    while True:
        request = bulk_operation_pb2.ListBulkOperationsRequest(page_size=2, page_token=token)
        page = await soon(world.admin.stub.ListBulkOperations(request))
        pages.append([one.operation_id for one in page.operations])
        if not (token := page.next_page_token):
            break
    assert pages == [[ids[2], ids[1]], [ids[0]]]


async def test_now_in_a_filter_is_the_instant_of_the_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await later(world, 3)
    tick, may_begin = world.server.bulk.tick, asyncio.Event()

    async def held_up() -> int:
        await may_begin.wait()
        return await tick()

    monkeypatch.setattr(world.server.bulk, "tick", held_up)
    operation = await start(world, CANCEL, filter="due_time>now+30s")
    world.clock.advance(40)
    may_begin.set()

    assert (await ended(world, operation.operation_id)).done_tasks == 3


async def test_an_operation_goes_on_after_a_restart_of_the_server(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await later(world, 10)

    async def never(operation_seq: int) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(world.server._store, "next_steps", never)
    operation = await start(world, CANCEL, filter="name:cook")
    assert (await get(world, operation.operation_id)).done_tasks == 0

    await world.restart()
    world.clock.advance(6)

    assert (await ended(world, operation.operation_id)).done_tasks == 10
    assert set(await world.scheduler.states(ids)) == {CANCELLED}
