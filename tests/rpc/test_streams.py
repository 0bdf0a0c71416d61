"""The stream of a session: pings, the one live stream, and what becomes of tasks when it ends."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq_server.core.errors import StorageFull
from taskq_server.rpc import processor_service
from taskq_server.rpc import server as rpc_server
from taskq_server.store.store import Store
from tests.conftest import StartServer
from tests.rpc.support import (
    OK,
    REOPEN,
    RUNNING,
    SCHEDULED,
    SUCCEEDED,
    UNKNOWN_ID,
    RawProcessor,
    a_task,
    refused,
    soon,
)
from tests.rpc.world import World

QUARTER_MEBIBYTE = b"x" * (1 << 18)


async def fill(world: World, count: int = 12) -> list[str]:
    """Enqueues until the transport of a processor that does not read takes no more."""
    tasks = []
    for _ in range(count):
        tasks.append(await world.scheduler.enqueue(data=QUARTER_MEBIBYTE))
        await world.dispatched()
    return tasks


async def test_a_quiet_stream_carries_pings_with_the_servers_time(world: World) -> None:
    await world.restart(ping_interval=0.1)
    processor = await world.processor()
    assert processor.registered.ping_interval.ToMilliseconds() == 100
    for _ in range(3):
        ping = await processor.stream.next("ping")
        assert ping.server_time.ToMicroseconds() == world.clock.now_us()


async def test_the_first_frame_is_a_ping_so_that_the_processor_knows_that_the_stream_is_open(world: World) -> None:
    processor = await world.registered()
    call = processor.stub.StreamTasks(processor_pb2.StreamTasksRequest(session_id=processor.session_id))
    assert (await soon(call.read())).WhichOneof("event") == "ping"


async def test_a_new_stream_supersedes_the_old_one_which_is_told_so_and_ends(world: World) -> None:
    processor = await world.processor()
    old = processor.stream
    new = await processor.open()

    assert await old.next("superseded") == processor_pb2.Superseded()
    assert await old.read() is None
    task_id = await world.scheduler.enqueue()
    assert (await processor.take_one()).task_id == task_id
    assert new is processor.stream


async def test_a_stream_of_an_unknown_session_is_refused(world: World) -> None:
    stranger = RawProcessor(world.server.address)
    stream = stranger.stub.StreamTasks(processor_pb2.StreamTasksRequest(session_id=UNKNOWN_ID))
    refusal = await refused(stream.read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    assert refusal.facts == {"session_id": UNKNOWN_ID}
    await stranger.disconnect()


async def test_running_tasks_outlive_the_stream(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    await processor.close_stream()
    answer = await processor.heartbeat(task)

    assert not answer.lost
    assert (await world.scheduler.get(task_id)).state == RUNNING
    await processor.succeed(task)
    assert (await world.scheduler.get(task_id)).state == SUCCEEDED


async def test_credits_in_use_still_count_on_a_new_stream(world: World) -> None:
    processor = await world.processor(max_in_flight=2)
    first, _ = await world.scheduler.enqueue_all(a_task(), a_task())
    held = await processor.take(2)
    third = await world.scheduler.enqueue()
    await processor.open()

    await world.dispatched()
    assert (await world.scheduler.get(third)).state == SCHEDULED
    await processor.succeed(held[0])
    assert held[0].task_id == first.task_id
    assert (await processor.take_one()).task_id == third


async def test_a_stream_that_is_reopened_takes_over_what_was_not_written_yet(narrow_world: World) -> None:
    world = narrow_world
    # given a processor that does not read, whose outbox is full
    processor = await world.processor(max_in_flight=100)
    tasks = await fill(world)
    old = processor.stream
    pushed = [one for one in tasks if (await world.scheduler.get(one)).state == RUNNING]

    # when it opens another stream, then each task comes on one of the two, with the same attempt
    await processor.open()
    await old.ended()
    came = list(old.tasks)
    came += await processor.take(len(tasks) - len(came))
    assert {one.task_id for one in came} == set(tasks)
    assert {one.attempt for one in came} == {1}
    assert pushed


async def test_what_was_not_written_is_released_when_the_stream_ends_and_goes_to_another(narrow_world: World) -> None:
    world = narrow_world
    silent = await world.processor("silent", max_in_flight=100)
    tasks = await fill(world)
    other = await world.processor("other", max_in_flight=100)
    await silent.close_stream()

    # then the unwritten ones come at once, and what may have been written after heartbeats without it
    first = await other.take_one()
    assert first.task_id in tasks
    assert first.failed_attempts == 0
    await world.let_arrive()
    await silent.heartbeat()
    await silent.heartbeat()
    rest = await other.take(len(tasks) - 1)
    assert {one.task_id for one in [first, *rest]} == set(tasks)
    assert {one.failed_attempts for one in rest} == {0}


async def test_what_could_not_be_given_back_is_found_by_heartbeats(
    narrow_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = narrow_world
    silent = await world.processor("silent", max_in_flight=100)
    tasks = await fill(world)
    tried = asyncio.Event()

    async def fail(self: Store, endings: object) -> None:
        tried.set()
        raise StorageFull

    with monkeypatch.context() as disk_full:
        disk_full.setattr(Store, "end", fail)
        await silent.close_stream()
        await soon(tried.wait())
    other = await world.processor("other", max_in_flight=100)

    await world.let_arrive()
    await silent.heartbeat()
    await silent.heartbeat()
    assert {one.task_id for one in await other.take(len(tasks))} == set(tasks)


async def test_a_processor_that_reconnects_over_a_dead_stream_is_not_left_deaf(narrow_world: World) -> None:
    world = narrow_world
    # given a stream that is stuck in a write of a whole mebibyte
    processor = await world.processor(max_in_flight=100)
    tasks = await fill(world)
    old = processor.stream

    # when another stream takes over and the old one is torn down without having been read
    await processor.open()
    old.call.cancel()

    # then new tasks come, and after the ack_timeout those that went down with the old stream
    fresh = await world.scheduler.enqueue()
    got = [await processor.take_one()]
    while got[-1].task_id != fresh:
        got.append(await processor.take_one())
    assert len(got) < len(tasks) + 1
    await world.let_arrive()
    for _ in range(2):
        assert (await processor.heartbeat(*got)).stream == OK
    got += await processor.take(len(tasks) + 1 - len(got))
    assert {one.task_id for one in got} == {*tasks, fresh}


async def test_a_closed_stream_is_told_by_the_heartbeat_until_it_is_open_again(world: World) -> None:
    processor = await world.processor()
    assert (await processor.heartbeat()).stream == OK
    await processor.close_stream()
    while (await processor.heartbeat()).stream != REOPEN:
        pass
    await processor.open()
    assert (await processor.heartbeat()).stream == OK


async def test_what_is_leased_while_its_stream_closes_goes_to_another_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a lease for a processor whose stream closes while the lease is committed
    leaving = await world.processor("leaving")
    lease = Store.lease
    closed = asyncio.Event()

    async def lease_slowly(self: Store, demand: object) -> object:
        leased = await lease(self, demand)  # type: ignore[arg-type]
        if leased.assignments and not closed.is_set():
            await leaving.close_stream()
            while (await leaving.heartbeat()).stream != REOPEN:
                pass
            await staying.open()
            closed.set()
        return leased

    staying = await world.registered("staying")
    monkeypatch.setattr(Store, "lease", lease_slowly)
    task_id = await world.scheduler.enqueue()
    await soon(closed.wait())

    task = await staying.take_one()
    assert (task.task_id, task.attempt, task.failed_attempts) == (task_id, 2, 0)


async def test_a_stream_that_nobody_reads_is_given_up_and_what_waits_goes_to_another(
    narrow_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = narrow_world
    monkeypatch.setattr(rpc_server, "WRITE_SECONDS", 0.2)
    silent = await world.processor("silent", max_in_flight=100)
    tasks = await fill(world)
    other = await world.processor("other", max_in_flight=100)

    # when a write has taken too long, then the stream is closed, though no heartbeat has missed a task on it
    held = [processor_pb2.AssignedTask(task_id=task_id, attempt=1) for task_id in tasks]
    while (await silent.heartbeat(*held)).stream != REOPEN:
        pass

    # then what was not written comes at once, and the rest when heartbeats miss it
    await world.let_arrive()
    await silent.heartbeat()
    await silent.heartbeat()
    assert {one.task_id for one in await other.take(len(tasks))} == set(tasks)


async def test_an_old_stream_is_renewed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor_service, "STREAM_AGE_SECONDS", 0)
    await world.restart(ping_interval=0.1)
    processor = await world.processor()
    drain = await processor.stream.next("drain")
    assert (drain.reason, drain.processor) == ("the stream is renewed", False)
    assert await processor.stream.read() is None


async def test_an_unfinished_stream_does_not_keep_the_server_from_stopping(start_server: StartServer) -> None:
    server = await start_server()
    processor = RawProcessor(server.address)
    await processor.register("oven", ["cook"], 1, {})
    stream = await processor.open()
    stop = asyncio.create_task(server.stop())
    drain = await stream.next("drain")
    assert not drain.processor
    assert drain.reason == "the server is stopping"
    assert await stream.read() is None
    await soon(stop)
    await processor.disconnect()
