"""How many tasks a processor may hold: the server counts, and never relies on what the transport buffers."""

from __future__ import annotations

import asyncio

import pytest

from taskq.v1 import processor_service_pb2 as processor_pb2
from tests.rpc.support import (
    ACCEPTED,
    REREGISTER,
    RUNNING,
    RawProcessor,
    a_result,
    a_task,
    time_at,
)
from tests.rpc.world import World

MEBIBYTE = 1 << 20


async def running(world: World, task_ids: list[str]) -> int:
    return (await world.scheduler.states(task_ids)).count(RUNNING)


async def enqueued(world: World, count: int, name: str = "cook", data: bytes = b"") -> list[str]:
    results = await world.scheduler.enqueue_all(*(a_task(name, data) for _ in range(count)))
    return [result.task_id for result in results]


async def test_a_processor_never_holds_more_than_its_max_in_flight(world: World) -> None:
    processor = await world.processor(max_in_flight=3)
    tasks = await enqueued(world, 10)

    assert len(await processor.take(3)) == 3
    await world.dispatched()
    assert await running(world, tasks) == 3


async def test_a_processor_never_holds_more_of_a_name_than_that_name_allows(world: World) -> None:
    processor = await world.processor(can={"boil": 2, "fry": 0}, max_in_flight=5)
    boils, fries = await enqueued(world, 6, "boil"), await enqueued(world, 6, "fry")

    came = [one.name for one in await processor.take(5)]
    assert sorted(came) == ["boil"] * 2 + ["fry"] * 3
    await world.dispatched()
    assert await running(world, boils) == 2
    assert await running(world, fries) == 3


async def test_a_report_of_a_name_gives_the_credit_of_that_name_back(world: World) -> None:
    processor = await world.processor(can={"boil": 1, "fry": 1}, max_in_flight=2)
    await enqueued(world, 3, "boil")
    await enqueued(world, 2, "fry")
    boil, fry = sorted(await processor.take(2), key=lambda one: one.name)

    await processor.succeed(boil)
    assert (await processor.take_one()).name == "boil"
    await processor.succeed(fry)
    assert (await processor.take_one()).name == "fry"


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "released", "cancelled"])
async def test_every_kind_of_report_gives_the_credit_back(world: World, outcome: str) -> None:
    processor = await world.processor(max_in_flight=1)
    first = await world.scheduler.enqueue()
    held = await processor.take_one()
    assert held.task_id == first
    second = await world.scheduler.enqueue(priority=9)

    result = a_result(held, **{outcome: processor_pb2.Cancelled()}) if outcome == "cancelled" else None
    if outcome == "succeeded":
        result = a_result(held)
    elif outcome == "failed":
        result = a_result(held, failed=processor_pb2.Failed(error_type="Burnt"))
    elif outcome == "released":
        later = time_at(world.clock.now_us() + 1_000_000)
        result = a_result(held, released=processor_pb2.Released(due_time=later))
    assert result is not None
    (answer,) = await processor.report(result)
    assert answer.status == ACCEPTED
    assert (await processor.take_one()).task_id == second


async def test_many_reports_in_one_call_give_all_their_credits_back(world: World) -> None:
    processor = await world.processor(max_in_flight=100)
    await enqueued(world, 200)
    first = await processor.take(100)
    answers = await processor.report(*(a_result(one) for one in first))

    assert {answer.status for answer in answers} == {ACCEPTED}
    assert [answer.task_id for answer in answers] == [one.task_id for one in first]
    assert len(await processor.take(100)) == 100


async def test_a_report_that_is_repeated_gives_no_second_credit(world: World) -> None:
    processor = await world.processor(max_in_flight=2)
    tasks = await enqueued(world, 6)
    first, _ = await processor.take(2)
    for _ in range(3):
        await processor.succeed(first)

    await processor.take_one()
    await world.dispatched()
    assert await running(world, tasks) == 2


