"""A processor that is told to stop loses nothing: it finishes, reports, unregisters, and ends."""

from __future__ import annotations

import grpc

from admin_client.conformance.promise import Chapter
from admin_client.conformance.scene import Scene
from admin_client.conformance.stream import Refusal

CHAPTER = Chapter()
promise = CHAPTER.promise

ENDING_SECONDS = 15.0
"""Half of what a processor gives its handlers when it drains."""


@promise("SIGTERM drains: it says so, finishes what runs, reports it, unregisters, and ends with exit code 0")
async def drain(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper = scene.sleeper(3)
    stream.push(sleeper.task)
    await scene.begun(sleeper)
    scene.terminate()
    await scene.draining()
    await scene.until(lambda: scene.server.unregistered, "unregister once everything is reported")
    scene.must(scene.reports_of(sleeper.task), "it unregistered before it had reported what ran")
    await scene.result(sleeper.task)
    scene.must(scene.server.unregistered[0] == stream.session_id, "it unregistered another session than its own")
    await scene.ended()
    scene.must(len(scene.server.registrations) == 1, "it registered again while it drained")


@promise("A report that is refused during the drain is still delivered before it ends")
async def drain_reports(scene: Scene) -> None:
    stream = await scene.opened()
    scene.server.report_refusals.extend(Refusal(grpc.StatusCode.UNAVAILABLE) for _ in range(3))
    sleeper = scene.sleeper(1)
    stream.push(sleeper.task)
    await scene.begun(sleeper)
    scene.terminate()
    await scene.result(sleeper.task)
    await scene.ended()


@promise("A task that crosses the announcement of the drain is given back, or run and reported; never dropped")
async def drain_crossing(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper, crossing = scene.sleeper(3), scene.sleeper(0.1)
    stream.push(sleeper.task)
    await scene.begun(sleeper)
    scene.terminate()
    await scene.draining()
    stream.push(crossing.task)
    await scene.until(lambda: scene.reports_of(crossing.task), "report, as released, what came while it drains")
    outcome = scene.reports_of(crossing.task)[0].outcome
    scene.must(outcome in ("released", "succeeded"), f"it was reported as {outcome}; must be released or succeeded")
    await scene.ended()


@promise("An attempt that is lost during the drain is not waited for: the processor ends")
async def drain_lost(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper = scene.sleeper(120)
    stream.push(sleeper.task)
    await scene.begun(sleeper)
    scene.terminate()
    await scene.draining()
    scene.lose(sleeper.task)
    await scene.until(lambda: scene.program.exit_code is not None, "end once it holds nothing more", ENDING_SECONDS)
    await scene.ended()
    scene.must(not scene.reports_of(sleeper.task), "the lost attempt was reported; another runs that task now")


@promise("A drain by an administrator lets it finish and report what runs; it lives on, and is heard")
async def administrators_drain(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper = scene.sleeper(2)
    stream.push(sleeper.task)
    await scene.begun(sleeper)
    scene.server.is_draining = True
    stream.drain("for maintenance", processor=True)
    await scene.result(sleeper.task)
    await scene.beats()
    scene.must(not scene.server.unregistered, "it unregistered; must wait to be told what comes next")
    scene.must(len(scene.server.registrations) == 1, "it registered again, and so would get tasks")
