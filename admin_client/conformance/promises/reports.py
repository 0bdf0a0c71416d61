"""A report is sent until it is answered, and never becomes another."""

from __future__ import annotations

import grpc

from admin_client.conformance import work
from admin_client.conformance.promise import Chapter
from admin_client.conformance.scene import Scene
from admin_client.conformance.stream import Refusal

CHAPTER = Chapter()
promise = CHAPTER.promise

PASSING = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
)
"""How a call may end whose request is good."""
DEADLINE_SECONDS = 15.0


@promise("Each attempt is reported once it has ended, once, with one outcome")
async def one_report(scene: Scene) -> None:
    stream = await scene.opened()
    succeeding, failing = work.echo("fine"), work.fail("Broken", "it is", retryable=True)
    sleeper = scene.sleeper(0.5)
    stream.push(succeeding, failing, sleeper.task)
    for task, outcome in ((succeeding, "succeeded"), (failing, "failed"), (sleeper.task, "succeeded")):
        await scene.result(task, outcome)
    await scene.dropped(succeeding, failing, sleeper.task)
    await scene.aftermath()
    for task in (succeeding, failing, sleeper.task):
        outcomes = [report.outcome for report in scene.reports_of(task)]
        scene.must(len(outcomes) == 1, f"{task.name} was reported {len(outcomes)} times, as {', '.join(outcomes)}")


@promise("A report that is refused for a passing reason is sent again, whatever the status")
async def report_again(scene: Scene) -> None:
    stream = await scene.opened()
    for code in PASSING:
        scene.server.report_refusals.append(Refusal(code))
        task = work.echo(code.name)
        stream.push(task)
        await scene.result(task, must=f"report again what was refused as {code.name}")


@promise("A report that is not answered is sent again; a server that hangs keeps no result for ever")
async def report_unanswered(scene: Scene) -> None:
    stream = await scene.opened()
    scene.server.answering.clear()
    task = work.echo("unanswered")
    stream.push(task)
    await scene.until(
        lambda: scene.server.given_up, "give up a report that is not answered, and send it again", DEADLINE_SECONDS
    )
    scene.server.answering.set()
    await scene.result(task)


@promise("A report whose answer is lost is sent again as it was, and ALREADY_ACCEPTED ends it")
async def answer_lost(scene: Scene) -> None:
    stream = await scene.opened()
    scene.server.answer_losses = 1
    task = work.fail("Broken", "once and for all", retryable=True)
    stream.push(task)
    await scene.until(lambda: len(scene.reports_of(task)) >= 2, "report again what was not answered")
    await scene.dropped(task)
    await scene.aftermath()
    reports = scene.reports_of(task)
    scene.must(len(reports) == 2, f"it was reported {len(reports)} times; the second was answered")
    first, second = (report.result.SerializeToString(deterministic=True) for report in reports)
    scene.must(first == second, "the second report differs from the first; must be the same outcome")


@promise("A report that is answered LEASE_LOST is over: not sent again, and the attempt listed no more")
async def lease_lost(scene: Scene) -> None:
    stream = await scene.opened()
    sleeper = scene.sleeper(0.2)
    scene.server.late.add(work.key(sleeper.task))
    stream.push(sleeper.task)
    await scene.until(lambda: scene.reports_of(sleeper.task), "report conformance.sleep")
    await scene.dropped(sleeper.task)
    await scene.aftermath()
    count = len(scene.reports_of(sleeper.task))
    scene.must(count == 1, f"it was reported {count} times; LEASE_LOST is the last word")
    after = work.echo("after")
    stream.push(after)
    await scene.result(after)
