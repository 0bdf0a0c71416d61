"""Whatever ends a stream, another is opened; the session, and what runs, go on."""

from __future__ import annotations

import asyncio

import grpc

from admin_client.conformance import work
from admin_client.conformance.promise import Chapter
from admin_client.conformance.scene import Scene
from admin_client.conformance.stream import Refusal
from taskq.v1.processor_service_pb2 import STREAM_STATE_REOPEN

CHAPTER = Chapter()
promise = CHAPTER.promise

ENDS = tuple(code for code in grpc.StatusCode if code is not grpc.StatusCode.NOT_FOUND)
REFUSED_SECONDS = 4.0
MOST_TRIES = 25
SETTLED_SECONDS = 2.0


@promise("A stream that ends, with whatever status but NOT_FOUND, is opened again, and the session goes on")
async def reconnect(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper = scene.sleeper(1)
    stream.push(sleeper.task)
    await scene.begun(sleeper)
    for number, code in enumerate(ENDS, 2):
        stream.end(code)
        stream = await scene.stream(number, f"open a stream again after {code.name}")
    task = work.echo("after")
    stream.push(task)
    await scene.result(task)
    await scene.result(sleeper.task)
    scene.must(len(scene.server.registrations) == 1, "it registered again; must go on with its session")


@promise("Streams that are refused are tried again after pauses, not at once and for ever")
async def backoff(scene: Scene) -> None:
    stream = await scene.opened()
    scene.server.stream_refusal = Refusal(grpc.StatusCode.UNAVAILABLE)
    stream.end(grpc.StatusCode.UNAVAILABLE)
    await scene.aftermath(REFUSED_SECONDS)
    tries = scene.server.refused_streams
    scene.must(tries <= MOST_TRIES, f"it tried {tries} times in {REFUSED_SECONDS:g} s; must wait between tries")
    scene.server.stream_refusal = None
    await scene.stream(2)


@promise("A stream that is silent for three ping intervals is given up, and another opened", ping_interval=0.5)
async def silence(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper = scene.sleeper(4)
    stream.push(sleeper.task)
    await scene.begun(sleeper)
    stream.is_mute = True
    await scene.stream(2, "open another stream when nothing came for three ping intervals")
    await scene.result(sleeper.task)
    scene.must(len(scene.server.registrations) == 1, "it registered again; must go on with its session")


@promise("A stream whose server drains it is followed by another; tasks that run go on")
async def rotation(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper = scene.sleeper(2)
    stream.push(sleeper.task)
    await scene.begun(sleeper)
    stream.drain("the stream is renewed", processor=False)
    stream.end()
    task = work.echo("after")
    (await scene.stream(2)).push(task)
    await scene.result(task)
    await scene.result(sleeper.task)
    scene.must(not any(beat.request.draining for beat in scene.server.beats), "it says that it drains; must go on")
    scene.must(len(scene.server.registrations) == 1, "it registered again; must go on with its session")


@promise("A superseded stream is not opened again until a heartbeat is answered REOPEN")
async def superseded(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper = scene.sleeper(4)
    stream.push(sleeper.task)
    await scene.begun(sleeper)
    stream.supersede()
    await scene.aftermath(SETTLED_SECONDS)
    scene.must(len(scene.server.streams) == 1, "it opened another stream; two that do so fight over it for ever")
    scene.server.stream_state = STREAM_STATE_REOPEN
    await scene.stream(2, "open a stream when a heartbeat is answered REOPEN")
    await scene.result(sleeper.task)


@promise("A heartbeat that is answered REOPEN brings another stream, also when the old one seems open")
async def reopen(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper = scene.sleeper(4)
    stream.push(sleeper.task)
    await scene.begun(sleeper)
    await asyncio.sleep(SETTLED_SECONDS)
    stream.is_mute = True
    scene.server.stream_state = STREAM_STATE_REOPEN
    await scene.stream(2, "open a stream when a heartbeat is answered REOPEN")
    await scene.result(sleeper.task)
    scene.must(len(scene.server.registrations) == 1, "it registered again; must go on with its session")


@promise("A server that goes away and comes back finds the session, what it holds, and what ended meanwhile")
async def server_away(scene: Scene) -> None:
    stream = await scene.opened()
    short, long = scene.sleeper(1), scene.sleeper(5)
    stream.push(short.task, long.task)
    await scene.begun(short, long)
    await scene.server.go_away()
    await scene.until(lambda: short.slept, "run on while the server is away")
    await scene.server.listen()
    await scene.stream(2)
    await scene.result(short.task)
    await scene.result(long.task)
    scene.must(len(scene.server.registrations) == 1, "it registered again; must go on with its session")
