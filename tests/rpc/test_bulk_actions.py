"""What may be done to many tasks, over the wire, and what each then does."""

from __future__ import annotations

import grpc
import pytest

from taskq.v1 import admin_task_pb2
from tests.rpc.operations import CANCEL, DELETE, RERUN, done, later, reprioritise, rerun_with, reschedule
from tests.rpc.support import FAILED, RUNNING, SCHEDULED, SUCCEEDED, microseconds, retrying, soon, span, time_at
from tests.rpc.world import World

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
