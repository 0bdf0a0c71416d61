"""What is pushed is run, and what came of it is reported as it was."""

from __future__ import annotations

import asyncio
import json

from admin_client.conformance import work
from admin_client.conformance.promise import Chapter
from admin_client.conformance.scene import Scene
from taskq.v1.processor_service_pb2 import StreamTasksResponse

CHAPTER = Chapter()
promise = CHAPTER.promise

MOST_AT_A_TIME = 100
FRAME_BYTES = 2 << 20  # a server fills a message up to this
REQUEST_BYTES = 1 << 20  # a request to report has less
LONG_BYTES = 3 << 20
UNKNOWN_EVENT = b"\x9a\x06\x03new"  # field 99, of a server that is newer than the processor


@promise("A task is run, and its result is reported under the session and attempt that it was pushed with")
async def echo(scene: Scene) -> None:
    stream = await scene.opened()
    values = ({"dish": "crème brûlée", "guests": [1, 2, {"vegan": True}]}, ["a", 2.5, None], 7, "text")
    tasks = [work.assigned(work.ECHO, value, attempt=attempt) for attempt, value in enumerate(values, 1)]
    stream.push(*tasks)
    for value, task in zip(values, tasks, strict=True):
        report = await scene.result(task)
        result = report.result.succeeded.result
        scene.same("the session of the report", report.session_id, stream.session_id)
        scene.same("the content type of the result", result.content_type.partition(";")[0], work.JSON)
        scene.same("the result", _json_in(result.data), value)


@promise("A failure is reported with its error type, its message, and whether it may be retried")
async def failure(scene: Scene) -> None:
    stream = await scene.opened()
    for error_type, message, retryable in (("OvenCold", "20 °C", True), ("NoSuchDish", "of that name", False)):
        task = work.fail(error_type, message, retryable=retryable)
        stream.push(task)
        failed = (await scene.result(task, "failed")).result.failed
        scene.same("error_type", failed.error_type, error_type)
        scene.must(message in failed.message, f"message is {failed.message!r}; must have {message!r}")
        scene.same("retryable", failed.retryable if failed.HasField("retryable") else True, retryable)


@promise("As many tasks run at a time as it has registered for")
async def credits(scene: Scene) -> None:
    stream = await scene.opened()
    registered = scene.server.registrations[0]
    of_name = {each.name: each.max_in_flight for each in registered.capabilities}.get(work.SLEEP)
    count = min(registered.max_in_flight, of_name or MOST_AT_A_TIME, MOST_AT_A_TIME)
    sleepers = [scene.sleeper(120) for _ in range(count)]
    stream.push(*(each.task for each in sleepers))
    all_run = f"run {count} tasks at a time, as it has registered for"
    await scene.until(lambda: all(each.begun for each in sleepers), all_run)


@promise("Payloads of 256 KiB, and messages of more than 2 MiB, are taken")
async def large_payloads(scene: Scene) -> None:
    stream = await scene.opened()
    text = "x" * (work.MAX_PAYLOAD_BYTES - 2)  # and two quotes
    tasks = [work.echo(text) for _ in range(FRAME_BYTES // work.MAX_PAYLOAD_BYTES + 1)]
    stream.push(*tasks)
    for task in tasks:
        result = (await scene.result(task)).result.succeeded.result
        scene.must(_json_in(result.data) == text, f"a result of {len(result.data)} bytes came back; must be as sent")


@promise("Results of 256 KiB are reported, in requests that a server takes: of less than 4 MiB, however many wait")
async def large_results(scene: Scene) -> None:
    stream = await scene.opened()
    scene.server.answering.clear()
    first = work.echo("first")
    tasks = [work.large(work.MAX_PAYLOAD_BYTES) for _ in range(work.LEAST_IN_FLIGHT - 1)]
    stream.push(first)
    await scene.until(lambda: scene.server.unanswered, "report conformance.echo")
    stream.push(*tasks)
    await asyncio.sleep(1.5)  # so that their results wait behind the first
    scene.server.answering.set()
    for task in tasks:
        result = (await scene.result(task)).result.succeeded.result
        scene.must(len(result.data) == work.MAX_PAYLOAD_BYTES, f"a result of {len(result.data)} bytes was reported")


@promise("A result that is too large to be kept ends as a failure, and holds up no other report")
async def refused_results(scene: Scene) -> None:
    stream = await scene.opened()
    scene.server.answering.clear()
    tasks = [work.echo(1), work.large(work.MAX_PAYLOAD_BYTES + 1), work.echo(2)]
    stream.push(*tasks)
    await scene.until(lambda: scene.server.unanswered, "report conformance.echo")
    await asyncio.sleep(0.5)  # so that one request has all that wait
    scene.server.answering.set()
    for task, outcome in zip(tasks, ("succeeded", "failed", "succeeded"), strict=True):
        await scene.result(task, outcome)


@promise("A failure whose message is megabytes long is cut to what a request may have, and holds up no other report")
async def long_failures(scene: Scene) -> None:
    stream = await scene.opened()
    long, after = work.fail("Long", "é" * (LONG_BYTES // 2), retryable=True), work.echo("after")
    stream.push(long, after)
    report = await scene.result(long, "failed")
    scene.same("error_type", report.result.failed.error_type, "Long")
    size = report.result.ByteSize()
    scene.must(size < REQUEST_BYTES, f"its report has {size} bytes; must have less than {REQUEST_BYTES}")
    scene.must("é" in report.result.failed.message, "message is lost; must have its first characters")
    await scene.result(after)


@promise("A kind of event that it does not know is ignored")
async def unknown_events(scene: Scene) -> None:
    stream = await scene.opened()
    stream.say(StreamTasksResponse.FromString(UNKNOWN_EVENT))
    stream.say(StreamTasksResponse())
    task = work.echo("after")
    stream.push(task)
    await scene.result(task)
    scene.must(len(scene.server.streams) == 1, "it opened another stream; must read on")


def _json_in(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return data
