"""A processor that is told to stop finishes what it can, gives back the rest, and ends."""

import asyncio
import os
import signal
import sys
import threading
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from processor_client import Context, Processor, Task, winding_up
from processor_client.heart import Heart
from taskq.v1 import processor_service_pb2 as pb
from tests.clients.scripted_processor_service import Refusal, Runs, ScriptedServer, Stream, a_task, now, scripted_server

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def started(
    *tasks: Any, heartbeat_interval: float = 0.05, **settings: Any
) -> AsyncIterator[tuple[ScriptedServer, Stream, Processor]]:
    async with scripted_server(heartbeat_interval=heartbeat_interval) as server:
        processor = Processor(server.address, tasks, **settings)
        await processor.start()
        try:
            yield server, await server.stream(), processor
        finally:
            await processor.stop(drain=False)


async def test_a_drain_finishes_what_runs_and_releases_what_has_not_started() -> None:
    async def cook() -> str:
        await gate.wait()
        return "done"

    gate = asyncio.Event()
    async with started(Runs("cook", cook), concurrency=1) as (server, stream, processor):
        running, waiting, late = a_task("cook"), a_task("cook"), a_task("cook")
        stream.send(running, waiting)
        await server.until(lambda: server.heartbeats and len(server.heartbeats[-1].in_flight) == 2)
        stopping = asyncio.create_task(processor.stop())
        await server.until(lambda: server.heartbeats[-1].draining)
        assert (await server.result_of(waiting)).HasField("released")
        # What was pushed before the server heard of it goes back too.
        stream.send(late)
        assert (await server.result_of(late)).HasField("released")

        gate.set()
        await stopping

        assert (await server.result_of(running)).HasField("succeeded")
        assert server.unregistered == ["session-1"]


async def test_nothing_is_released_before_the_server_knows_that_it_must_not_come_straight_back() -> None:
    async def cook() -> None:
        begun.set()
        await gate.wait()

    def note(request: pb.ReportResultRequest) -> None:
        beats_before.append(len(server.heartbeats))

    begun, gate, beats_before = asyncio.Event(), asyncio.Event(), []
    async with started(Runs("cook", cook), heartbeat_interval=20, concurrency=1) as (server, stream, processor):
        stream.send(a_task("cook"), a_task("cook"))
        await asyncio.wait_for(begun.wait(), 10)
        server.refuse = note
        server.heartbeat_script.append(Refusal(grpc.StatusCode.UNAVAILABLE))
        stopping = asyncio.create_task(processor.stop())
        await server.until(lambda: server.results)
        gate.set()
        await stopping

    assert beats_before[0] == 2
    assert server.heartbeats[-1].draining


async def test_what_runs_past_the_drain_timeout_is_stopped_and_released() -> None:
    async def cook() -> None:
        await asyncio.Event().wait()

    async with started(Runs("cook", cook), drain_timeout="50ms") as (server, stream, processor):
        task = a_task("cook")
        stream.send(task)
        await server.until(lambda: server.heartbeats and server.heartbeats[-1].in_flight)

        await processor.stop()

        assert (await server.result_of(task)).HasField("released")
        assert server.unregistered


async def test_a_thread_that_does_not_listen_does_not_keep_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winding_up, "STOPPING_SECONDS", 0.05)
    release = threading.Event()
    async with started(Runs("cook", lambda: release.wait(20)), drain_timeout="50ms") as (server, stream, processor):
        task = a_task("cook")
        stream.send(task)
        await server.until(lambda: server.heartbeats and server.heartbeats[-1].in_flight)

        await processor.stop()
        release.set()

        assert (await server.result_of(task)).HasField("released")


async def test_a_processor_stops_though_its_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def cook() -> None: ...

    monkeypatch.setattr(winding_up, "REPORTING_SECONDS", 0.1)
    async with started(Runs("cook", cook)) as (server, stream, processor):
        server.answering.clear()
        stream.send(a_task("cook"))
        await server.until(lambda: server.heartbeats and server.heartbeats[-1].in_flight)

        await asyncio.wait_for(processor.stop(), 5)


async def test_hooks_are_waited_for() -> None:
    class Cook(Task):
        name = "cook"

        async def process(self) -> None: ...

        async def success(self) -> None:
            begun.set()
            await gate.wait()
            finished.append(True)

    begun, gate, finished = asyncio.Event(), asyncio.Event(), []
    async with started(Cook) as (_, stream, processor):
        stream.send(a_task("cook"))
        await asyncio.wait_for(begun.wait(), 10)
        stopping = asyncio.create_task(processor.stop())
        await asyncio.sleep(0)
        gate.set()
        await stopping

    assert finished == [True]


@pytest.mark.parametrize("by_heartbeat", [True, False])
async def test_an_administrator_drains_a_processor_which_stays_and_takes_nothing_more(by_heartbeat: bool) -> None:
    async def cook() -> None:
        await gate.wait()

    gate = asyncio.Event()
    async with started(Runs("cook", cook)) as (server, stream, _):
        running, late = a_task("cook"), a_task("cook")
        stream.send(running)
        await server.until(lambda: server.heartbeats and server.heartbeats[-1].in_flight)
        if by_heartbeat:
            server.heartbeat_script.append(
                pb.HeartbeatResponse(stream=pb.STREAM_STATE_OK, drain=True, server_time=now())
            )
        else:
            stream.say(drain=pb.Drain(processor=True))
        await server.until(lambda: server.heartbeats[-1].draining)
        stream.send(late)
        assert (await server.result_of(late)).HasField("released")
        gate.set()
        assert (await server.result_of(running)).HasField("succeeded")
        await server.beats()
        assert server.unregistered == []


