"""WatchTask: each task as it stands, then after each change, until all are finished."""

from __future__ import annotations

import asyncio

import grpc

from tests.rpc.support import (
    CANCELLED,
    FAILED,
    RUNNING,
    SCHEDULED,
    SUCCEEDED,
    UNKNOWN_ID,
    a_task,
    refused,
    retrying,
    span,
)
from tests.rpc.world import World


async def test_a_watched_task_is_told_at_once_and_after_each_change_until_it_is_finished(world: World) -> None:
    processor = await world.registered()
    task_id = await world.scheduler.enqueue(retry_policy=retrying(1))
    watch = world.scheduler.watch(task_id)
    assert (await watch.next()).state == SCHEDULED

    await processor.open()
    task = await processor.take_one()
    assert (await watch.next()).state == RUNNING
    await processor.fail(task)
    seen = await watch.next()
    assert (seen.state, seen.last_failure.error_type) == (SCHEDULED, "Burnt")
    world.clock.advance(1)
    await processor.succeed(await processor.take_one(), b"done")
    rest = await watch.rest()
    assert rest[-1].state == SUCCEEDED
    assert rest[-1].result.data == b"done"
    assert {task.state for task in rest[:-1]} <= {RUNNING}


async def test_finished_tasks_are_told_at_once_and_the_stream_ends(world: World) -> None:
    one = await world.scheduler.enqueue()
    await world.scheduler.cancel(one)
    assert [task.state for task in await world.scheduler.watch(one).rest()] == [CANCELLED]


async def test_many_are_watched_on_one_stream_until_the_last_is_finished(world: World) -> None:
    results = await world.scheduler.enqueue_all(*(a_task(delay=span(60)) for _ in range(1_000)))
    tasks = [result.task_id for result in results]
    watch = world.scheduler.watch(*tasks)
    assert {(await watch.next()).task_id for _ in tasks} == set(tasks)

    for task_id in tasks[:10]:
        await world.scheduler.cancel(task_id)
        seen = await watch.next()
        assert (seen.task_id, seen.state) == (task_id, CANCELLED)


async def test_an_id_that_is_named_twice_is_told_once(world: World) -> None:
    task_id = await world.scheduler.enqueue()
    await world.scheduler.cancel(task_id)
    assert len(await world.scheduler.watch(task_id, task_id).rest()) == 1


async def test_every_watcher_of_a_task_is_told(world: World) -> None:
    task_id = await world.scheduler.enqueue()
    watches = [world.scheduler.watch(task_id) for _ in range(20)]
    for watch in watches:
        assert (await watch.next()).state == SCHEDULED
    await world.scheduler.cancel(task_id)
    for watch in watches:
        assert [task.state for task in await watch.rest()] == [CANCELLED]


async def test_the_servers_own_changes_are_told_too(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue(run_timeout=span(5), retry_policy=retrying(max_attempts=1))
    await processor.take_one()
    watch = world.scheduler.watch(task_id)
    assert (await watch.next()).state == RUNNING
    await world.let_pass(5, processor)
    (seen,) = await watch.rest()
    assert (seen.state, seen.last_failure.error_type) == (FAILED, "RUN_TIMEOUT")


async def test_a_new_due_time_is_a_change(world: World) -> None:
    task_id = await world.scheduler.enqueue(delay=span(60), dedup={"key": "k", "on_conflict": 4})
    watch = world.scheduler.watch(task_id)
    before = await watch.next()
    await world.scheduler.enqueue(delay=span(90), dedup={"key": "k", "on_conflict": 4})
    seen = await watch.next()
    assert seen.due_time.seconds == before.due_time.seconds + 30


async def test_an_unknown_task_cannot_be_watched(world: World) -> None:
    task_id = await world.scheduler.enqueue()
    refusal = await refused(world.scheduler.watch(task_id, UNKNOWN_ID).rest())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
    assert refusal.facts == {"task_id": UNKNOWN_ID}


async def test_a_task_that_is_pruned_while_it_is_watched_has_been_told_as_finished(world: World) -> None:
    task_id = await world.scheduler.enqueue(retention=span(0))
    watch = world.scheduler.watch(task_id)
    await watch.next()
    await world.scheduler.cancel(task_id)
    assert (await watch.rest())[-1].state == CANCELLED
    await world.let_pass(120)
    assert (await refused(world.scheduler.get(task_id))).reason == "TASK_NOT_FOUND"


async def test_when_the_server_stops_watchers_are_told_to_watch_again(world: World) -> None:
    task_id = await world.scheduler.enqueue(delay=span(60))
    watch = world.scheduler.watch(task_id)
    await watch.next()
    stop = asyncio.create_task(world.server.stop())
    refusal = await refused(watch.rest())
    await stop
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STOPPING")
    assert refusal.retry_seconds == 1
