"""Whatever ends the task stream, tasks come again; whatever it brings twice runs once."""

import asyncio
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from client_core.errors import TaskqError
from processor_client import Context, Processor, reporter, streams
from processor_client.attempt import Attempt
from processor_client.handler import of_function
from processor_client.heart import Beat
from processor_client.held import Held
from processor_client.inbox import Inbox
from processor_client.server_clock import ServerClock
from processor_client.streams import Watchdog
from taskq.v1 import processor_service_pb2 as pb
from tests.clients.scripted_processor_service import (
    Refusal,
    Runs,
    Stream,
    a_task,
    at_work,
    in_flight,
    keys,
    now,
    ref,
    scripted_server,
)


async def noop() -> None: ...


@pytest.fixture(autouse=True)
def quick_reconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(streams, "MAX_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(streams, "SETTLE_SECONDS", 0.0)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.NOT_FOUND])
@pytest.mark.parametrize("after_a_frame", [True, False])
async def test_the_stream_is_opened_again_after_every_status(code: grpc.StatusCode, after_a_frame: bool) -> None:
    async with at_work(Runs("noop", noop)) as (server, stream):
        if after_a_frame:
            stream.ping()
        stream.end(code)
        again = await server.stream(2)
        assert again.session_id == stream.session_id

        task = a_task()
        again.send(task)
        assert (await server.result_of(task)).HasField("succeeded")


async def test_the_stream_is_opened_again_however_often_it_ends() -> None:
    async with at_work(Runs("noop", noop)) as (server, _):
        # Twice as often as it takes for the channel to be opened anew.
        for number in range(1, 11):
            (await server.stream(number)).end(grpc.StatusCode.CANCELLED)
        task = a_task()
        (await server.stream(11)).send(task)
        await server.result_of(task)


async def test_a_session_that_the_stream_says_is_gone_is_replaced() -> None:
    async with at_work(Runs("noop", noop)) as (server, stream):
        stream.end(grpc.StatusCode.NOT_FOUND)
        again = await server.stream(2)

        assert (again.session_id, len(server.registrations)) == ("session-2", 2)


async def test_a_stream_on_which_nothing_comes_is_given_up() -> None:
    async with at_work(Runs("noop", noop), script={"ping_interval": 0.1}) as (server, stream):
        await server.stream(2)
        await server.until(lambda: not stream.is_open)


async def test_pings_keep_a_stream() -> None:
    async with at_work(Runs("noop", noop), script={"ping_interval": 0.1}) as (server, stream):
        for _ in range(12):
            stream.ping()
            await server.beats(1)

        assert len(server.streams) == 1


async def test_a_loop_that_was_held_up_does_not_take_its_own_silence_for_the_servers() -> None:
    bitten: list[bool] = []
    watchdog = Watchdog(0.02, lambda: bitten.append(True))
    loop = asyncio.get_running_loop()
    held_up_until = loop.time() + 0.2
    while loop.time() < held_up_until:
        pass
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert not bitten
    watchdog.stop()


async def test_a_drained_stream_is_replaced_before_it_ends() -> None:
    async with at_work(Runs("noop", noop)) as (server, stream):
        stream.say(drain=pb.Drain(reason="rotation"))
        again = await server.stream(2)
        assert stream.is_open

        first, second = a_task(), a_task()
        stream.send(first)
        again.send(second)
        await server.result_of(first)
        await server.result_of(second)

        stream.say(superseded=pb.Superseded())
        stream.end()
        await server.until(lambda: not stream.is_open)
        await server.beats(3)
        assert len(server.streams) == 2


async def test_a_stream_that_somebody_else_has_taken_over_is_not_taken_back() -> None:
    async with at_work(Runs("noop", noop)) as (server, stream):
        stream.say(superseded=pb.Superseded())
        stream.end()
        await server.beats(5)
        assert len(server.streams) == 1

        server.heartbeat_script.append(pb.HeartbeatResponse(stream=pb.STREAM_STATE_REOPEN, server_time=now()))
        await server.stream(2)


async def test_a_stream_that_the_server_has_lost_is_opened_again() -> None:
    async with at_work(Runs("noop", noop)) as (server, stream):
        server.heartbeat_script.append(pb.HeartbeatResponse(stream=pb.STREAM_STATE_REOPEN, server_time=now()))
        task = a_task()
        (await server.stream(2)).send(task)
        await server.result_of(task)
        await server.until(lambda: not stream.is_open)


async def test_a_report_that_was_swallowed_is_sent_again_when_the_session_has_lost_its_server() -> None:
    async with at_work(Runs("noop", noop)) as (server, stream):
        server.answering.clear()
        task = a_task()
        stream.send(task)
        await server.beats(3)
        server.answering = asyncio.Event()  # who has come before waits for ever
        server.answering.set()

        server.heartbeat_script.append(pb.HeartbeatResponse(stream=pb.STREAM_STATE_REOPEN, server_time=now()))

        async with asyncio.timeout(reporter.TIMEOUT_SECONDS / 2):  # it did not wait for that
            await server.result_of(task)
        await server.stream(2)


async def test_a_kind_of_event_from_a_newer_server_is_ignored() -> None:
    async with at_work(Runs("noop", noop)) as (server, stream):
        unknown = pb.StreamTasksResponse.FromString(b"\xfa\x01\x02hi")
        assert unknown.WhichOneof("event") is None
        stream.script.put_nowait(unknown)
        task = a_task()
        stream.send(task)
        await server.result_of(task)


async def test_what_comes_again_after_a_reconnect_runs_once() -> None:
    async def cook(ctx: Context) -> None:
        runs.append(ctx.task_id)
        await gate.wait()

    runs: list[str] = []
    gate = asyncio.Event()
    async with at_work(Runs("cook", cook)) as (server, stream):
        task = a_task("cook")
        stream.send(task)
        await server.until(lambda: server.heartbeats and in_flight(server.heartbeats[-1]) == keys([task]))
        stream.end(grpc.StatusCode.UNAVAILABLE)
        again = await server.stream(2)
        again.send(task, task)
        await server.beats()
        gate.set()
        await server.result_of(task)
        await server.until(lambda: not server.heartbeats[-1].in_flight)

    assert (runs, len(server.results)) == ([task.task_id], 1)


async def test_what_one_message_brings_twice_runs_once() -> None:
    async def cook() -> None:
        begun.append(1)

    begun: list[int] = []
    async with at_work(Runs("cook", cook)) as (server, stream):
        task, last = a_task("cook"), a_task("cook")
        stream.send(task, task)
        stream.send(last)
        await server.result_of(task)
        await server.result_of(last)

    assert len(begun) == 2


async def test_a_later_attempt_of_a_task_that_is_held_runs_too() -> None:
    async def cook(ctx: Context) -> None:
        runs.append(ctx.attempt)
        await gate.wait()

    runs: list[int] = []
    gate = asyncio.Event()
    async with at_work(Runs("cook", cook)) as (server, stream):
        first = a_task("cook")
        second = a_task("cook", attempt=2, task_id=first.task_id)
        stream.send(first, second)
        await server.until(lambda: server.heartbeats and len(server.heartbeats[-1].in_flight) == 2)
        gate.set()
        await server.result_of(second)

    assert runs == [1, 2]


async def stopped_by(stop: Any, *, thread: bool = False) -> tuple[list[str], list[pb.TaskResult]]:
    """Runs a handler that waits for its end, has it stopped, and answers what it saw and what was reported."""

    async def wait(ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(f"stopped {ctx.cancelled.is_set()}")

    def wait_in_thread(ctx: Context) -> None:
        ctx.cancelled.wait(10)
        seen.append(f"stopped {ctx.cancelled.is_set()}")
        ctx.check_cancelled()

    seen: list[str] = []
    async with at_work(Runs("wait", wait_in_thread if thread else wait)) as (server, stream):
        task = a_task("wait")
        stream.send(task)
        await server.until(lambda: server.heartbeats and server.heartbeats[-1].in_flight)
        stop(server, stream, task)
        await server.until(lambda: not server.heartbeats[-1].in_flight)
        await server.until(lambda: seen)
        return seen, server.results


@pytest.mark.parametrize("thread", [True, False])
@pytest.mark.parametrize("by_heartbeat", [True, False])
async def test_a_cancelled_attempt_is_stopped_and_reported_so(thread: bool, by_heartbeat: bool) -> None:
    def stop(server: Any, stream: Stream, task: pb.AssignedTask) -> None:
        if by_heartbeat:
            server.heartbeat_script.append(
                pb.HeartbeatResponse(stream=pb.STREAM_STATE_OK, cancelled=[ref(task)], server_time=now())
            )
        else:
            stream.cancel(task)

    seen, results = await stopped_by(stop, thread=thread)

    assert seen == ["stopped True"]
    assert [result.WhichOneof("outcome") for result in results] == ["cancelled"]


@pytest.mark.parametrize("thread", [True, False])
async def test_a_lost_attempt_is_stopped_and_nothing_is_reported(thread: bool) -> None:
    def stop(server: Any, stream: Stream, task: pb.AssignedTask) -> None:
        server.heartbeat_script.append(
            pb.HeartbeatResponse(stream=pb.STREAM_STATE_OK, lost=[ref(task)], server_time=now())
        )

    seen, results = await stopped_by(stop, thread=thread)

    assert (seen, results) == (["stopped True"], [])


async def test_a_cancel_of_what_is_not_held_is_ignored() -> None:
    async with at_work(Runs("noop", noop)) as (server, stream):
        stream.cancel(a_task())
        task = a_task()
        stream.send(task)
        await server.result_of(task)


async def test_what_is_cancelled_before_it_starts_never_starts() -> None:
    async def cook(ctx: Context) -> None:
        runs.append(ctx.task_id)
        await gate.wait()

    runs: list[str] = []
    gate = asyncio.Event()
    async with at_work(Runs("cook", cook), concurrency=1) as (server, stream):
        first, second = a_task("cook"), a_task("cook")
        stream.send(first, second)
        stream.cancel(second)
        assert (await server.result_of(second)).HasField("cancelled")
        gate.set()
        await server.result_of(first)

    assert runs == [first.task_id]


async def test_an_accepted_report_outlives_a_heartbeat_that_no_longer_knew_the_lease() -> None:
    async with at_work(Runs("noop", noop)) as (server, stream):
        server.answering.clear()
        task = a_task()
        stream.send(task)
        lost = pb.HeartbeatResponse(stream=pb.STREAM_STATE_OK, lost=[ref(task)], server_time=now())
        server.heartbeat_script.extend([lost] * 3)
        assert in_flight((await server.beats(5))[-1]) == keys([task])
        server.answering.set()

        assert (await server.result_of(task)).HasField("succeeded")


async def test_a_processor_whose_session_has_ended_stops_what_runs_and_registers_anew() -> None:
    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    stopped = asyncio.Event()
    async with at_work(Runs("wait", wait), Runs("noop", noop)) as (server, stream):
        running = a_task("wait")
        stream.send(running)
        await server.until(lambda: server.heartbeats and server.heartbeats[-1].in_flight)
        server.heartbeat_script.append(pb.HeartbeatResponse(stream=pb.STREAM_STATE_REREGISTER))
        again = await server.stream(2)
        await asyncio.wait_for(stopped.wait(), 10)
        task = a_task()
        again.send(task)
        await server.result_of(task)
        await server.until(lambda: server.heartbeats[-1].session_id == "session-2")

    assert {request.session_id for request in server.requests} == {"session-2"}
    assert running.task_id not in {result.task_id for result in server.results}


async def test_registration_is_tried_until_the_server_answers() -> None:
    async with scripted_server() as server:
        server.register_script.extend([Refusal(grpc.StatusCode.UNAVAILABLE)] * 2)
        async with Processor(server.address, [Runs("noop", noop)], name="oven-1", labels={"zone": "eu"}, build_id="7"):
            request = server.registrations[-1]

    assert len(server.registrations) == 3
    assert (request.processor_name, request.labels, request.build_id) == ("oven-1", {"zone": "eu"}, "7")
    assert [each.name for each in request.capabilities] == ["noop"]


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED"])
async def test_a_registration_that_no_waiting_mends_is_an_error_at_once(code: str) -> None:
    async with scripted_server() as server:
        server.register_script.append(Refusal(grpc.StatusCode[code]))
        with pytest.raises(TaskqError) as caught:
            await Processor(server.address, [Runs("noop", noop)]).run_async()

    assert caught.value.code is grpc.StatusCode[code]


async def test_a_handler_that_runs_too_long_is_stopped_and_the_server_says_what_it_was() -> None:
    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    stopped = asyncio.Event()
    async with at_work(Runs("wait", wait)) as (server, stream):
        task = a_task("wait")
        task.run_timeout.FromMilliseconds(50)
        stream.send(task)
        await asyncio.wait_for(stopped.wait(), 10)
        # It is held, and nothing is said of it, until the server has spoken.
        assert in_flight((await server.beats(3))[-1]) == keys([task])
        assert server.results == []

        lost = pb.HeartbeatResponse(stream=pb.STREAM_STATE_OK, lost=[ref(task)], server_time=now())
        server.heartbeat_script.append(lost)
        await server.until(lambda: not server.heartbeats[-1].in_flight)

    assert server.results == []


def test_tasks_that_lay_unread_while_a_handler_held_up_the_loop_are_left_to_others() -> None:
    given: list[Attempt] = []
    session: Any = SimpleNamespace(held=Held(), draining=False)
    runner: Any = SimpleNamespace(put=given.extend)
    handlers = {"noop": of_function("noop", noop)}
    inbox = Inbox(session, handlers, runner, ServerClock(), timedelta(seconds=15), lambda: None)
    stale, fresh = a_task(), a_task()
    stale.lease_time.CopyFrom(now(-60))

    def bring(task: pb.AssignedTask) -> None:
        inbox.on_event("tasks", pb.StreamTasksResponse(tasks=pb.TaskBatch(tasks=[task])))

    reply = pb.HeartbeatResponse(stream=pb.STREAM_STATE_OK, server_time=now())
    # This answer was handled a minute after its heartbeat was sent.
    inbox.on_beat(Beat(reply, time.monotonic() - 60))
    bring(stale)
    bring(fresh)

    assert [attempt.key for attempt in given] == [(fresh.task_id, 1)]


def test_a_server_whose_clocks_differ_is_still_served() -> None:
    given: list[Attempt] = []
    session: Any = SimpleNamespace(held=Held(), draining=False)
    runner: Any = SimpleNamespace(put=given.extend)
    inbox = Inbox(session, {}, runner, ServerClock(), timedelta(seconds=15), lambda: None)
    session.release = lambda attempts, due_time=None: None
    task = a_task()
    task.lease_time.CopyFrom(now(-600))

    inbox.on_event("tasks", pb.StreamTasksResponse(tasks=pb.TaskBatch(tasks=[task])))

    assert len(given) == 1
