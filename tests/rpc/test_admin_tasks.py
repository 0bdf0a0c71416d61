"""What administrators see of tasks: pages by a filter, and one with its past."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from taskq.v1 import admin_service_pb2_grpc, admin_task_pb2, task_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server.rpc.pages import MOST_BYTES
from tests.conftest import StartServer
from tests.rpc.callers import granted, showing
from tests.rpc.support import (
    CANCELLED,
    FAILED,
    RUNNING,
    SCHEDULED,
    SUCCEEDED,
    UNKNOWN_ID,
    RawScheduler,
    a_task,
    microseconds,
    refused,
    retrying,
    soon,
    span,
    time_at,
)
from tests.rpc.world import World

BASIC, FULL = admin_task_pb2.TASK_VIEW_BASIC, admin_task_pb2.TASK_VIEW_FULL
Event = admin_task_pb2.TimelineEvent


async def listed(world: World, text: str = "", **asked: Any) -> admin_task_pb2.ListTasksResponse:
    request = admin_task_pb2.ListTasksRequest(filter=text, **asked)
    return await soon(world.admin.stub.ListTasks(request))  # type: ignore[no-any-return]


async def ids_of(world: World, text: str = "", **asked: Any) -> list[str]:
    """All pages, one after the other."""
    found, token = [], None
    while token != "":
        page = await listed(world, text, page_token=token or "", **asked)
        found += [task.task_id for task in page.tasks]
        token = page.next_page_token
    return found


async def detail(world: World, task_id: str, view: int = BASIC) -> admin_task_pb2.TaskDetail:
    request = admin_task_pb2.AdminServiceGetTaskRequest(task_id=task_id, view=view)  # type: ignore[arg-type]
    return (await soon(world.admin.stub.GetTask(request))).detail  # type: ignore[no-any-return]


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_tasks_are_listed_those_enqueued_last_first_a_page_at_a_time(world: World) -> None:
    ids = [await world.scheduler.enqueue() for _ in range(5)]

    for size, lengths in ((2, [2, 2, 1]), (5, [5]), (4, [4, 1]), (0, [5]), (1_000_000, [5])):
        pages, token = [], None
        while token != "":
            page = await listed(world, page_size=size, page_token=token or "")
            pages.append([task.task_id for task in page.tasks])
            token = page.next_page_token
        assert [len(page) for page in pages] == lengths
        assert [task_id for page in pages for task_id in page] == ids[::-1]


async def test_tasks_are_listed_by_what_a_filter_says(world: World) -> None:
    processor = await world.processor(can=("cook",))
    done = await world.scheduler.enqueue(tags=["urgent"])
    await processor.succeed(await processor.take_one())
    waits = await world.scheduler.enqueue("bake", due_time=time_at(world.clock.now_us() + 60_000_000))

    assert await ids_of(world, "state:SUCCEEDED name:cook tag:urgent") == [done]
    assert await ids_of(world, "state:SCHEDULED due_time<=now+1m") == [waits]
    assert await ids_of(world, "is:due") == []
    world.clock.advance(60)
    assert await ids_of(world, "is:due") == [waits]


async def test_those_that_match_are_counted_when_that_is_asked_for(world: World) -> None:
    await world.scheduler.enqueue_all(*(a_task("cook" if i % 2 else "bake") for i in range(6)))

    asked = await listed(world, "name:bake", page_size=1, with_total=True)
    not_asked = await listed(world, "name:bake", page_size=1)

    assert (len(asked.tasks), asked.total_size, asked.total_is_partial) == (1, 3, False)
    assert (not_asked.total_size, not_asked.total_is_partial) == (0, False)


async def test_a_count_that_is_broken_off_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.scheduler.enqueue_all(*(a_task() for _ in range(6)))
    monkeypatch.setattr("taskq_server.admin_tasks.FIRST_LOOK", 4)
    monkeypatch.setattr("taskq_server.admin_tasks.MOST_LOOKED_AT", 4)

    total = await listed(world, with_total=True)

    assert (total.total_size, total.total_is_partial) == (4, True)


async def test_a_page_ends_after_a_bounded_look_though_nothing_was_found_yet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await world.scheduler.enqueue(tags=["first"])
    await world.scheduler.enqueue_all(*(a_task() for _ in range(9)))
    monkeypatch.setattr("taskq_server.admin_tasks.FIRST_LOOK", 4)
    monkeypatch.setattr("taskq_server.admin_tasks.MOST_LOOKED_AT", 4)

    page = await listed(world, "tag:first")

    assert (list(page.tasks), page.next_page_token != "") == ([], True)
    assert await ids_of(world, "tag:first") == [first]


async def test_a_page_token_is_good_for_the_same_filter_alone_however_it_is_spelt(world: World) -> None:
    await world.scheduler.enqueue_all(*(a_task() for _ in range(3)))
    token = (await listed(world, "state:SCHEDULED name:cook", page_size=1)).next_page_token

    again = await listed(world, 'name="cook"  state:scheduled', page_size=1, page_token=token)
    other = await refused(listed(world, "state:SCHEDULED", page_token=token))

    assert len(again.tasks) == 1
    assert list(other.faults) == ["page_token"]


async def test_what_is_wrong_with_a_filter_is_told_with_all_else_that_is_wrong(world: World) -> None:
    refusal = await refused(listed(world, "state:FAILED colour:red", page_size=-1, page_token="x", view=9))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert set(refusal.faults) == {"filter", "page_size", "page_token", "view"}
    assert "at character 14; has 'colour'" in refusal.faults["filter"]
    assert "one of the keys id, state, is, name" in refusal.faults["filter"]


async def test_a_list_shows_what_may_be_large_in_view_full_alone(world: World) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue(data=b"in", headers={"a": "b"}, retry_policy=retrying(max_attempts=1))
    await processor.fail(await processor.take_one(), message="it burnt", stack="at line 1")
    await world.scheduler.enqueue()
    await processor.succeed(await processor.take_one(), b"out")

    basic = {task.state: task for task in (await listed(world)).tasks}
    full = {task.state: task for task in (await listed(world, view=FULL)).tasks}

    assert set(basic) == set(full) == {FAILED, SUCCEEDED}
    failure = basic[FAILED].last_failure
    assert (failure.error_type, failure.message, failure.stack) == ("Burnt", "it burnt", "")
    assert not basic[FAILED].HasField("payload") and not basic[FAILED].headers
    assert not basic[SUCCEEDED].HasField("result")
    assert (full[FAILED].payload.data, dict(full[FAILED].headers)) == (b"in", {"a": "b"})
    assert full[FAILED].last_failure.stack == "at line 1"
    assert full[SUCCEEDED].result.data == b"out"


async def test_a_page_that_has_grown_large_ends_and_the_next_goes_on(world: World) -> None:
    payload = b"x" * 200_000
    ids = [await world.scheduler.enqueue(data=payload) for _ in range(14)]

    page = await listed(world, view=FULL)

    assert MOST_BYTES < page.ByteSize() < MOST_BYTES + 250_000
    assert page.next_page_token
    assert await ids_of(world, view=FULL) == ids[::-1]


# ── one ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_task_is_shown_with_every_attempt_and_its_timeline(world: World) -> None:
    began_us = world.clock.now_us()
    processor = await world.processor()
    task_id = await world.scheduler.enqueue(retry_policy=retrying(60), run_timeout=span(10), data=b"x")
    await processor.fail(await processor.take_one(), message="it burnt", stack="at line 1")
    await world.let_pass(60, processor)
    await processor.take_one()

    shown = await detail(world, task_id)

    first, second = shown.attempts
    assert (first.attempt, first.session_id, first.processor_name) == (1, processor.session_id, "oven")
    assert (first.outcome, first.failure.error_type) == (admin_task_pb2.ATTEMPT_OUTCOME_FAILED, "Burnt")
    assert (first.failure.message, first.failure.stack) == ("it burnt", "")
    assert (second.attempt, second.outcome, second.HasField("end_time")) == (2, 0, False)
    assert shown.task.state == RUNNING
    assert not shown.task.HasField("payload")
    due_us = began_us + 60_000_000
    assert microseconds(shown.run_deadline) == due_us + 10_000_000
    assert [(entry.event, entry.attempt, microseconds(entry.time) - began_us) for entry in shown.timeline] == [
        (Event.TIMELINE_EVENT_ENQUEUED, 0, 0),
        (Event.TIMELINE_EVENT_LEASED, 1, 0),
        (Event.TIMELINE_EVENT_ATTEMPT_ENDED, 1, 0),
        (Event.TIMELINE_EVENT_DUE, 0, 60_000_000),
        (Event.TIMELINE_EVENT_LEASED, 2, 60_000_000),
        (Event.TIMELINE_EVENT_RUN_DEADLINE, 2, 70_000_000),
    ]
    assert shown.timeline[2].text == "it failed, on oven: Burnt: it burnt"


async def test_the_end_of_a_task_is_an_attempt_and_a_point_of_its_timeline(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue(retention=span(60))
    await processor.succeed(await processor.take_one(), b"done")

    shown = await detail(world, task_id)

    (only,) = shown.attempts
    assert (only.attempt, only.outcome) == (1, admin_task_pb2.ATTEMPT_OUTCOME_SUCCEEDED)
    assert only.end_time == shown.task.finish_time
    assert microseconds(shown.prune_time) == microseconds(shown.task.finish_time) + 60_000_000
    events = [entry.event for entry in shown.timeline]
    assert events[-2:] == [Event.TIMELINE_EVENT_FINISHED, Event.TIMELINE_EVENT_PRUNED]


async def test_a_task_that_never_started_has_no_attempts_and_tells_when_it_expires(world: World) -> None:
    expires = time_at(world.clock.now_us() + 60_000_000)
    task_id = await world.scheduler.enqueue(expire_time=expires, delay=span(30))

    waits = await detail(world, task_id)
    await world.scheduler.cancel(task_id)
    cancelled = await detail(world, task_id)

    assert list(waits.attempts) == list(cancelled.attempts) == []
    assert [entry.event for entry in waits.timeline] == [
        Event.TIMELINE_EVENT_ENQUEUED,
        Event.TIMELINE_EVENT_DUE,
        Event.TIMELINE_EVENT_EXPIRES,
    ]
    assert (waits.task.state, cancelled.task.state) == (SCHEDULED, CANCELLED)
    assert not waits.HasField("prune_time")


async def test_of_very_many_attempts_the_first_and_the_last_are_shown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskq_server.store.verbs.inspecting.FIRST_ATTEMPTS", 2)
    monkeypatch.setattr("taskq_server.store.verbs.inspecting.LAST_ATTEMPTS", 3)
    processor = await world.processor()
    task_id = await world.scheduler.enqueue(retry_policy=retrying(0, max_attempts=100))
    for _ in range(7):
        await processor.fail(await processor.take_one())
    await processor.take_one()

    assert [one.attempt for one in (await detail(world, task_id)).attempts] == [1, 2, 6, 7, 8]


async def test_of_many_long_failures_those_in_the_middle_are_told_in_short(world: World) -> None:
    processor = await world.processor()
    data = b"x" * 262_144
    task_id = await world.scheduler.enqueue(data=data, retry_policy=retrying(0, max_attempts=80))
    for _ in range(80):
        await processor.fail(await processor.take_one(), message="é" * 1_000, stack="é" * 32_768)

    shown = await detail(world, task_id, FULL)

    assert [one.attempt for one in shown.attempts if one.failure.stack] == [*range(1, 16), *range(65, 81)]
    assert [one.attempt for one in shown.attempts] == [*range(1, 81)]
    assert {one.failure.error_type for one in shown.attempts} == {"Burnt"}
    assert not shown.attempts[40].failure.message
    assert shown.task.payload.data == data
    of_basic = await detail(world, task_id)
    assert {(len(one.failure.message), one.failure.stack) for one in of_basic.attempts} == {(1_000, "")}


async def test_text_is_shown_as_text_to_those_who_may_read_it(world: World) -> None:
    processor = await world.processor()
    text = task_pb2.Payload(data="süß".encode(), content_type="text/plain; charset=utf-8")
    of_text = await world.scheduler.enqueue(payload=text, dedup={"key": "k"})
    await processor.succeed(await processor.take_one(), b"\xff")
    of_json = await world.scheduler.enqueue(payload=task_pb2.Payload(data=b'{"a":1}', content_type="application/json"))
    of_bytes = await world.scheduler.enqueue(payload=task_pb2.Payload(data=b"\xff", content_type="text/plain"))

    shown = await detail(world, of_text, FULL)

    assert (shown.payload_text, shown.result_text, shown.dedup_key) == ("süß", "", "k")
    assert (await detail(world, of_json, FULL)).payload_text == '{"a":1}'
    assert (await detail(world, of_bytes, FULL)).payload_text == ""
    assert (await detail(world, of_text)).payload_text == ""


async def test_who_asks_for_no_task_is_told_so(world: World) -> None:
    unknown = await refused(detail(world, UNKNOWN_ID))
    nonsense = await refused(detail(world, "x"))

    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
    assert list(nonsense.faults) == ["task_id"]


# ── who may ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_tasks_carry_is_shown_to_those_who_may_read_payloads(
    start_server: StartServer, database_url: str
) -> None:
    server = await start_server(auth="required")
    reader = showing(await granted(server, "reader", "read"))
    auditor = showing(await granted(server, "auditor", "payload:read"))
    cook = showing(await granted(server, "cook", "read", "enqueue:cook"))
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = admin_service_pb2_grpc.AdminServiceStub(channel)
        scheduler = RawScheduler(channel)
        request = scheduler_pb2.EnqueueRequest(tasks=[a_task(data=b"x")])
        task_id = (await soon(scheduler.stub.Enqueue(request, metadata=cook))).results[0].task_id
        all_in_full = admin_task_pb2.ListTasksRequest(view=FULL)
        one_in_full = admin_task_pb2.AdminServiceGetTaskRequest(task_id=task_id, view=FULL)

        assert len((await stub.ListTasks(admin_task_pb2.ListTasksRequest(), metadata=reader)).tasks) == 1
        for call, asked in ((stub.ListTasks, all_in_full), (stub.GetTask, one_in_full)):
            refusal = await refused(call(asked, metadata=reader))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
            assert "payload:read" in refusal.message
        assert (await stub.ListTasks(all_in_full, metadata=auditor)).tasks[0].payload.data == b"x"
        assert (await stub.GetTask(one_in_full, metadata=auditor)).detail.task.payload.data == b"x"
        assert (await stub.GetTask(one_in_full, metadata=cook)).detail.task.payload.data == b"x"
