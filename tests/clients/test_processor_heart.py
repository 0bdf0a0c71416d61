"""The heartbeat keeps the lease, whatever the handlers do. Its stub is driven by grpcio-testing."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import grpc
import grpc_testing
import pytest

from client_core.payload import encode
from processor_client import Context, Processor
from processor_client.attempt import Attempt
from processor_client.handler import of_function
from processor_client.heart import Beat, Heart
from processor_client.held import Held
from processor_client.link import Link
from taskq.v1 import processor_service_pb2 as pb
from taskq.v1.processor_service_pb2_grpc import ProcessorServiceServicer, add_ProcessorServiceServicer_to_server
from tests.clients.scripted_processor_service import Refusal, Runs, a_task, accept, at_work, in_flight, now, seconds

SERVICE = pb.DESCRIPTOR.services_by_name["ProcessorService"]
HEARTBEAT = SERVICE.methods_by_name["Heartbeat"]


class Rehearsal:
    """A heart whose server is the test."""

    def __init__(self, interval: float = 10.0) -> None:
        self.channels: list[grpc_testing.Channel] = []
        self.skipped: list[int] = []
        self.held = Held()
        self.beats: list[Beat] = []
        self.heart = Heart("s1", self.held, Link(self._open), interval, self.beats.append)

    def _open(self, skip: int) -> Any:
        self.skipped.append(skip)
        self.channels.append(grpc_testing.channel([SERVICE], grpc_testing.strict_real_time()))
        return _Closable(self.channels[-1])

    def hold(self, *tasks: pb.AssignedTask) -> list[Attempt]:
        session: Any = self
        attempts = [Attempt((t.task_id, t.attempt), t, of_function(t.name, lambda: None), session) for t in tasks]
        self.held.add(attempts)
        return attempts

    def beat(
        self, reply: pb.HeartbeatResponse | None = None, code: grpc.StatusCode = grpc.StatusCode.OK
    ) -> tuple[pb.HeartbeatRequest, float]:
        """One heartbeat: what was asked, and how long the heart waits now."""
        with futures.ThreadPoolExecutor(1) as thread:
            pause = thread.submit(self.heart.beat)
            _, request, call = self.channels[-1].take_unary_unary(HEARTBEAT)
            answer = reply or pb.HeartbeatResponse(stream=pb.STREAM_STATE_OK, server_time=now())
            call.terminate(answer, (), code, "as scripted")
            return request, pause.result(10)


class _Closable:
    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.is_closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def close(self) -> None:
        self.is_closed = True


def test_a_heartbeat_lists_all_that_is_held() -> None:
    rehearsal = Rehearsal()
    tasks = [a_task(attempt=number) for number in range(1, 4)]
    attempts = rehearsal.hold(*tasks)

    request, _ = rehearsal.beat()
    assert (request.session_id, request.draining) == ("s1", False)
    assert in_flight(request) == {(task.task_id, task.attempt) for task in tasks}

    rehearsal.held.remove([attempts[0].key])
    assert len(rehearsal.beat()[0].in_flight) == 2


def test_the_next_heartbeat_follows_at_the_interval_give_or_take_a_tenth() -> None:
    rehearsal = Rehearsal(interval=10.0)

    pauses = [rehearsal.beat()[1] for _ in range(20)]

    assert all(9.0 <= pause <= 11.0 for pause in pauses)
    assert len(set(pauses)) > 1


def resting() -> pb.HeartbeatResponse:
    return pb.HeartbeatResponse(stream=pb.STREAM_STATE_OK, server_time=now(), rest=seconds(20))


def test_a_heart_may_rest_as_long_as_nothing_is_held() -> None:
    rehearsal = Rehearsal(interval=10.0)

    assert 18.0 <= rehearsal.beat(resting())[1] <= 22.0
    rehearsal.hold(a_task())
    assert 9.0 <= rehearsal.beat(resting())[1] <= 11.0


def test_a_heart_that_rests_is_woken_by_the_first_task_and_by_no_other() -> None:
    rehearsal = Rehearsal()
    rehearsal.beat(resting())

    rehearsal.hold(a_task())
    assert rehearsal.heart._wake.is_set()
    rehearsal.heart._wake.clear()
    rehearsal.hold(a_task())
    assert not rehearsal.heart._wake.is_set()


def test_a_heart_that_was_woken_from_its_rest_beats_after_an_interval() -> None:
    rehearsal = Rehearsal(interval=0.2)
    with futures.ThreadPoolExecutor(1) as thread:

        def answer_next() -> pb.HeartbeatRequest:
            _, request, call = rehearsal.channels[-1].take_unary_unary(HEARTBEAT)
            call.terminate(resting(), (), grpc.StatusCode.OK, "")
            return request

        rehearsal.heart.start()
        thread.submit(answer_next).result(10)
        asked = thread.submit(answer_next)
        with pytest.raises(futures.TimeoutError):
            asked.result(0.6)
        (attempt,) = rehearsal.hold(a_task())

        assert in_flight(asked.result(10)) == {attempt.key}
        rehearsal.heart.close()


def test_the_answer_is_passed_on() -> None:
    rehearsal = Rehearsal()
    reply = pb.HeartbeatResponse(stream=pb.STREAM_STATE_REOPEN, drain=True, server_time=now())

    rehearsal.beat(reply)

    assert [beat.reply for beat in rehearsal.beats] == [reply]


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_a_heartbeat_that_failed_is_repeated_within_a_second(code: grpc.StatusCode) -> None:
    rehearsal = Rehearsal(interval=10.0)

    pauses = [rehearsal.beat(code=code)[1] for _ in range(6)]

    assert max(pauses) <= 1.0
    assert rehearsal.beats == []
    assert rehearsal.beat()[1] >= 9.0


def test_a_failed_heartbeat_says_why_once(caplog: pytest.LogCaptureFixture) -> None:
    rehearsal = Rehearsal()

    for _ in range(2):
        rehearsal.beat(code=grpc.StatusCode.PERMISSION_DENIED)

    said = [record.getMessage() for record in caplog.records if record.name == "taskq.processor"]
    assert said == ["heartbeat failed: PERMISSION_DENIED as scripted; trying again"]


def test_five_failures_in_a_row_open_another_channel_to_the_next_server() -> None:
    rehearsal = Rehearsal()

    for _ in range(4):
        rehearsal.beat(code=grpc.StatusCode.UNAVAILABLE)
    assert len(rehearsal.channels) == 1
    rehearsal.beat(code=grpc.StatusCode.UNAVAILABLE)

    assert len(rehearsal.channels) == 2
    assert rehearsal.skipped == [0, 1]
    rehearsal.beat()


def test_a_connection_that_swallows_a_heartbeat_is_given_up() -> None:
    rehearsal = Rehearsal()

    rehearsal.beat(code=grpc.StatusCode.DEADLINE_EXCEEDED)

    assert len(rehearsal.channels) == 2


def test_the_last_progress_of_each_attempt_travels_once() -> None:
    rehearsal = Rehearsal()
    (attempt,) = rehearsal.hold(a_task())
    context = Context(attempt.assigned, rehearsal.held)
    context.progress(0.1, "peeling")
    context.progress(7, "simmering")

    first, second = rehearsal.beat()[0], rehearsal.beat()[0]

    assert (first.in_flight[0].progress.fraction, first.in_flight[0].progress.message) == (1.0, "simmering")
    assert not second.in_flight[0].HasField("progress")


def test_news_that_did_not_arrive_travel_again_unless_there_are_newer_ones() -> None:
    rehearsal = Rehearsal()
    old, new = (Context(attempt.assigned, rehearsal.held) for attempt in rehearsal.hold(a_task(), a_task()))
    for context in (old, new):
        context.save_checkpoint("first")
        context.progress(0.1)
    original_take = rehearsal.held.take

    def take_and_then_say_more() -> Any:
        taken = original_take()
        new.save_checkpoint("second")
        new.progress(0.2)
        rehearsal.held.take = original_take  # type: ignore[method-assign]
        return taken

    rehearsal.held.take = take_and_then_say_more  # type: ignore[method-assign]
    rehearsal.beat(code=grpc.StatusCode.UNAVAILABLE)
    assert rehearsal.held.has_unsent_checkpoint((old.task_id, 1))
    request, _ = rehearsal.beat()

    by_id = {each.task_id: each for each in request.in_flight}
    assert by_id[old.task_id].checkpoint == encode("first")
    assert by_id[new.task_id].checkpoint == encode("second")
    assert by_id[new.task_id].progress.fraction == 0.2
    assert not rehearsal.held.has_unsent_checkpoint((old.task_id, 1))


def test_checkpoints_that_do_not_fit_into_one_heartbeat_travel_with_the_next_which_comes_soon() -> None:
    rehearsal = Rehearsal()
    for attempt in rehearsal.hold(*[a_task() for _ in range(10)]):
        Context(attempt.assigned, rehearsal.held).save_checkpoint(b"x" * 200_000)

    requests: list[pb.HeartbeatRequest] = []
    pause = 0.0
    while pause <= 1.0:
        request, pause = rehearsal.beat()
        requests.append(request)

    assert max(request.ByteSize() for request in requests) < 1024 * 1024
    sent = [each.task_id for request in requests for each in request.in_flight if each.HasField("checkpoint")]
    assert len(sent) == len(set(sent)) == 10


def test_a_lease_is_not_lost_for_what_a_handler_has_said() -> None:
    rehearsal = Rehearsal()
    (attempt,) = rehearsal.hold(a_task())
    Context(attempt.assigned, rehearsal.held).save_checkpoint("refused")

    _, pause = rehearsal.beat(code=grpc.StatusCode.INVALID_ARGUMENT)
    request, _ = rehearsal.beat()

    assert pause == 0.0
    assert not request.in_flight[0].HasField("checkpoint")


async def test_a_checkpoint_brings_the_next_heartbeat_forward_but_not_more_than_one_a_second() -> None:
    async def cook(ctx: Context) -> None:
        for page in range(50):
            await ctx.save_checkpoint(page)
            await asyncio.sleep(0)
        await gate.wait()

    gate = asyncio.Event()
    async with at_work(Runs("cook", cook), script={"heartbeat_interval": 20.0}) as (server, stream):
        task = a_task("cook")
        stream.send(task)
        await server.until(lambda: server.heartbeats)
        assert server.heartbeats[0].in_flight[0].checkpoint == encode(49)
        gate.set()
        await server.result_of(task)
        assert len(server.heartbeats) == 1


class _Recorder(ProcessorServiceServicer):
    """A server in threads, since the loop of these tests is held up on purpose."""

    def __init__(self, interval: float, *tasks: pb.AssignedTask) -> None:
        self.interval = interval
        self.tasks = tasks
        self.beats: list[float] = []
        self.results: list[pb.TaskResult] = []
        self.reported = threading.Event()
        self.over = threading.Event()

    def Register(self, request: Any, context: Any) -> Any:
        spans = {"lease_duration": 4, "heartbeat_interval": 1, "ack_timeout": 2, "ping_interval": 100}
        return pb.RegisterResponse(
            session_id="s1",
            server_time=now(),
            **{name: seconds(self.interval * factor) for name, factor in spans.items()},  # type: ignore[arg-type]
        )

    def StreamTasks(self, request: Any, context: Any) -> Iterator[Any]:
        yield pb.StreamTasksResponse(tasks=pb.TaskBatch(tasks=self.tasks))
        self.over.wait(20)

    def Heartbeat(self, request: Any, context: Any) -> Any:
        self.beats.append(time.monotonic())
        return pb.HeartbeatResponse(stream=pb.STREAM_STATE_OK, server_time=now())

    def ReportResult(self, request: Any, context: Any) -> Any:
        self.results += request.results
        if len(self.results) == len(self.tasks):
            self.reported.set()
        return pb.ReportResultResponse(answers=[accept(result) for result in request.results])

    def Unregister(self, request: Any, context: Any) -> Any:
        return pb.UnregisterResponse()


@contextmanager
def threaded_server(servicer: _Recorder) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    add_ProcessorServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        servicer.over.set()
        server.stop(0).wait()


def hog(for_seconds: float) -> None:
    until = time.monotonic() + for_seconds
    while time.monotonic() < until:
        pass


async def hog_on_the_loop(for_seconds: float) -> None:
    hog(for_seconds)


async def test_handlers_that_hog_the_interpreter_for_two_leases_keep_their_leases() -> None:
    interval = 0.3
    args = {"for_seconds": 8 * interval}
    recorder = _Recorder(interval, a_task("thread", args), a_task("loop", args))
    with threaded_server(recorder) as address:
        async with Processor(address, [Runs("thread", hog), Runs("loop", hog_on_the_loop)]):
            began = time.monotonic()
            assert await asyncio.to_thread(recorder.reported.wait, 20)

    beats = [began, *recorder.beats]
    gaps = [later - earlier for earlier, later in pairwise(beats)]
    assert max(gaps) < 4 * interval
    assert len(recorder.beats) >= 4
    assert all(result.HasField("succeeded") for result in recorder.results)


async def test_a_heartbeat_that_the_server_refuses_is_repeated_and_the_attempt_goes_on() -> None:
    async def cook() -> None:
        await gate.wait()

    gate = asyncio.Event()
    async with at_work(Runs("cook", cook)) as (server, stream):
        task = a_task("cook")
        stream.send(task)
        server.heartbeat_script.extend([Refusal(grpc.StatusCode.UNAVAILABLE)] * 3)
        beats = await server.beats(6)
        assert in_flight(beats[-1]) == {(task.task_id, 1)}
        gate.set()
        assert (await server.result_of(task)).HasField("succeeded")
