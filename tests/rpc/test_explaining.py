"""Why a task is not running: every reason there may be, in words and as data."""

from __future__ import annotations

import pytest

from taskq.v1 import admin_task_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server.core.matching import Demand
from tests.rpc.support import (
    CANCELLED,
    FAILED,
    RUNNING,
    SCHEDULED,
    SUCCEEDED,
    UNKNOWN_ID,
    a_task,
    refused,
    retrying,
    soon,
    span,
    time_at,
)
from tests.rpc.world import World
from tests.store.given import tamper

Explained = admin_task_pb2.ExplainTaskResponse
Kind = admin_task_pb2.ReasonKind


async def explained(world: World, task_id: str) -> Explained:
    request = admin_task_pb2.ExplainTaskRequest(task_id=task_id)
    return await soon(world.admin.stub.ExplainTask(request))  # type: ignore[no-any-return]


def kinds(response: Explained) -> list[str]:
    return [Kind.Name(one.kind).removeprefix("REASON_KIND_") for one in response.reasons]


def only(response: Explained, kind: str) -> admin_task_pb2.Reason:
    (reason,) = response.reasons
    assert kinds(response) == [kind]
    assert response.summary == f"{reason.text[:1].upper()}{reason.text[1:]}."
    return reason


# ── in itself ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_it_is_not_due_yet(world: World) -> None:
    await world.processor()
    task_id = await world.scheduler.enqueue(delay=span(3))

    response = await explained(world, task_id)

    assert (response.task_id, response.state) == (task_id, SCHEDULED)
    assert only(response, "NOT_DUE").text == "it is due in 3 s"
    assert set(response.reasons[0].facts) == {"due_time"}


