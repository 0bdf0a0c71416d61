"""Whoever may not call is told so before the server takes in what they send."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server.rpc import auth
from taskq_server.server import Server
from tests.conftest import StartServer
from tests.rpc.callers import Metadata, granted, showing
from tests.rpc.support import LIMIT_SECONDS, UNKNOWN_ID, RawScheduler, a_task, refused, soon
from tests.support import hostile
from tests.support.hostile import connected

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
NO_METHOD = grpc.StatusCode.UNIMPLEMENTED
METHODS = ["SchedulerService/GetTask", "SchedulerService/WatchTask", "SchedulerService/Nothing"]
"""One that answers once, one that answers with a stream, and one that there is not."""
HALF = (4 << 20).to_bytes(5, "big") + b"x" * 100
"""The beginning of a message of 4 MiB."""
MOST_STREAMS = 100


@pytest_asyncio.fixture
async def server(start_server: StartServer) -> Server:
    return await start_server(auth="required")


@pytest_asyncio.fixture
async def channel(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield channel


def frames(one: socket.socket) -> Iterator[tuple[int, int, int]]:
    """Kind, flags and stream of what comes, until nothing comes for too long."""
    one.settimeout(LIMIT_SECONDS)
    with one.makefile("rb") as file, contextlib.suppress(OSError):
        while len(head := file.read(9)) == 9:
            file.read(int.from_bytes(head[:3], "big"))
            yield head[3], head[4], int.from_bytes(head[5:], "big")


def ended(one: socket.socket, streams: set[int]) -> set[int]:
    """Which of the streams the server ends with a status."""
    found: set[int] = set()
    for kind, flags, stream in frames(one):
        if kind == hostile.HEADERS and flags & hostile.END_STREAM:
            found.add(stream)
            if found == streams:
                break
    return found


async def unfinished() -> AsyncIterator[bytes]:
    """Requests of which none ever comes."""
    await asyncio.Event().wait()
    yield b""


async def nothing() -> AsyncIterator[bytes]:
    """Requests that end before there was one."""
    for request in list[bytes]():
        yield request


async def code(
    channel: grpc.aio.Channel, method: str, requests: AsyncIterator[bytes], metadata: Metadata = ()
) -> object:
    ask: Any = channel.stream_unary(f"/taskq.v1.{method}")
    return (await refused(ask(requests, metadata=metadata))).code


@pytest.mark.parametrize("method", METHODS)
async def test_a_request_of_nobody_is_refused_before_it_is_whole(server: Server, method: str) -> None:
    streams = range(1, 2 * MOST_STREAMS, 2)
    headers = hostile.call(method)

    def ask() -> set[int]:
        with connected(server.address) as (one,):
            one.sendall(hostile.hello())
            for each in streams:
                one.sendall(hostile.frame(hostile.HEADERS, hostile.END_HEADERS, each, headers))
                one.sendall(hostile.frame(hostile.DATA, 0, each, HALF))
            return ended(one, set(streams))

    assert await asyncio.to_thread(ask) == set(streams)


async def test_whoever_sends_no_request_is_told_first_whether_they_may_come_in(
    server: Server, channel: grpc.aio.Channel
) -> None:
    processor = showing(await granted(server, "kitchen", "process:cook"))
    for method in METHODS:
        assert await code(channel, method, unfinished()) is UNAUTHENTICATED
        assert await code(channel, method, nothing()) is UNAUTHENTICATED
        refusal = await code(channel, method, unfinished(), processor)
        assert refusal is (NO_METHOD if method.endswith("Nothing") else DENIED)


@pytest.mark.parametrize("method", METHODS[:2])
async def test_a_request_that_is_never_whole_is_given_up_and_one_that_is_not_there_refused(
    server: Server, channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(auth, "REQUEST_SECONDS", 0.05)
    reader = showing(await granted(server, "kitchen", "read"))
    assert await code(channel, method, unfinished(), reader) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await code(channel, method, nothing(), reader) is grpc.StatusCode.INVALID_ARGUMENT
    assert not server.access._streams, "a stream that was given up is not counted"


async def test_a_request_that_comes_late_but_in_time_is_answered_to_whoever_asked(
    server: Server, channel: grpc.aio.Channel
) -> None:
    cook, read = [showing(await granted(server, who, right)) for who, right in (("a", "enqueue:cook"), ("b", "read"))]
    enqueue = scheduler_pb2.EnqueueRequest(tasks=[a_task("cook", b"pasta")])
    enqueued = await soon(RawScheduler(channel).stub.Enqueue(enqueue, metadata=cook))
    request = scheduler_pb2.GetTaskRequest(task_id=enqueued.results[0].task_id).SerializeToString()
    go_on = asyncio.Event()

    async def late() -> AsyncIterator[bytes]:
        await go_on.wait()
        yield request

    get: Any = channel.stream_unary(
        "/taskq.v1.SchedulerService/GetTask", None, scheduler_pb2.GetTaskResponse.FromString
    )
    late_calls = [asyncio.ensure_future(get(late(), metadata=who)) for who in (cook, read)]
    for _ in range(3):  # others call meanwhile
        await refused(RawScheduler(channel).get(UNKNOWN_ID))
    go_on.set()
    whole, without = [(await soon(call)).task for call in late_calls]
    assert whole.payload.data == b"pasta"
    assert not without.HasField("payload")