async def test_a_processor_may_be_stopped_while_it_closes_a_session_that_the_server_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closing, gate = threading.Event(), threading.Event()

    def join(heart: Heart, timeout: float) -> None:
        closing.set()
        gate.wait(timeout)

    monkeypatch.setattr(Heart, "join", join)
    async with started(Runs("cook", lambda: None)) as (server, stream, processor):
        stream.end(grpc.StatusCode.NOT_FOUND)
        assert await asyncio.to_thread(closing.wait, 10)

        stopping = asyncio.create_task(processor.stop())
        await asyncio.sleep(0)  # so that it finds the session half closed
        gate.set()
        await stopping

        assert server.unregistered == []


async def test_a_processor_may_be_stopped_twice_and_started_once() -> None:
    async with started(Runs("cook", lambda: None)) as (_, __, processor):
        with pytest.raises(RuntimeError, match="started already"):
            await processor.start()
        await processor.stop()
        await processor.stop()


async def test_a_start_that_waits_for_a_server_can_be_given_up() -> None:
    processor = Processor("127.0.0.1:1", [Runs("cook", lambda: None)])

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await processor.start()


async def test_nothing_is_left_behind() -> None:
    async def cook() -> None: ...

    before, threads = asyncio.all_tasks(), {thread.name for thread in threading.enumerate()}
    async with started(Runs("cook", cook), Runs("fry", lambda: None)) as (server, stream, processor):
        tasks = [a_task("cook"), a_task("fry")]
        stream.send(*tasks)
        for task in tasks:
            await server.result_of(task)
        await processor.stop()
        ours = {task for task in asyncio.all_tasks() - before if task.get_name().startswith("taskq")}
        assert ours == set()
        names = {thread.name for thread in threading.enumerate()} - threads
        assert not [name for name in names if name == "taskq-heartbeat"]


PROGRAM = """
import asyncio, logging, sys, threading, time
from processor_client import Context, Processor

processor = Processor(sys.argv[1], drain_timeout=sys.argv[2], concurrency=4)

@processor.task("wait")
async def wait(ctx: Context):
    await asyncio.sleep(30)

@processor.task("noop")
async def noop(): ...

@processor.task("deaf")
def deaf():
    time.sleep(30)

if __name__ == "__main__":
    processor.run()
    print("ended")
"""


@asynccontextmanager
async def program(
    server: ScriptedServer, tmp_path: Path, drain_timeout: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'generated'}"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(path),
        server.address,
        drain_timeout,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_the_process_exits_with_0(number: signal.Signals, tmp_path: Path) -> None:
    async with scripted_server() as server, program(server, tmp_path, "100ms") as process:
        stream = await server.stream()
        done, running = a_task("noop"), a_task("deaf" if number is signal.SIGINT else "wait")
        stream.send(done, running)
        await server.result_of(done)
        await server.until(lambda: server.heartbeats and len(server.heartbeats[-1].in_flight) == 1)

        process.send_signal(number)
        output, errors = await asyncio.wait_for(process.communicate(), 10)

        assert (process.returncode, output, errors) == (0, b"ended\n", b"")
        # Also the task of a thread that does not listen is given back.
        assert (await server.result_of(running)).HasField("released")
        assert server.unregistered == ["session-1"]


async def test_a_second_signal_stops_it_now(tmp_path: Path) -> None:
    async with scripted_server() as server, program(server, tmp_path, "30s") as process:
        stream = await server.stream()
        stream.send(a_task("wait"))
        await server.until(lambda: server.heartbeats and server.heartbeats[-1].in_flight)

        process.terminate()
        await server.until(lambda: server.heartbeats[-1].draining)
        process.terminate()
        _, errors = await asyncio.wait_for(process.communicate(), 10)

        assert (process.returncode, errors) == (128 + signal.SIGTERM, b"")
        # What it held is given back with the session.
        assert server.unregistered == ["session-1"]


async def test_a_signal_ends_a_processor_that_waits_for_its_server(tmp_path: Path) -> None:
    async with scripted_server() as server:
        server.register_script.extend([Refusal(grpc.StatusCode.UNAVAILABLE)] * 50)
        async with program(server, tmp_path, "30s") as process:
            await server.until(lambda: server.registrations)
            process.terminate()
            await asyncio.wait_for(process.communicate(), 10)

            assert process.returncode == 0


def test_a_processor_refuses_to_run_in_a_forked_child() -> None:
    processor = Processor("127.0.0.1:1", [Runs("cook", lambda: None)])
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # That threads do not survive it either is why it is refused.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        outcome = "ran"
        try:
            asyncio.run(processor.run_async())
        except RuntimeError as error:
            outcome = str(error)
        finally:
            os.write(writing, outcome.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        outcome = pipe.read().decode()
    os.waitpid(child, 0)

    assert outcome.startswith("this processor was opened by process")


async def test_a_context_is_cancelled_when_the_processor_stops() -> None:
    async def cook(ctx: Context) -> None:
        await ctx.cancelled
        ctx.check_cancelled()

    async with started(Runs("cook", cook), drain_timeout=0) as (server, stream, processor):
        task = a_task("cook")
        stream.send(task)
        await server.until(lambda: server.heartbeats and server.heartbeats[-1].in_flight)
        await processor.stop()
        assert (await server.result_of(task)).HasField("released")
