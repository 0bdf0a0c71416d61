"""How lists are shown: page after page, as tables, as JSON, as names."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from admin_client import AdminClient
from admin_client.output import Column, Format, Output, Table, fitted
from taskq.v1 import admin_service_pb2 as admin
from taskq.v1 import admin_task_pb2 as tasks
from taskq.v1 import audit_pb2 as audit
from taskq.v1 import bulk_operation_pb2 as bulk
from taskq.v1 import failure_group_pb2 as failures
from taskq.v1 import stats_pb2 as stats
from taskq.v1.task_pb2 import TASK_STATE_FAILED, TASK_STATE_RUNNING, TASK_STATE_SCHEDULED, Failure, Task
from tests.clients.command_support import ScriptedAdmin, Taskq, on_a_terminal, serving_admin, without_colour

NOW = 1_800_000_000
ID = "01935000-0000-7000-8000-00000000000%d"


def at(seconds: float) -> Timestamp:
    """So many seconds from the server's now."""
    return Timestamp(seconds=NOW + math.floor(seconds), nanos=round(seconds % 1 * 1e9))


@pytest.fixture
async def admin_service() -> ScriptedAdmin:
    return ScriptedAdmin()


@pytest.fixture
async def taskq(admin_service: ScriptedAdmin) -> AsyncIterator[Taskq]:
    async with serving_admin(admin_service) as address:
        yield Taskq(address)


def page(*places: int, token: str = "", **fields: Any) -> tasks.ListTasksResponse:
    found = [Task(task_id=ID % place, name="cook") for place in places]
    return tasks.ListTasksResponse(tasks=found, next_page_token=token, server_time=at(0), **fields)


def three_pages() -> list[tasks.ListTasksResponse]:
    """The second is empty, and is not the last."""
    return [page(1, 2, token="a"), page(token="b"), page(3)]


async def test_a_list_goes_on_by_itself_where_a_page_holds_less_than_was_asked_for(
    taskq: Taskq, admin_service: ScriptedAdmin
) -> None:
    admin_service.on(tasks.ListTasksRequest, *three_pages())

    ended = await taskq("task", "list", "--filter", "state:FAILED", "--limit", "10")
    assert [task["taskId"] for task in ended.lines] == [ID % 1, ID % 2, ID % 3]
    asked = admin_service.asked(tasks.ListTasksRequest)
    assert [(request.page_token, request.page_size) for request in asked] == [("", 10), ("a", 8), ("b", 8)]
    assert {request.filter for request in asked} == {"state:FAILED"}


async def test_no_more_is_shown_than_was_asked_for_and_that_there_is_more_is_said(
    taskq: Taskq, admin_service: ScriptedAdmin
) -> None:
    admin_service.on(tasks.ListTasksRequest, page(1, 2, token="a"))

    ended = await taskq("task", "list", "--limit", "2", "-o", "name")
    assert ended.out == f"{ID % 1}\n{ID % 2}\n"
    assert "--all" in ended.err
    assert len(admin_service.requests) == 1


@pytest.mark.parametrize(
    ("kind", "kept"), [("jsonl", 2), ("name", 2), ("none", 2), ("json", 3), ("yaml", 3), ("table", 3)]
)
async def test_pages_are_kept_until_the_end_only_where_they_are_shown_as_one(
    kind: Format, kept: int, capsys: pytest.CaptureFixture[str]
) -> None:
    told = three_pages()

    async def pages() -> AsyncIterator[tasks.ListTasksResponse]:
        for one in told:
            yield one

    await Output(kind).show_list(pages(), Table([Column("ID", lambda task, _: task.task_id)], lambda task: "", ""))
    assert len(told[0].tasks) == kept, "the next ones are added to the first"


async def test_json_is_one_answer_with_the_items_of_all_pages_and_the_last_token(
    taskq: Taskq, admin_service: ScriptedAdmin
) -> None:
    admin_service.on(tasks.ListTasksRequest, page(1, token="a"), page(2, token="b"))

    shown = await taskq.done("task", "list", "--limit", "2")
    whole = json_format.ParseDict(shown, tasks.ListTasksResponse())
    assert whole == page(1, 2, token="b")


