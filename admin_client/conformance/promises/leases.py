"""Heartbeats keep the leases, and say what is held; what is lost or cancelled stops."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import grpc

from admin_client.conformance import work
from admin_client.conformance.promise import Chapter
from admin_client.conformance.scene import Scene
from admin_client.conformance.server import HEARTBEAT_SECONDS, Beat
from admin_client.conformance.stream import Refusal

CHAPTER = Chapter()
promise = CHAPTER.promise

LEASE_SECONDS = 4 * HEARTBEAT_SECONDS
REST_SECONDS = 20.0
COUNTED_BEATS = 8


@promise("Heartbeats come at the interval that Register answered, with tasks and without")
async def heartbeats(scene: Scene) -> None:
    stream = await scene.opened()
    at_rest = await scene.beats(COUNTED_BEATS)
    stream.push(scene.sleeper(120).task)
    at_work = await scene.beats(COUNTED_BEATS)
    for beats in (at_rest, at_work):
        _must_keep_the_lease(scene, beats)
        pace = (beats[-1].time - beats[0].time) / (len(beats) - 1)
        scene.must(
            HEARTBEAT_SECONDS / 2 <= pace <= HEARTBEAT_SECONDS * 2,
            f"heartbeats came every {pace:.2f} s; must come every {HEARTBEAT_SECONDS} s",
        )


@promise("Heartbeats list each attempt from its arrival until its report is answered, and no longer")
async def in_flight(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper, quick = scene.sleeper(1), work.echo("quick")
    scene.server.answering.clear()
    stream.push(sleeper.task, quick)
    await scene.listed(sleeper.task, quick)
    await scene.until(lambda: sleeper.slept, "run conformance.sleep to its end, which writes `end`")
    unanswered = await scene.beats()
    held = {work.key(sleeper.task), work.key(quick)}
    scene.must(
        all(beat.keys == held for beat in unanswered),
        "a heartbeat does not list exactly what waits for its report to be answered; it would be given to another",
    )
    scene.server.answering.set()
    await scene.result(sleeper.task)
    await scene.result(quick)
    await scene.dropped(sleeper.task, quick)


@promise("A processor that rests, since it holds nothing, beats again within the interval once it holds something")
async def rest(scene: Scene) -> None:
    stream = await scene.opened()
    scene.server.rest_seconds = REST_SECONDS
    seen = len(scene.server.beats)
    await scene.until(lambda: len(scene.server.beats) > seen, "send heartbeats")
    await asyncio.sleep(2 * HEARTBEAT_SECONDS)
    sleeper = scene.sleeper(120)
    seen = len(scene.server.beats)
    stream.push(sleeper.task)
    await scene.begun(sleeper)
    at_work = "send a heartbeat once it holds something"
    await scene.until(lambda: len(scene.server.beats) > seen, at_work, REST_SECONDS / 4)


@promise("A heartbeat that is refused, or not answered, is followed by another before the lease ends")
async def heartbeat_again(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper = scene.sleeper(6)
    stream.push(sleeper.task)
    await scene.begun(sleeper)
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL):
        scene.server.heartbeat_refusals.append(Refusal(code))
    scene.server.heartbeat_refusals.append(None)
    seen = len(scene.server.beats)
    await scene.until(lambda: len(scene.server.beats) >= seen + COUNTED_BEATS, "go on sending heartbeats")
    _must_keep_the_lease(scene, scene.server.beats[seen:])
    await scene.result(sleeper.task)


@promise("Heartbeats go on while no stream can be opened and no report is answered")
async def heartbeats_go_on(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper, reported = scene.sleeper(120), work.echo("reported")
    scene.server.answering.clear()
    stream.push(sleeper.task, reported)
    await scene.begun(sleeper)
    scene.server.stream_refusal = Refusal(grpc.StatusCode.UNAVAILABLE)
    stream.end(grpc.StatusCode.UNAVAILABLE)
    _must_keep_the_lease(scene, await scene.beats(COUNTED_BEATS))


@promise("An attempt that a heartbeat's answer calls lost is stopped, listed no more, and not reported")
async def lost(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper = scene.sleeper(4)
    stream.push(sleeper.task)
    await scene.begun(sleeper)
    scene.lose(sleeper.task)
    await scene.dropped(sleeper.task)
    await scene.aftermath(sleeper.seconds)
    scene.must(not sleeper.slept, "its handler ran to the end; must be stopped")
    scene.must(not scene.reports_of(sleeper.task), "the lost attempt was reported; another runs that task now")


@promise("An attempt that the stream cancels is stopped, and reported as cancelled or not at all")
async def cancel_by_stream(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper, other = scene.sleeper(4), scene.sleeper(5)
    stream.push(sleeper.task, other.task)
    await scene.begun(sleeper, other)
    scene.server.late.add(work.key(sleeper.task))
    stream.cancel(work.echo("it holds no such attempt"), sleeper.task)
    await _must_have_stopped(scene, sleeper, other)


@promise("An attempt that a heartbeat's answer cancels is stopped, and reported as cancelled or not at all")
async def cancel_by_heartbeat(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper, other = scene.sleeper(4), scene.sleeper(5)
    stream.push(sleeper.task, other.task)
    await scene.begun(sleeper, other)
    scene.cancel(sleeper.task)
    await _must_have_stopped(scene, sleeper, other)


@promise("An attempt that is pushed again, on the same stream or another, runs once")
async def duplicates(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper = scene.sleeper(3)
    stream.push(sleeper.task, sleeper.task)
    await scene.begun(sleeper)
    stream.push(sleeper.task)
    stream.end(grpc.StatusCode.UNAVAILABLE)
    (await scene.stream(2)).push(sleeper.task)
    await scene.result(sleeper.task)
    await scene.dropped(sleeper.task)
    await scene.aftermath()
    scene.must(sleeper.begun == 1, f"its handler began {sleeper.begun} times; must run once")


@promise("A later attempt of a task is another: it runs, and reports name the attempt that they are about")
async def fencing(scene: Scene) -> None:
    stream = await scene.opened()
    first = scene.sleeper(120)
    stream.push(first.task)
    await scene.begun(first)
    scene.lose(first.task)
    await scene.dropped(first.task)
    second = scene.sleeper(0.2, first.task.task_id, attempt=2)
    stream.push(second.task)
    await scene.begun(second)
    await scene.result(second.task)
    await scene.dropped(second.task)
    scene.must(not scene.reports_of(first.task), "the attempt of before was reported; must not be")


async def _must_have_stopped(scene: Scene, sleeper: work.Sleeper, other: work.Sleeper) -> None:
    await scene.dropped(sleeper.task)
    await scene.aftermath(sleeper.seconds)
    scene.must(not sleeper.slept, "its handler ran to the end; must be stopped")
    outcomes = {report.outcome for report in scene.reports_of(sleeper.task)}
    scene.must(outcomes <= {"cancelled"}, f"it was reported as {', '.join(outcomes)}; must be cancelled, or nothing")
    await scene.result(other.task)


def _must_keep_the_lease(scene: Scene, beats: list[Beat]) -> None:
    gap = max(after.time - before.time for before, after in pairwise(beats))
    scene.must(gap < LEASE_SECONDS, f"{gap:.1f} s passed without a heartbeat; the lease is {LEASE_SECONDS:g} s")
