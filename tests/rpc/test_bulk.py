"""The same done to many tasks, over the wire: what is matched, what is left out, and how an operation lives."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from taskq.v1 import bulk_operation_pb2
from tests.rpc.operations import (
    BROKEN_OFF,
    CANCEL,
    DONE,
    RERUN,
    done,
    ended,
    get,
    later,
    refused,
    reprioritise,
    rerun_with,
    reschedule,
    start,
)
from tests.rpc.support import CANCELLED, SCHEDULED, UNKNOWN_ID, soon, span
from tests.rpc.world import World

ID = "01935000-0000-7000-8000-00000000000a"


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
