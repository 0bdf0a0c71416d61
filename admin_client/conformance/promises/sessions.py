"""A processor introduces itself, again and again until it is heard, and begins anew when its session has ended."""

from __future__ import annotations

import re

import grpc

from admin_client.conformance import authority, work
from admin_client.conformance.promise import Chapter
from admin_client.conformance.scene import Scene
from admin_client.conformance.stream import Refusal

CHAPTER = Chapter()
promise = CHAPTER.promise

NAME = re.compile(r"[A-Za-z0-9._/-]{1,128}")
TOKEN = "tq_conformance"
STRANGER_SECONDS = 3.0
REGISTERED_SECONDS = 30.0
"""Pauses between tries may have become long by then."""


@promise("It registers what it runs, and how much of it at a time; then it opens the stream of that session")
async def registration(scene: Scene) -> None:
    stream = await scene.opened()
    request = scene.server.registrations[0]
    names = [each.name for each in request.capabilities]
    missing = [name for name in work.NAMES if name not in names]
    scene.must(not missing, f"it does not register {', '.join(missing)}; must run the tasks of this kit")
    scene.must(len(set(names)) == len(names), "it registers a name twice; must name each once")
    rule = "must be 1 to 128 of A-Z a-z 0-9 . _ / -"
    scene.must(NAME.fullmatch(request.processor_name), f"processor_name is {request.processor_name!r}; {rule}")
    limits = [request.max_in_flight, *(each.max_in_flight for each in request.capabilities if each.max_in_flight)]
    least = work.LEAST_IN_FLIGHT
    scene.must(min(limits) >= least, f"max_in_flight is {min(limits)}; must be {least} or more for this kit")
    scene.same("the session of its stream", stream.session_id, scene.server.sessions[0])


@promise("A server that does not listen yet, or cannot register it yet, is tried again")
async def register_again(scene: Scene) -> None:
    await scene.server.listen()
    await scene.server.go_away()
    await scene.start()
    await scene.aftermath(1.0)
    scene.server.register_refusals.append(Refusal(grpc.StatusCode.UNAVAILABLE))
    scene.server.register_refusals.append(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED))
    await scene.server.listen()
    task = work.echo("at last")
    again = "register again after it was refused as UNAVAILABLE and RESOURCE_EXHAUSTED"
    await scene.until(lambda: scene.server.streams, again, REGISTERED_SECONDS)
    scene.server.streams[0].push(task)
    await scene.result(task)


@promise("REREGISTER in a heartbeat's answer ends the session: what runs is stopped, and it registers anew")
async def reregister(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper = scene.sleeper(4)
    stream.push(sleeper.task)
    await scene.begun(sleeper)
    scene.server.end_session()
    await _must_begin_anew(scene, sleeper)


@promise("NOT_FOUND on the stream ends the session: what runs is stopped, and it registers anew")
async def session_not_found(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper = scene.sleeper(4)
    stream.push(sleeper.task)
    await scene.begun(sleeper)
    scene.server.heartbeat_refusal = Refusal(grpc.StatusCode.UNAVAILABLE)  # so that only the stream tells
    scene.server.end_session()
    stream.end(grpc.StatusCode.NOT_FOUND)
    await scene.until(lambda: len(scene.server.registrations) > 1, "register again when its session is not found")
    scene.server.heartbeat_refusal = None
    await _must_begin_anew(scene, sleeper)


@promise("With TASKQ_TLS_CA it talks by TLS, and TASKQ_TOKEN is shown in every call", token=TOKEN, tls=authority.OURS)
async def tls_and_token(scene: Scene) -> None:
    scene.environment = {"TASKQ_TOKEN": TOKEN, "TASKQ_TLS_CA": str(authority.OURS.write_ca(scene.folder))}
    stream = await scene.opened()
    task = work.echo("in private")
    stream.push(task)
    await scene.result(task)
    await scene.beats(1)
    scene.terminate()
    await scene.ended()
    calls = ", ".join(sorted(set(scene.server.unauthorised)))
    scene.must(not calls, f"{calls} came without the token; must show `authorization: Bearer …` in every call")


@promise("A server that TASKQ_TLS_CA does not vouch for is told nothing", tls=authority.OURS)
async def tls_stranger(scene: Scene) -> None:
    scene.environment = {"TASKQ_TOKEN": TOKEN, "TASKQ_TLS_CA": str(authority.OURS.write_ca(scene.folder))}
    await scene.opened()
    await scene.beats(1)
    await scene.server.go_away()
    heard = len(scene.server.beats), len(scene.server.streams), len(scene.server.registrations)
    scene.server.tls = authority.STRANGERS
    await scene.server.listen()
    await scene.aftermath(STRANGER_SECONDS)
    now = len(scene.server.beats), len(scene.server.streams), len(scene.server.registrations)
    scene.must(now == heard, "it talked to a server whose certificate it must not trust")


async def _must_begin_anew(scene: Scene, sleeper: work.Sleeper) -> None:
    old = scene.server.streams[0].session_id
    await scene.until(lambda: len(scene.server.registrations) > 1, "register again when its session has ended")
    stream = await scene.stream(2, "open the stream of its new session")
    scene.must(
        stream.session_id == scene.server.sessions[-1], "its stream names another session than Register answered"
    )
    task = work.echo("anew")
    stream.push(task)
    report = await scene.result(task)
    scene.same("the session of its report", report.session_id, stream.session_id)
    await scene.aftermath(sleeper.seconds)
    beats = await scene.beats(1)
    scene.same("the session of its heartbeats", beats[0].request.session_id, stream.session_id)
    scene.must(not sleeper.slept, "a handler of the ended session ran to the end; must be stopped")
    scene.must(not scene.reports_of(sleeper.task), f"it reported an attempt of session {old}, which has ended")
    scene.same("the number of its registrations", len(scene.server.registrations), 2)
