"""Cancel: of what waits, of what runs, of what is finished; and how the processor is told."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq_server.core.matching import Demand
from taskq_server.store.store import Store
from taskq_server.store.verbs.ending import Cancelled
from taskq_server.store.verbs.leasing import Leased
from taskq_server.task_id import from_text
from tests.rpc.support import (
    CANCELLED,
    LEASE_LOST,
    SCHEDULED,
    UNKNOWN_ID,
    a_result,
    keys,
    refused,
    soon,
    span,
)
from tests.rpc.world import World


async def test_a_waiting_task_that_is_cancelled_is_never_pushed(world: World) -> None:
    await world.processor()
    task_id = await world.scheduler.enqueue(delay=span(10))
    cancelled = await world.scheduler.cancel(task_id)
    assert cancelled.state == CANCELLED
    assert cancelled.HasField("finish_time")

    world.clock.advance(10)
    await world.dispatched()
    found = await world.scheduler.get(task_id)
    assert (found.state, found.attempt) == (CANCELLED, 0)


async def test_the_processor_of_a_running_task_is_told_on_its_stream_to_stop(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    assert (await world.scheduler.cancel(task_id)).state == CANCELLED

    stop = await processor.stream.next("cancel")
    assert keys(stop.attempts) == {(task.task_id, 1)}


async def test_a_look_at_the_database_that_finds_a_task_cancelled_does_not_say_so_again(world: World) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue()
    task = await processor.take_one()
    await world.scheduler.cancel(task.task_id)

    await world.server._sessions.review()  # as after its lease on life has lapsed

    assert keys((await processor.stream.next("cancel")).attempts) == {(task.task_id, 1)}
    after = await world.scheduler.enqueue()
    assert (await processor.take_one()).task_id == after, "no other cancel came before it"
    answer = await processor.heartbeat(task)
    assert (keys(answer.cancelled), keys(answer.lost)) == ({(task.task_id, 1)}, set())


async def test_a_cancel_is_repeated_by_each_heartbeat_until_the_attempt_is_no_longer_held(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    await world.scheduler.cancel(task_id)

    for _ in range(4):
        answer = await processor.heartbeat(task)
        assert keys(answer.cancelled) == {(task.task_id, 1)}
        assert not answer.lost
    assert not (await processor.heartbeat()).cancelled
    assert not (await processor.heartbeat()).cancelled


async def test_a_cancelled_attempt_keeps_its_credit_until_the_processor_lets_go(world: World) -> None:
    processor = await world.processor(max_in_flight=1)
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    await world.scheduler.cancel(task_id)
    second = await world.scheduler.enqueue()
    await processor.heartbeat(task)
    await world.dispatched()
    assert (await world.scheduler.get(second)).state == SCHEDULED

    await processor.heartbeat()
    stop = await processor.stream.next("cancel")
    assert stop.attempts
    assert (await processor.take_one()).task_id == second


async def test_a_report_of_a_cancelled_attempt_gives_its_credit_back(world: World) -> None:
    processor = await world.processor(max_in_flight=1)
    await world.scheduler.cancel(await world.scheduler.enqueue())
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    await world.scheduler.cancel(task_id)
    await processor.stream.next("cancel")
    second = await world.scheduler.enqueue()

    assert (await processor.succeed(task)).status == LEASE_LOST
    assert (await processor.take_one()).task_id == second
    assert not (await processor.heartbeat(task)).cancelled


async def test_whatever_a_cancelled_attempt_still_reports_is_lease_lost(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    await world.scheduler.cancel(task_id)
    for answer in (await processor.succeed(task, b"late"), await processor.fail(task), await processor.release(task)):
        assert (answer.status, answer.state) == (LEASE_LOST, CANCELLED)
    found = await world.scheduler.get(task_id)
    assert found.state == CANCELLED
    assert not found.HasField("result")


async def test_a_processor_may_report_that_a_task_was_cancelled(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    (answer,) = await processor.report(a_result(task, cancelled=processor_pb2.Cancelled()))
    assert answer.state == CANCELLED
    assert (await world.scheduler.get(task_id)).state == CANCELLED


async def test_a_cancel_before_the_stream_is_open_again_is_pushed_when_it_is(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    await processor.close_stream()
    await world.scheduler.cancel(task_id)
    await processor.open()
    assert keys((await processor.stream.next("cancel")).attempts) == {(task.task_id, 1)}


async def test_a_cancel_is_not_forgotten_in_a_restart(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    await world.scheduler.cancel(task_id)
    await world.restart()
    answer = await world.moved(processor).heartbeat(task)
    assert keys(answer.lost) | keys(answer.cancelled) == {(task_id, 1)}


async def test_a_cancel_twice_is_fine(world: World) -> None:
    task_id = await world.scheduler.enqueue()
    first = await world.scheduler.cancel(task_id)
    world.clock.advance(1)
    assert await world.scheduler.cancel(task_id) == first


async def test_a_finished_task_cannot_be_cancelled(world: World) -> None:
    processor = await world.processor()
    done = await world.scheduler.enqueue()
    await processor.succeed(await processor.take_one())
    failed = await world.scheduler.enqueue()
    await processor.fail(await processor.take_one(), retryable=False)

    for task_id, state in ((done, "succeeded"), (failed, "failed")):
        refusal = await refused(world.scheduler.cancel(task_id))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE")
        assert refusal.facts == {"task_id": task_id, "state": state, "allowed": "scheduled, running"}
        assert refusal.message == f"task '{task_id}' is {state}; must be scheduled or running"


async def test_an_unknown_task_cannot_be_cancelled(world: World) -> None:
    refusal = await refused(world.scheduler.cancel(UNKNOWN_ID))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
    assert refusal.facts == {"task_id": UNKNOWN_ID}


async def test_the_processor_is_told_though_whoever_cancelled_went_away_during_the_commit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    cancel, committed, go_on = Store.cancel, asyncio.Event(), asyncio.Event()

    async def cancel_slowly(self: Store, task_ids: list[bytes]) -> list[Cancelled]:
        answer = await cancel(self, task_ids)
        committed.set()
        await go_on.wait()
        return answer

    monkeypatch.setattr(Store, "cancel", cancel_slowly)
    asking = asyncio.create_task(world.server._tasks.cancel(from_text(task_id)))
    await soon(committed.wait())
    asking.cancel()
    await asyncio.wait({asking})
    go_on.set()

    assert keys((await processor.stream.next("cancel")).attempts) == {(task.task_id, 1)}


async def test_what_is_cancelled_before_the_server_has_the_answer_to_its_lease_is_never_pushed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = await world.processor(max_in_flight=1)
    lease, committed, go_on = Store.lease, asyncio.Event(), asyncio.Event()

    async def lease_slowly(self: Store, demand: Demand) -> Leased:
        answer = await lease(self, demand)
        committed.set()
        await go_on.wait()
        return answer

    monkeypatch.setattr(Store, "lease", lease_slowly)
    task_id = await world.scheduler.enqueue()
    await soon(committed.wait())
    await world.scheduler.cancel(task_id)
    go_on.set()

    other = await world.scheduler.enqueue()
    assert (await processor.take_one()).task_id == other, "and the credit is back"
    assert not world.has_pushed(task_id)