async def test_it_waits_for_a_retry(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue(retry_policy=retrying(90, max_attempts=5))
    await processor.fail(await processor.take_one(), message="no\nsteam")

    reason = only(await explained(world, task_id), "WAITS_FOR_RETRY")

    assert reason.text == "it waits for its next attempt, in 1 min 30 s, with 1 of 5 attempts used: Burnt: no steam"
    assert reason.facts["failed_attempts"] == "1"


async def test_its_name_is_paused(world: World) -> None:
    await world.processor()
    await world.admin.pause("cook", "the oven leaks")
    since_us = world.clock.now_us()
    world.clock.advance(120)
    task_id = await world.scheduler.enqueue()

    reason = only(await explained(world, task_id), "CAPABILITY_PAUSED")

    assert reason.text.startswith("cook is paused since 2")
    assert reason.text.endswith("Z, for 2 min now: the oven leaks")
    assert (reason.facts["name"], reason.facts["note"]) == ("cook", "the oven leaks")
    assert since_us < world.clock.now_us()


async def test_it_will_expire(world: World) -> None:
    await world.processor()
    expires = time_at(world.clock.now_us() + 60_000_000)
    task_id = await world.scheduler.enqueue(delay=span(30), expire_time=expires)

    response = await explained(world, task_id)

    assert kinds(response) == ["NOT_DUE", "EXPIRES"]
    assert response.summary == "It is due in 30 s; it will fail as EXPIRED unless it is started in 1 min."


async def test_its_payload_is_corrupt(world: World) -> None:
    task_id = await world.scheduler.enqueue(data=b"x", delay=span(60))
    await tamper(world.server._store, "UPDATE task SET payload_crc = 1")

    response = await explained(world, task_id)

    assert kinds(response) == ["NOT_DUE", "CORRUPT", "NO_PROCESSOR"]


# ── in others ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_no_processor_has_its_name(world: World) -> None:
    task_id = await world.scheduler.enqueue("kitchen.cook")
    nobody = only(await explained(world, task_id), "NO_PROCESSOR")
    await world.processor(can=("demo.hello", "demo.bye"))

    reason = only(await explained(world, task_id), "NO_PROCESSOR")

    assert nobody.text == "no processor has registered kitchen.cook; none is registered at all"
    assert reason.text == "no processor has registered kitchen.cook; known are: demo.bye, demo.hello"
    assert list(reason.names) == ["demo.bye", "demo.hello"]


async def test_no_processor_has_the_labels_that_it_requires(world: World) -> None:
    await world.processor("here", labels={"region": "us"})
    task_id = await world.scheduler.enqueue(requires=["region = eu", "!spot"])
    of_one = only(await explained(world, task_id), "REQUIREMENTS_NOT_MET")
    await world.processor("there", labels={"region": "eu", "spot": "yes"})

    reason = only(await explained(world, task_id), "REQUIREMENTS_NOT_MET")

    assert of_one.text == "it requires region = eu, which here, the only processor of cook, does not meet"
    assert reason.text == "it requires !spot, region = eu, which none of the 2 processors of cook meets at once"
    assert reason.facts["requires"] == "!spot, region = eu"
    assert list(reason.names) == ["here", "there"]


async def test_those_that_may_run_it_are_drained(world: World) -> None:
    one = await world.processor("one")
    await world.admin.drain(one.session_id)
    task_id = await world.scheduler.enqueue()
    of_one = only(await explained(world, task_id), "DRAINED")
    two = await world.registered("two")
    await two.heartbeat(draining=True)
    await two.open()
    await world.processor("other", can=("bake",))

    reason = only(await explained(world, await world.scheduler.enqueue(delay=span(0))), "DRAINED")

    assert of_one.text == "one, which may run it, is drained"
    assert (reason.text, list(reason.names)) == ("all 2 processors that may run it are drained", ["one", "two"])


async def test_those_that_may_run_it_have_no_stream(world: World) -> None:
    await world.registered("oven")
    task_id = await world.scheduler.enqueue()

    reason = only(await explained(world, task_id), "NO_STREAM")

    assert reason.text == "oven, which may run it, has no stream open to a server"


async def test_all_credits_are_in_use_and_others_come_before_it(world: World) -> None:
    one = await world.processor("one", max_in_flight=2)
    two = await world.processor("two", can={"cook": 1, "bake": 0}, max_in_flight=5)
    await world.scheduler.enqueue_all(*(a_task() for _ in range(3)))
    await world.dispatched()
    assert one.session_id != two.session_id
    last = await world.scheduler.enqueue(priority=1)
    first = await world.scheduler.enqueue(priority=5)

    of_first = only(await explained(world, first), "NO_CREDITS")
    of_last = await explained(world, last)

    assert of_first.text == "all 3 credits of the 2 processors that may run it are in use"
    assert dict(of_first.facts) == {"credits": "3", "in_use": "3", "processors": "2"}
    assert list(of_first.names) == ["one", "two"]
    assert kinds(of_last) == ["NO_CREDITS", "BEHIND_OTHERS"]
    assert (of_last.reasons[1].text, of_last.reasons[1].facts["ahead"]) == ("1 that is due comes before it", "1")


async def test_what_is_ahead_is_counted_in_the_order_of_dispatch_and_among_rivals_alone(world: World) -> None:
    await world.processor("oven", can=("cook", "bake"), max_in_flight=1)
    await world.scheduler.enqueue()
    await world.dispatched()
    await world.scheduler.enqueue("bake", priority=2)
    await world.scheduler.enqueue("wash", priority=9)
    await world.scheduler.enqueue("bake", priority=1)
    task_id = await world.scheduler.enqueue(priority=1)
    await world.scheduler.enqueue(priority=1)
    await world.scheduler.enqueue(priority=9, delay=span(60))

    assert (await explained(world, task_id)).reasons[1].facts["ahead"] == "2"
    await world.admin.pause("bake")
    assert kinds(await explained(world, task_id)) == ["NO_CREDITS"]


async def test_of_more_rivals_than_are_looked_at_its_own_are_counted_and_that_there_may_be_more_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskq_server.store.verbs.inspecting.MOST_ROUTES", 1)
    await world.processor("oven", can=("bake", "cook"), max_in_flight=1)
    await world.scheduler.enqueue("bake")
    await world.dispatched()
    await world.scheduler.enqueue("cook")
    task_id = await world.scheduler.enqueue("cook")

    behind = (await explained(world, task_id)).reasons[1]

    assert (behind.text, behind.facts["ahead"]) == ("1 or more that are due come before it", "1+")


async def test_several_reasons_are_told_together_the_first_to_change_first(world: World) -> None:
    await world.admin.pause("cook")
    task_id = await world.scheduler.enqueue(
        delay=span(7_200), expire_time=time_at(world.clock.now_us() + 86_400_000_000)
    )

    response = await explained(world, task_id)

    assert kinds(response) == ["NOT_DUE", "CAPABILITY_PAUSED", "NO_PROCESSOR", "EXPIRES"]
    assert response.summary.startswith("It is due in 2 h; cook is paused since ")


async def test_nothing_keeps_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.processor()
    monkeypatch.setattr(world.server._sessions, "demand", Demand)  # nothing is dispatched in this moment
    task_id = await world.scheduler.enqueue()

    assert (
        only(await explained(world, task_id), "ABOUT_TO_RUN").text == "nothing keeps it: it is about to be dispatched"
    )


# ── its key ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_it_holds_its_key(world: World) -> None:
    await world.processor()
    keys = [
        scheduler_pb2.Dedup(key="table-1", hold=scheduler_pb2.DEDUP_HOLD_UNFINISHED),
        scheduler_pb2.Dedup(key="table-2", hold=scheduler_pb2.DEDUP_HOLD_TTL, ttl=span(300)),
        scheduler_pb2.Dedup(key="table-3", hold=scheduler_pb2.DEDUP_HOLD_BOTH, ttl=span(300), scope="kitchen"),
    ]
    task_ids = [await world.scheduler.enqueue(delay=span(60), dedup=key) for key in keys]

    found = [await explained(world, one) for one in task_ids]

    assert [kinds(one) for one in found] == [["NOT_DUE", "HOLDS_KEY"]] * 3
    assert [one.reasons[1].text.partition(":")[0] for one in found] == [
        "it holds the key table-1 of cook, until it has finished",
        "it holds the key table-2 of cook, for another 5 min",
        "it holds the key table-3 of kitchen, until it has finished and for another 5 min at least",
    ]
    facts = dict(found[2].reasons[1].facts)
    assert facts.pop("hold_until").startswith("2")
    assert facts == {"key": "table-3", "scope": "kitchen", "task_id": task_ids[2]}


async def test_its_key_is_held_by_another(world: World) -> None:
    dedup = scheduler_pb2.Dedup(key="table-7")
    given_up = await world.scheduler.enqueue(delay=span(60), dedup=dedup)
    await world.scheduler.cancel(given_up)
    holder = await world.scheduler.enqueue(delay=span(60), dedup=dedup)

    response = await explained(world, given_up)

    assert kinds(response) == ["FINISHED", "KEY_HELD"]
    assert response.reasons[1].text == f"the key table-7 of cook is held by {holder}, which is SCHEDULED"
    assert response.reasons[1].facts["task_id"] == holder


async def test_a_key_that_was_let_go_is_no_reason(world: World) -> None:
    kept = scheduler_pb2.Dedup(key="table-8", hold=scheduler_pb2.DEDUP_HOLD_TTL, ttl=span(300))
    finished = [
        await world.scheduler.enqueue(delay=span(60), dedup=dedup)
        for dedup in (scheduler_pb2.Dedup(key="table-7"), kept)
    ]
    for task_id in finished:
        await world.scheduler.cancel(task_id)

    at_once = [kinds(await explained(world, task_id)) for task_id in finished]
    world.clock.advance(301)
    later = [kinds(await explained(world, task_id)) for task_id in finished]

    assert at_once == [["FINISHED"], ["FINISHED", "HOLDS_KEY"]]
    assert later == [["FINISHED"], ["FINISHED"]]


# ── what became of it ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_it_runs(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue(run_timeout=span(600))
    await processor.take_one()
    world.clock.advance(5)

    response = await explained(world, task_id)

    assert response.state == RUNNING
    text = "it has run on oven for 5 s, in attempt 1, and will be ended in 9 min 55 s"
    assert only(response, "RUNNING").text == text


async def test_it_is_finished(world: World) -> None:
    processor = await world.processor()
    done = await world.scheduler.enqueue()
    await processor.succeed(await processor.take_one())
    failed = await world.scheduler.enqueue(retry_policy=retrying(max_attempts=1))
    await processor.fail(await processor.take_one(), message="smoke")
    given_up = await world.scheduler.enqueue("bake")
    await world.scheduler.cancel(given_up)
    late = await world.scheduler.enqueue("bake", expire_time=time_at(world.clock.now_us() + 1_000_000))
    await world.let_pass(3, processor)

    found = [await explained(world, one) for one in (done, failed, given_up, late)]

    assert [one.state for one in found] == [SUCCEEDED, FAILED, CANCELLED, FAILED]
    assert [only(one, "FINISHED").text for one in found] == [
        "it succeeded 3 s ago, on oven, in attempt 1",
        "it failed 3 s ago, with 1 of 1 attempt used: Burnt: smoke",
        "it was cancelled 3 s ago",
        "it failed 0 s ago: it was not started before its expire_time",
    ]


async def test_what_does_not_exist_is_not_explained(world: World) -> None:
    assert (await refused(explained(world, UNKNOWN_ID))).reason == "TASK_NOT_FOUND"
    assert list((await refused(explained(world, "x"))).faults) == ["task_id"]
