"""What is shown: as YAML, and of everything only the fields that somebody names."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest
import yaml
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from taskq.v1 import admin_service_pb2 as admin
from taskq.v1 import admin_task_pb2 as tasks
from taskq.v1.task_pb2 import TASK_STATE_FAILED, TASK_STATE_RUNNING, Failure, Payload, Progress, Task
from tests.clients.command_support import ScriptedAdmin, Taskq, serving_admin

NOW = 1_800_000_000
ID = "01935000-0000-7000-8000-000000000001"
STACK = "Traceback:\n  File oven.py\nCold: brr\n"


@pytest.fixture
async def admin_service() -> ScriptedAdmin:
    return ScriptedAdmin()


@pytest.fixture
async def taskq(admin_service: ScriptedAdmin) -> AsyncIterator[Taskq]:
    async with serving_admin(admin_service) as address:
        yield Taskq(address)


def a_task(**more: object) -> Task:
    failure = Failure(error_type="Cold", message="brr", stack=STACK)
    due = Timestamp(seconds=NOW - 3_600)
    return Task(task_id=ID, name="cook", state=TASK_STATE_FAILED, due_time=due, last_failure=failure, **more)


def a_page(*found: Task, token: str = "") -> tasks.ListTasksResponse:
    return tasks.ListTasksResponse(tasks=found, next_page_token=token, server_time=Timestamp(seconds=NOW))


# ── yaml ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_yaml_is_what_json_is_and_one_answer(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    first, second = a_page(a_task(), token="a"), a_page(a_task(), token="b")
    admin_service.on(tasks.ListTasksRequest, first, second, first, second)

    ended = await taskq("task", "list", "--limit", "2", "-o", "yaml")
    assert (ended.code, ended.err) == (0, "")
    shown = yaml.safe_load(ended.out)
    assert shown == await taskq.done("task", "list", "--limit", "2")
    assert json_format.ParseDict(shown, tasks.ListTasksResponse()) == a_page(a_task(), a_task(), token="b")


async def test_yaml_is_made_to_be_read(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    admin_service.on(tasks.ListTasksRequest, a_page(a_task()))
    shown = (await taskq("task", "list", "-o", "yaml")).out

    assert "tasks:\n  - taskId: '01935000-0000-7000-8000-000000000001'\n    name: cook\n" in shown
    assert "      stack: |\n        Traceback:\n          File oven.py\n        Cold: brr\n" in shown


async def test_what_looks_like_a_number_stays_text_for_every_reader(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    likeness = ["12e3", "0o17", "1_000", "y", "no", "~", ".inf", "2027-01-15", "null"]
    admin_service.on(tasks.ListTasksRequest, a_page(a_task(tags=likeness)))
    shown = (await taskq("task", "list", "-o", "yaml")).out

    for text in likeness:
        assert f"- '{text}'\n" in shown


async def test_each_answer_of_a_stream_is_a_document(
    taskq: Taskq, admin_service: ScriptedAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin_service.on(tasks.ListTasksRequest, a_page(a_task()))
    monkeypatch.setattr("admin_client.lists.asyncio.sleep", _once(taskq))

    ended = await taskq("task", "list", "--watch", "-o", "yaml")
    assert len(list(yaml.safe_load_all(ended.out))) == 2


def _once(taskq: Taskq) -> object:
    looks: list[float] = []

    async def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            raise SystemExit(0)

    return sleep


async def test_an_error_is_json_where_yaml_was_asked_for(taskq: Taskq) -> None:
    error = yaml.safe_load(await taskq.fails(2, "task", "list", "--bogus", "-o", "yaml"))
    assert error["code"] == "USAGE"


async def test_without_its_library_yaml_says_how_to_install_it(
    taskq: Taskq, admin_service: ScriptedAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin_service.on(admin.GetServerInfoRequest, admin.GetServerInfoResponse(version="1"))
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert "pip install 'taskq[cli]'" in await taskq.fails(2, "server-info", "-o", "yaml")


# ── fields ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_table_has_a_column_for_each_field(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    one = a_task(tags=["vip", "monday"], headers={"b": "2", "a": "1"}, run_timeout=Duration(seconds=90))
    admin_service.on(tasks.ListTasksRequest, a_page(one, Task(task_id=ID, state=TASK_STATE_RUNNING, tags=["x"])))

    names = "state,due_time,error_type,tags,headers,runTimeout,last_failure.message"
    assert await taskq.table("task", "list", "--fields", names) == (
        "STATE    DUE_TIME  ERROR_TYPE  TAGS         HEADERS   RUNTIMEOUT  LAST_FAILURE.MESSAGE\n"
        "FAILED   1h ago    Cold        vip, monday  a=1, b=2  1m30s       brr\n"
        "RUNNING                        x\n"
    )


async def test_programs_get_the_same_fields_as_protobuf_writes_them(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    admin_service.on(tasks.ListTasksRequest, a_page(a_task(), token="t"))

    fields = ("--fields", "task_id, error_type", "--limit", "1")
    kept = {"taskId": ID, "lastFailure": {"errorType": "Cold"}}
    assert (await taskq("task", "list", *fields)).lines == [kept]
    whole = await taskq.done("task", "list", *fields)
    assert whole["tasks"] == [kept] and whole["nextPageToken"] == "t"
    assert yaml.safe_load((await taskq("task", "list", *fields, "-o", "yaml")).out)["tasks"] == [kept]


async def test_of_one_answer_a_field_is_found_however_deep_it_lies(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    detail = tasks.TaskDetail(task=a_task(payload=Payload(data=b"[1]")), attempts=[tasks.Attempt(attempt=3)])
    answer = tasks.AdminServiceGetTaskResponse(detail=detail, server_time=Timestamp(seconds=NOW))
    admin_service.on(tasks.AdminServiceGetTaskRequest, answer)

    shown = await taskq.table("task", "get", ID, "--fields", "state,task.due_time,payload.data,attempts")
    assert shown == 'state:         FAILED\ntask.due_time: 1h ago\npayload.data:  [1]\nattempts:      {"attempt": 3}\n'
    assert await taskq.done("task", "get", ID, "--fields", "state") == {
        "detail": {"task": {"state": "TASK_STATE_FAILED"}}
    }


async def test_what_lies_in_a_list_is_found_too_where_nothing_else_is_called_so(
    taskq: Taskq, admin_service: ScriptedAdmin
) -> None:
    attempts = [tasks.Attempt(attempt=place, processor_name=f"oven-{place}") for place in (1, 2)]
    detail = tasks.TaskDetail(task=a_task(attempt=2, processor_name="oven-2"), attempts=attempts)
    admin_service.on(tasks.AdminServiceGetTaskRequest, tasks.AdminServiceGetTaskResponse(detail=detail))

    shown = await taskq.table("task", "get", ID, "--fields", "processor_name,attempts.processor_name,lease_time")
    assert shown == "processor_name:          oven-2\nattempts.processor_name: oven-1, oven-2\n"
    assert await taskq.done("task", "get", ID, "--fields", "attempts.attempt") == {
        "detail": {"attempts": [{"attempt": 1}, {"attempt": 2}]}
    }


async def test_fields_that_an_answer_will_not_have_are_refused_before_anything_is_changed(
    taskq: Taskq, admin_service: ScriptedAdmin
) -> None:
    admin_service.on(admin.PauseCapabilityRequest, admin.PauseCapabilityResponse())

    said = await taskq.fails(2, "capability", "pause", "cook", "--fields", "nonsense")

    assert "there is no 'nonsense' in PauseCapabilityResponse; it has " in said
    assert admin_service.requests == []


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        ("nonsense", "there is no 'nonsense' in Task; it has task_id, "),
        ("message", "'message' has several places; must be last_failure.message or progress.message"),
        (" , ", "must name fields, such as task_id,state"),
    ],
)
async def test_fields_that_are_not_there_are_refused_with_those_that_are(
    taskq: Taskq, admin_service: ScriptedAdmin, names: str, rule: str
) -> None:
    admin_service.on(tasks.ListTasksRequest, a_page(a_task(progress=Progress(message="half"))))
    for kind in ("json", "table"):
        said = await taskq("task", "list", "--fields", names, "-o", kind)
        assert said.code == 2 and rule in said.err and said.out == ""