async def test_two_sessions_of_one_name_have_credits_of_their_own(world: World) -> None:
    one, other = await world.processor("twin", max_in_flight=1), await world.processor("twin", max_in_flight=1)
    assert one.session_id != other.session_id
    await enqueued(world, 2)
    assert (await one.take_one()).task_id != (await other.take_one()).task_id


LARGE = b"x" * (250 << 10)


async def large_tasks_one_by_one(world: World, count: int) -> list[str]:
    tasks: list[str] = []
    for _ in range(count):
        tasks += await enqueued(world, 1, data=LARGE)
        await world.dispatched()
    return tasks


async def bytes_in_flight(world: World, tasks: list[str]) -> int:
    return len(LARGE) * await running(world, tasks)


async def test_a_processor_that_never_reads_costs_nobody_else_anything(narrow_world: World) -> None:
    world = narrow_world
    silent = await world.processor("silent", max_in_flight=10_000)
    await large_tasks_one_by_one(world, 20)
    reader = await world.processor("reader", can=("wash",))

    for _ in range(3):
        task_id = await world.scheduler.enqueue("wash")
        task = await reader.take_one()
        assert task.task_id == task_id
        await reader.succeed(task)
        assert (await silent.heartbeat()).stream != REREGISTER


async def test_a_processor_that_never_reads_is_given_no_more_than_about_a_mebibyte(narrow_world: World) -> None:
    # what falls due bit by bit: one write under way, a mebibyte that waits, and what the socket has taken
    world = narrow_world
    await world.processor("silent", max_in_flight=10_000)
    tasks = await large_tasks_one_by_one(world, 30)
    assert await bytes_in_flight(world, tasks) <= 3 * MEBIBYTE


async def test_a_processor_that_never_reads_is_not_given_a_whole_backlog_at_once(narrow_world: World) -> None:
    world = narrow_world
    tasks: list[str] = []
    for _ in range(3):
        tasks += await enqueued(world, 10, data=LARGE)
    await world.processor("silent", max_in_flight=10_000)
    await world.dispatched()
    assert await bytes_in_flight(world, tasks) <= 3 * MEBIBYTE


async def test_a_processor_that_reads_again_gets_everything(narrow_world: World) -> None:
    world = narrow_world
    slow = await world.processor("slow", max_in_flight=10_000)
    tasks = await large_tasks_one_by_one(world, 20)
    assert {one.task_id for one in await slow.take(20)} == set(tasks)


async def test_what_is_cancelled_before_it_was_written_frees_its_room(narrow_world: World) -> None:
    # given a processor that does not read, and whose outbox is full
    world = narrow_world
    await world.processor("slow", max_in_flight=10_000)
    tasks = await large_tasks_one_by_one(world, 12)
    pushed = await running(world, tasks)
    assert 2 < pushed < 12

    # when all that waits in it is cancelled, then as much again is leased
    for task_id in tasks:
        await world.scheduler.cancel(task_id)
    again = await large_tasks_one_by_one(world, 12)
    assert await running(world, again) >= pushed - 2


@pytest.mark.parametrize("where", ["headers", "metadata", "both"])
async def test_whatever_a_task_carries_a_batch_of_them_can_be_sent(world: World, where: str) -> None:
    words = {f"{i:03}": "漢" * 4096 for i in range(64)}
    for _ in range(8):
        new = a_task()
        if where != "metadata":
            new.headers.update(words)
        if where != "headers":
            new.payload.metadata.update(words)
        await world.scheduler.enqueue_all(new)
    processor = await world.processor()

    assert len(await processor.take(8)) == 8


async def test_a_burst_for_many_processors_gives_each_no_more_than_its_credits(world: World) -> None:
    crowd: list[RawProcessor] = await asyncio.gather(*(world.processor(f"p{i}", max_in_flight=i + 1) for i in range(5)))
    tasks = await enqueued(world, 100)

    for i, processor in enumerate(crowd):
        await processor.take(i + 1)
    await world.dispatched()
    assert await running(world, tasks) == 1 + 2 + 3 + 4 + 5
