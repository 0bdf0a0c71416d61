"""The same done to many tasks: counted, confirmed, started, followed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest

from taskq.v1 import bulk_operation_pb2 as bulk
from tests.clients.command_support import CTRL_C, ScriptedAdmin, Taskq, on_a_terminal, serving_admin
from tests.clients.scripted_scheduler_service import Refusal

ID = "01935000-0000-7000-8000-00000000000%d"
CANCEL = ("task", "cancel", "--filter", "name:cook")


@pytest.fixture
async def admin_service() -> ScriptedAdmin:
    service = ScriptedAdmin()
    service.on(bulk.StartBulkOperationRequest, lambda request: started(request, matched=3))
    service.on(bulk.GetBulkOperationRequest, lambda request: ended(request.operation_id, done=3))
    return service


@pytest.fixture
async def taskq(admin_service: ScriptedAdmin) -> AsyncIterator[Taskq]:
    async with serving_admin(admin_service) as address:
        yield Taskq(address)


def started(request: Any, matched: int, **fields: Any) -> bulk.StartBulkOperationResponse:
    operation = bulk.BulkOperation(
        operation_id=request.operation_id,
        state=bulk.BULK_OPERATION_STATE_UNSPECIFIED if request.dry_run else bulk.BULK_OPERATION_STATE_RUNNING,
        action=request.action,
        filter=request.filter,
        matched_tasks=matched,
        **fields,
    )
    return bulk.StartBulkOperationResponse(operation=operation)


def ended(operation_id: str, done: int, **fields: Any) -> bulk.GetBulkOperationResponse:
    operation = bulk.BulkOperation(
        operation_id=operation_id,
        state=bulk.BULK_OPERATION_STATE_SUCCEEDED,
        matched_tasks=done + fields.get("skipped_tasks", 0),
        done_tasks=done,
        **fields,
    )
    return bulk.GetBulkOperationResponse(operation=operation)


def starts(service: ScriptedAdmin) -> list[Any]:
    return service.asked(bulk.StartBulkOperationRequest)


async def test_a_dry_run_says_how_many_and_starts_nothing(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    assert (await taskq.done(*CANCEL, "--dry-run"))["operation"]["matchedTasks"] == "3"
    assert await taskq.table(*CANCEL, "--dry-run") == "would:   cancel\nfilter:  name:cook\nmatched: 3\n"
    request, _ = admin_service.requests
    assert request.dry_run and request.filter == "name:cook" and request.action.HasField("cancel")


async def test_yes_starts_it_under_an_id_of_its_own_and_follows_it_to_its_end(
    taskq: Taskq, admin_service: ScriptedAdmin
) -> None:
    done = (await taskq.done(*CANCEL, "--yes", "--reason", "wrong menu", "--max-tasks", "9"))["operation"]

    assert (done["state"], done["doneTasks"]) == ("BULK_OPERATION_STATE_SUCCEEDED", "3")
    (request,) = starts(admin_service)
    assert (request.reason, request.max_tasks, request.dry_run) == ("wrong menu", 9, False)
    assert UUID(request.operation_id)


async def test_detached_it_is_not_followed(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    ended = await taskq(*CANCEL, "--yes", "--detach", "-o", "name")
    assert ended.out.strip() == starts(admin_service)[0].operation_id
    assert not admin_service.asked(bulk.GetBulkOperationRequest)


async def test_where_nobody_can_be_asked_it_needs_yes(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    for flags in ((), ("--no-input",)):
        assert "--yes" in await taskq.fails(2, *CANCEL, *flags)
    assert not admin_service.requests


async def test_at_a_terminal_it_is_asked_with_the_number_which_the_server_must_find_again(
    taskq: Taskq, admin_service: ScriptedAdmin
) -> None:
    ended = await on_a_terminal(taskq.address, *CANCEL, answers=[("[y/N]", "y\n")])

    assert ended.code == 0, ended.out
    assert "cancel 3 tasks matching 'name:cook'?" in ended.out
    counted, done = starts(admin_service)
    assert counted.dry_run and not done.dry_run
    assert done.expected_count == 3


async def test_where_servers_have_names_the_question_says_which_it_is(taskq: Taskq, tmp_path: Path) -> None:
    (tmp_path / "taskq").mkdir()
    (tmp_path / "taskq" / "config.toml").write_text(f'[profiles.prod]\naddress = "{taskq.address}"\n')
    answers = [("[y/N]", "n\n")]
    said = await on_a_terminal("", *CANCEL, "--profile", "prod", answers=answers, XDG_CONFIG_HOME=str(tmp_path))
    assert f"cancel 3 tasks matching 'name:cook' at {taskq.address} (profile prod)?" in said.out


async def test_more_than_a_thousand_are_confirmed_by_typing_their_number(
    taskq: Taskq, admin_service: ScriptedAdmin
) -> None:
    admin_service.on(bulk.StartBulkOperationRequest, lambda request: started(request, matched=12_345))

    wrong = await on_a_terminal(taskq.address, *CANCEL, answers=[("Type 12345", "y\n")])
    assert wrong.code == 1 and "nothing is done" in wrong.out
    assert all(request.dry_run for request in starts(admin_service))

    right = await on_a_terminal(taskq.address, *CANCEL, answers=[("Type 12345", "12345\n")])
    assert right.code == 0
    assert starts(admin_service)[-1].expected_count == 12_345


async def test_ctrl_c_at_the_question_is_130_at_once(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    ended = await on_a_terminal(taskq.address, *CANCEL, answers=[("[y/N]", CTRL_C)])
    assert ended.code == 130
    assert all(request.dry_run for request in starts(admin_service))


async def test_a_no_does_nothing_and_neither_does_a_filter_that_matches_none(
    taskq: Taskq, admin_service: ScriptedAdmin
) -> None:
    refused = await on_a_terminal(taskq.address, *CANCEL, answers=[("[y/N]", "n\n")])
    assert refused.code == 1

    admin_service.on(bulk.StartBulkOperationRequest, lambda request: started(request, matched=0))
    nothing = await on_a_terminal(taskq.address, *CANCEL)
    assert nothing.code == 0 and "no task matches" in nothing.out
    assert all(request.dry_run for request in starts(admin_service))


async def test_that_other_tasks_match_by_now_is_73_and_says_to_look_again(
    taskq: Taskq, admin_service: ScriptedAdmin
) -> None:
    admin_service.on(
        bulk.StartBulkOperationRequest, Refusal(grpc.StatusCode.FAILED_PRECONDITION, "COUNT_MISMATCH", expected="3")
    )
    assert "--dry-run" in await taskq.fails(73, *CANCEL, "--yes", "--expect", "3")


async def test_tasks_are_named_or_matched_but_not_both_and_never_all_by_accident(
    taskq: Taskq, admin_service: ScriptedAdmin
) -> None:
    assert "either their ids, or --filter" in await taskq.fails(2, "task", "delete", "--yes")
    assert "either their ids, or --filter" in await taskq.fails(2, *CANCEL, ID % 1, "--yes")
    assert "would match all tasks" in await taskq.fails(2, "task", "delete", "--filter", " ", "--yes")
    assert not admin_service.requests


async def test_named_tasks_that_could_not_be_changed_are_73_and_why(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    why = "task is running; must be finished"
    admin_service.on(
        bulk.GetBulkOperationRequest,
        lambda request: ended(request.operation_id, done=1, skipped_tasks=1, skipped_samples=[why]),
    )
    result = await taskq("task", "rerun", ID % 1, ID % 2)
    assert result.code == 73
    assert why in result.err and "1 of 2 tasks" in result.err
    assert starts(admin_service)[0].task_ids == [ID % 1, ID % 2]


@pytest.mark.parametrize(
    ("words", "action"),
    [
        (["rerun"], bulk.BulkAction(rerun=bulk.RerunAction())),
        (["reprioritise", "--priority", "9"], bulk.BulkAction(reprioritise=bulk.ReprioritiseAction(priority=9))),
        (["delete"], bulk.BulkAction(delete=bulk.DeleteAction())),
    ],
)
async def test_each_verb_asks_for_its_action(
    taskq: Taskq, admin_service: ScriptedAdmin, words: list[str], action: bulk.BulkAction
) -> None:
    assert (await taskq("task", *words, "--filter", "is:finished", "--yes")).code == 0
    assert starts(admin_service)[0].action == action


async def test_a_rerun_may_have_another_payload(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    assert (await taskq("task", "rerun", ID % 1, "-d", '{"dish": "stew"}')).code == 0
    payload = starts(admin_service)[0].action.rerun.payload
    assert (payload.data, payload.content_type) == (b'{"dish": "stew"}', "application/json")


@pytest.mark.parametrize(
    ("flags", "field"),
    [(["--at", "+5m"], "delay"), (["--delay", "5m"], "delay"), (["--at", "4102444800"], "due_time")],
)
async def test_tasks_are_moved_to_a_moment_or_by_the_servers_clock(
    taskq: Taskq, admin_service: ScriptedAdmin, flags: list[str], field: str
) -> None:
    assert (await taskq("task", "reschedule", ID % 1, *flags)).code == 0
    when = starts(admin_service)[0].action.reschedule
    assert when.WhichOneof("when") == field
    assert (when.delay.seconds, when.due_time.seconds) in ((300, 0), (0, 4_102_444_800))
    assert "either --at or --delay" in await taskq.fails(2, "task", "reschedule", ID % 1)


async def test_failures_that_are_alike_are_rerun_together(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    assert (await taskq("failure", "rerun", "4f1d", "--yes")).code == 0
    request = starts(admin_service)[0]
    assert request.filter == "state:FAILED failure:4f1d" and request.action.HasField("rerun")


async def test_an_operation_is_looked_at_and_followed(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    assert "state:   SUCCEEDED\nmatched: 3\ndone:    3\nskipped: 0\n" in await taskq.table("op", "get", ID % 7)
    assert (await taskq("op", "watch", ID % 7)).code == 0
    admin_service.on(bulk.CancelBulkOperationRequest, Refusal(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE"))
    await taskq.fails(73, "op", "cancel", ID % 7)
