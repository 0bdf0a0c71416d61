"""How a server stops: health first, then streams, then calls; and nothing is lost."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server.rpc.server import RpcServer
from taskq_server.sessions import Sessions
from taskq_server.store.store import Store
from tests.rpc.support import REOPEN, RUNNING, SCHEDULED, SUCCEEDED, a_task, refused, soon
from tests.rpc.world import World

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize(
    "service", ["", "taskq.v1.SchedulerService", "taskq.v1.ProcessorService", "taskq.v1.AdminService"]
)
async def test_a_server_says_that_it_serves_and_when_it_stops_that_it_does_not(world: World, service: str) -> None:
    health = health_pb2_grpc.HealthStub(world.channel())
    request = health_pb2.HealthCheckRequest(service=service)
    assert (await soon(health.Check(request))).status == SERVING
    watch = health.Watch(request)
    assert (await soon(watch.read())).status == SERVING
    stop = asyncio.create_task(world.server.stop())
    assert (await soon(watch.read())).status == NOT_SERVING
    await stop


async def test_who_watches_the_health_does_not_hold_up_the_stop(world: World) -> None:
    await world.restart(stop_grace=LONG_GRACE)
    watch = health_pb2_grpc.HealthStub(world.channel()).Watch(health_pb2.HealthCheckRequest())
    assert (await soon(watch.read())).status == SERVING
    await soon(world.server.stop())
    assert (await soon(watch.read())).status == NOT_SERVING
    assert await soon(watch.code()) == grpc.StatusCode.UNAVAILABLE


async def test_health_is_the_first_thing_that_changes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a stop that is held up before streams are drained
    await world.processor()
    health = health_pb2_grpc.HealthStub(world.channel())
    stop_serving, go_on = RpcServer.stop_serving, asyncio.Event()

    async def stop_serving_slowly(self: RpcServer) -> None:
        await stop_serving(self)
        await go_on.wait()

    drained: list[str] = []
    monkeypatch.setattr(RpcServer, "stop_serving", stop_serving_slowly)
    monkeypatch.setattr(Sessions, "drain_streams", lambda self, why: drained.append(why))
    stop = asyncio.create_task(world.server.stop())
    while (await soon(health.Check(health_pb2.HealthCheckRequest()))).status == SERVING:
        pass

    # then it has said so by then, and still takes calls
    assert not drained
    assert await world.scheduler.enqueue()
    go_on.set()
    await soon(stop)
    assert drained


async def test_streams_are_told_to_open_another_and_running_tasks_are_kept(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    stop = asyncio.create_task(world.server.stop())
    drain = await processor.stream.next("drain")
    assert (drain.reason, drain.processor) == ("the server is stopping", False)
    await processor.stream.ended()
    assert await processor.stream.call.code() == grpc.StatusCode.OK
    await stop

    await world.begin()
    processor = world.moved(processor)
    answer = await processor.heartbeat(task)
    assert answer.stream == REOPEN and not answer.lost
    await processor.succeed(task)
    assert (await world.scheduler.get(task_id)).state == SUCCEEDED


async def test_while_the_server_stops_what_brings_work_is_refused_and_what_ends_work_is_taken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given calls that have reached the server just before it stops
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    world.server._tasks.stop()
    world.server._processors.stop()

    for call in (
        world.scheduler.enqueue(),
        processor.register("late", ["cook"], 1, {}),
        processor.stub.StreamTasks(processor_pb2.StreamTasksRequest(session_id=processor.session_id)).read(),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STOPPING")
        assert refusal.domain == "taskq.v1"
        assert refusal.retry_seconds == 1
    await processor.heartbeat(task)
    await processor.succeed(task, b"last")
    assert (await world.scheduler.get(task_id)).result.data == b"last"


async def test_a_call_that_comes_after_the_stop_has_begun_is_refused(world: World) -> None:
    """As unavailable; or, when gRPC had it already and gives it to nobody any more, as cancelled, which our clients
    take for the same."""
    # given a connection, and a stop that waits for a call which is still under way
    await world.restart(stop_grace=LONG_GRACE)
    watch = health_pb2_grpc.HealthStub(world.channel()).Watch(health_pb2.HealthCheckRequest())
    await soon(watch.read())
    await world.scheduler.enqueue()
    stop = asyncio.create_task(world.server.stop())
    await soon(watch.read())
    refusal = await refused(world.scheduler.enqueue())
    assert refusal.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    watch.cancel()
    await soon(stop)


LONG_GRACE = 10.0


async def test_an_enqueue_under_way_when_the_server_stops_is_answered_and_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.restart(stop_grace=LONG_GRACE)
    arrived, go_on = asyncio.Event(), asyncio.Event()
    add = Store.add

    async def add_slowly(self: Store, tasks: list[object]) -> object:
        arrived.set()
        await go_on.wait()
        return await add(self, tasks)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "add", add_slowly)
    call = asyncio.ensure_future(world.scheduler.stub.Enqueue(scheduler_pb2.EnqueueRequest(tasks=[a_task()])))
    await soon(arrived.wait())
    stop = asyncio.create_task(world.server.stop())
    go_on.set()
    response = await soon(call)
    await soon(stop)
    await world.begin()
    assert (await world.scheduler.get(response.results[0].task_id)).state == SCHEDULED


async def test_a_stop_ends_within_the_grace_though_a_call_never_does(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.restart(stop_grace=0.2)

    async def never(self: Store, task_ids: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Store, "get", never)
    call = asyncio.ensure_future(world.scheduler.get("01935000-0000-7000-8000-000000000000"))
    await world.scheduler.enqueue()
    await soon(world.server.stop())
    refusal = await refused(call)
    assert refusal.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_a_stream_that_is_being_opened_when_the_server_stops_does_not_hold_up_the_stop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a processor whose session is still looked up when all streams are drained
    await world.restart(stop_grace=LONG_GRACE)
    processor = await world.registered()
    arrived, go_on = asyncio.Event(), asyncio.Event()
    take, drain_streams = Sessions.take, Sessions.drain_streams

    async def take_slowly(self: Sessions, session_id: bytes) -> object:
        arrived.set()
        await go_on.wait()
        return await take(self, session_id)

    def drain_and_go_on(self: Sessions, why: str) -> None:
        drain_streams(self, why)
        go_on.set()

    monkeypatch.setattr(Sessions, "take", take_slowly)
    monkeypatch.setattr(Sessions, "drain_streams", drain_and_go_on)
    request = processor_pb2.StreamTasksRequest(session_id=processor.session_id)
    stream = processor.stub.StreamTasks(request)
    reading = asyncio.ensure_future(stream.read())
    await soon(arrived.wait())

    async with asyncio.timeout(LONG_GRACE / 2):
        await world.server.stop()

    refusal = await refused(reading)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STOPPING")


async def test_a_processor_that_never_reads_does_not_hold_up_the_stop(narrow_world: World) -> None:
    world = narrow_world
    await world.processor("silent", max_in_flight=100)
    tasks = [await world.scheduler.enqueue(data=b"x" * (250 << 10)) for _ in range(10)]
    await world.dispatched()
    await soon(world.server.stop())
    await world.begin()
    states = await world.scheduler.states(tasks)
    assert set(states) == {RUNNING, SCHEDULED}  # what may have been written is kept, the rest is given back
    assert states.count(RUNNING) <= 4  # a mebibyte