async def test_all_means_all_and_a_token_goes_on(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    admin_service.on(tasks.ListTasksRequest, *three_pages())

    ended = await taskq("task", "list", "--all", "--page-token", "x", "-o", "name")
    assert len(ended.out.splitlines()) == 3 and ended.err == ""
    assert [request.page_size for request in admin_service.requests] == [1_000, 1_000, 1_000]
    assert admin_service.requests[0].page_token == "x"


async def test_a_library_gets_the_same_pages(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    admin_service.on(tasks.ListTasksRequest, *three_pages())

    async with AdminClient(taskq.address) as client:
        pages = [page async for page in client.list_tasks(limit=None)]
    assert [len(page.tasks) for page in pages] == [2, 0, 1]


async def test_tasks_are_a_table_without_what_nobody_has(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    failure = Failure(error_type="OvenCold", message="no heat\nat all")
    found = [
        Task(
            task_id=ID % 1, name="cook", state=TASK_STATE_FAILED, attempt=5, priority=7, enqueue_time=at(-3_700),
            due_time=at(-3_600), finish_time=at(-2.5), processor_name="oven", last_failure=failure,
        ),
        Task(task_id=ID % 2, name="cook.slowly", state=TASK_STATE_SCHEDULED, enqueue_time=at(-1), due_time=at(125)),
    ]  # fmt: skip
    answer = tasks.ListTasksResponse(tasks=found, server_time=at(0))
    admin_service.on(tasks.ListTasksRequest, answer)

    assert await taskq.table("task", "list") == (
        "ID                                    NAME         STATE      PRIORITY  ATTEMPT  ENQUEUED   DUE"
        "       FINISHED  PROCESSOR  FAILURE\n"
        "01935000-0000-7000-8000-000000000001  cook         FAILED            7        5  1h01m ago  1h ago"
        "    2.5s ago  oven       OvenCold: no heat at all\n"
        "01935000-0000-7000-8000-000000000002  cook.slowly  SCHEDULED                     1s ago     in 2m05s\n"
    )


async def test_that_there_is_nothing_is_said_beside_the_data(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    admin_service.on(tasks.ListTasksRequest, page())

    ended = await taskq("task", "list", "-o", "table")
    assert (ended.code, ended.out, ended.err) == (0, "", "no task matches\n")


async def test_a_count_is_the_number_and_says_when_there_are_more(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    admin_service.on(tasks.ListTasksRequest, page(1, total_size=12_345, total_is_partial=True))

    assert await taskq.table("task", "count", "--filter", "name:cook") == "12,345+\n"
    (request,) = admin_service.requests
    assert (await taskq("task", "count", "-o", "name")).out == "12345\n", "for a script to reckon with"
    assert (await taskq.done("task", "count")).keys() == {"serverTime", "totalSize", "totalIsPartial"}
    assert (request.filter, request.with_total, request.page_size) == ("name:cook", True, 1)


async def test_a_task_is_shown_with_its_past(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    detail = tasks.TaskDetail(
        task=Task(task_id=ID % 1, name="cook", state=TASK_STATE_RUNNING, attempt=2, failed_attempts=1),
        attempts=[
            tasks.Attempt(
                attempt=1, processor_name="oven-1", lease_time=at(-60), end_time=at(-50),
                outcome=tasks.ATTEMPT_OUTCOME_FAILED, failure=Failure(error_type="Cold", message="brr"),
            ),
            tasks.Attempt(attempt=2, processor_name="oven-2", lease_time=at(-5)),
        ],
        timeline=[
            tasks.TimelineEntry(time=at(-90), text="enqueued by alice"),
            tasks.TimelineEntry(time=at(55), text="the attempt is ended"),
        ],
        schedule_name="breakfast",
        payload_text='{"dish": "soup"}',
    )  # fmt: skip
    answer = tasks.AdminServiceGetTaskResponse(detail=detail, server_time=at(0))
    admin_service.on(tasks.AdminServiceGetTaskRequest, answer)

    shown = await taskq.table("task", "get", ID % 1, "--full")
    assert 'payload:  {"dish": "soup"}' in shown and "schedule: breakfast" in shown
    assert (
        "Attempts\n"
        "ATTEMPT  OUTCOME  LEASED  ENDED    PROCESSOR  FAILURE\n"
        "      1  FAILED   1m ago  50s ago  oven-1     Cold: brr\n"
        "      2  RUNNING  5s ago           oven-2\n"
    ) in shown
    assert "Timeline\nWHEN       WHAT\n1m30s ago  enqueued by alice\nin 55s     the attempt is ended\n" in shown
    assert admin_service.requests[0].view == tasks.TASK_VIEW_FULL


async def test_a_stack_trace_keeps_its_lines_and_moves_no_cursor(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    stack = 'Traceback:\n  File "oven.py"\x1b[2J\nCold: brr\n'
    one = Task(task_id=ID % 1, last_failure=Failure(error_type="Cold", message="brr", stack=stack))
    answer = tasks.AdminServiceGetTaskResponse(detail=tasks.TaskDetail(task=one))
    admin_service.on(tasks.AdminServiceGetTaskRequest, answer)

    shown = await taskq.table("task", "get", ID % 1, "--full")
    assert shown.endswith('\n\nStack trace\nTraceback:\n  File "oven.py"�[2J\nCold: brr\n')


async def test_why_a_task_is_not_running_is_said_in_sentences(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    reasons = [tasks.Reason(text="no processor is registered for gpu-render; known are cpu-render")]
    reasons.append(tasks.Reason(text="it expires in 5 min"))
    answer = tasks.ExplainTaskResponse(state=TASK_STATE_SCHEDULED, summary=f"No{reasons[0].text[2:]}.", reasons=reasons)
    admin_service.on(tasks.ExplainTaskRequest, answer)

    assert await taskq.table("task", "explain", ID % 1) == (
        "SCHEDULED: No processor is registered for gpu-render; known are cpu-render.\n\n1: it expires in 5 min\n"
    )


async def test_capabilities_say_what_is_asked_of_whom(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    pause = admin.CapabilityPause(reason="the stove is mended", pause_time=at(-3_600))
    found = [
        admin.CapabilityView(name="cook", due_tasks=1_000, later_tasks=3, running_tasks=8, processors=2, pause=pause),
        admin.CapabilityView(name="gpu-render", due_tasks=1, first_due_time=at(-30)),
    ]
    answer = admin.ListCapabilitiesResponse(capabilities=found, server_time=at(0))
    admin_service.on(admin.ListCapabilitiesRequest, answer)

    assert await taskq.table("capability", "list") == (
        "NAME        STATE            DUE  LATER  FIRST DUE  RUNNING  PROCESSORS  FREE  SINCE   WHY\n"
        "cook        PAUSED        1,000+      3                   8           2     0  1h ago  the stove is mended\n"
        "gpu-render  NO PROCESSOR       1      0  30s ago          0           0     0\n"
    )


async def test_failures_audit_and_operations_are_tables(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    group = failures.FailureGroup(
        fingerprint="4f1d", name="cook", error_type="Cold", pattern="oven # is cold", failures=1_234, failed_tasks=7,
        last_time=at(-9),
    )  # fmt: skip
    admin_service.on(
        failures.ListFailureGroupsRequest, failures.ListFailureGroupsResponse(groups=[group], server_time=at(0))
    )
    entry = audit.AuditEntry(
        entry_id=7, change_time=at(0), principal="alice", peer="10.0.0.7", source=audit.AUDIT_SOURCE_CLI,
        action="AdminService/PauseCapability", target_kind="capability", target="cook", reason="mended",
    )  # fmt: skip
    admin_service.on(audit.ListAuditEntriesRequest, audit.ListAuditEntriesResponse(entries=[entry]))
    done = bulk.BulkOperation(
        operation_id=ID % 9, state=bulk.BULK_OPERATION_STATE_SUCCEEDED, matched_tasks=5, done_tasks=4, skipped_tasks=1,
        filter="state:FAILED", action=bulk.BulkAction(reprioritise=bulk.ReprioritiseAction(priority=9)),
    )  # fmt: skip
    admin_service.on(bulk.ListBulkOperationsRequest, bulk.ListBulkOperationsResponse(operations=[done]))

    assert await taskq.table("failure", "list") == (
        "FINGERPRINT  NAME  FAILURES  FAILED TASKS  LAST    ERROR  MESSAGE\n"
        "4f1d         cook     1,234             7  9s ago  Cold   oven # is cold\n"
    )
    assert await taskq.table("audit", "list", "--time", "iso") == (
        "WHEN                  WHO    FROM      BY   ACTION                        KIND        TARGET  WHY\n"
        "2027-01-15T08:00:00Z  alice  10.0.0.7  CLI  AdminService/PauseCapability  capability  cook    mended\n"
    )
    assert await taskq.table("op", "list") == (
        "ID                                    ACTION             STATE      MATCHED  DONE  SKIPPED  FILTER\n"
        "01935000-0000-7000-8000-000000000009  reprioritise to 9  SUCCEEDED        5     4        1  state:FAILED\n"
    )


async def test_the_audit_is_asked_for_by_whom_what_and_when(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    admin_service.on(audit.ListAuditEntriesRequest, audit.ListAuditEntriesResponse())

    flags = ["--principal", "alice", "--kind", "task", "--target", ID % 1, "--since", "1800000000"]
    assert (await taskq("audit", "list", *flags)).code == 0
    (request,) = admin_service.requests
    expected = audit.ListAuditEntriesRequest(principal="alice", target_kind="task", target=ID % 1, start_time=at(0))
    expected.page_size = 50
    assert request == expected


async def test_one_group_of_failures_is_found_among_all(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    group = failures.FailureGroup(fingerprint="4f1d", name="cook", last_message="brr")
    first = failures.ListFailureGroupsResponse(groups=[failures.FailureGroup(fingerprint="0")], next_page_token="a")
    admin_service.on(failures.ListFailureGroupsRequest, first, failures.ListFailureGroupsResponse(groups=[group]))

    assert (await taskq.done("failure", "get", "4f1d"))["lastMessage"] == "brr"
    assert "`taskq failure list" in await taskq.fails(69, "failure", "get", "nope")


async def test_top_is_one_look_where_there_is_no_terminal(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    states = [stats.StateCount(state=TASK_STATE_RUNNING, tasks=3)]
    figures = stats.GetStatsResponse(server_time=at(0), states=states, running_tasks=3, credits=8, processors=1)
    admin_service.on(stats.GetStatsRequest, figures)
    admin_service.on(admin.ListCapabilitiesRequest, admin.ListCapabilitiesResponse())
    admin_service.on(admin.ListProcessorsRequest, admin.ListProcessorsResponse())
    admin_service.on(failures.ListFailureGroupsRequest, failures.ListFailureGroupsResponse())

    shown = await taskq.table("top", "--once")
    assert "tasks:      RUNNING 3" in shown and "running:    3 of 8 credits" in shown
    assert (await taskq.done("top"))["credits"] == "8"


@pytest.mark.parametrize(
    ("room", "widths"),
    [
        (101, [36, 20, 9, 30]),  # as they are
        (100, [36, 20, 9, 29]),
        (89, [36, 19, 9, 19]),  # long ones become narrower, the widest first
        (67, [36, 8, 9, 8]),
        (66, [36, 17, 9]),  # then the last is left out, and its room is for the others
        (46, [36, 8]),
        (45, [36]),
        (10, [36]),  # there is always one
    ],
)
def test_what_does_not_fit_becomes_narrower_then_the_last_columns_go(room: int, widths: list[int]) -> None:
    assert fitted([36, 20, 9, 30], [False, True, False, True], room) == widths


async def test_a_narrow_terminal_says_what_it_has_no_room_for(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    found = Task(
        task_id=ID % 1, name="cook.very.slowly.indeed", state=TASK_STATE_FAILED, enqueue_time=at(-9), due_time=at(-8),
        finish_time=at(-7), processor_name="oven",
    )  # fmt: skip
    admin_service.on(tasks.ListTasksRequest, tasks.ListTasksResponse(tasks=[found], server_time=at(0)))

    shown = (await on_a_terminal(taskq.address, "task", "list", NO_COLOR="1", COLUMNS="80")).out
    title, line, said = shown.splitlines()
    assert title.split() == ["ID", "NAME", "STATE", "ENQUEUED", "DUE"]
    assert line.split() == [ID % 1, "cook.very.slowl…", "FAILED", "9s", "ago", "8s", "ago"]
    assert said == "there is no room for FINISHED, PROCESSOR: make it wider, or choose by --fields"


async def test_a_terminal_gets_a_table_in_colour_unless_it_was_asked_not_to(
    taskq: Taskq, admin_service: ScriptedAdmin
) -> None:
    found = Task(task_id=ID % 1, name="cook", state=TASK_STATE_FAILED)
    admin_service.on(tasks.ListTasksRequest, tasks.ListTasksResponse(tasks=[found], server_time=at(0)))

    coloured = await on_a_terminal(taskq.address, "task", "list")
    plain = await on_a_terminal(taskq.address, "task", "list", NO_COLOR="1")
    assert "\x1b[31mFAILED" in coloured.out
    assert "\x1b[" not in plain.out
    assert [line.rstrip() for line in without_colour(coloured.out).splitlines()] == plain.out.splitlines()
    assert plain.out.startswith("ID ")
    assert "\x1b[31m" in (await taskq("task", "list", "-o", "table", "--color", "always")).out
