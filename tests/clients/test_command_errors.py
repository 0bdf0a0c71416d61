"""How the command ends when something goes wrong: its code, what it says, what is to be done."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from taskq.v1 import admin_service_pb2 as admin
from taskq.v1 import admin_task_pb2 as tasks
from tests.clients.command_support import ScriptedAdmin, Taskq, serving_admin
from tests.clients.scripted_scheduler_service import Refusal

ID = "01935000-0000-7000-8000-000000000001"


@pytest.fixture
async def admin_service() -> ScriptedAdmin:
    return ScriptedAdmin()


@pytest.fixture
async def taskq(admin_service: ScriptedAdmin) -> AsyncIterator[Taskq]:
    async with serving_admin(admin_service) as address:
        yield Taskq(address)


@pytest.fixture
def nowhere() -> str:
    """An address at which nobody listens."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{door.getsockname()[1]}"


async def test_that_there_is_no_server_says_how_to_start_one(nowhere: str) -> None:
    said = await Taskq(nowhere).fails(78, "task", "list")
    assert said.startswith(f"taskq: UNAVAILABLE: no server answers at {nowhere}\n")
    assert "`taskq dev`" in said and "--address" in said


async def test_who_takes_a_connection_and_says_nothing_is_no_server() -> None:
    """It could not have done anything: it has heard nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        said = await Taskq(address).fails(78, "task", "list", "--timeout", "300ms")
    assert f"no server answers at {address}" in said and "--address" in said


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_the_exit_code_is_64_and_the_status(
    taskq: Taskq, admin_service: ScriptedAdmin, code: grpc.StatusCode
) -> None:
    admin_service.on(tasks.ExplainTaskRequest, Refusal(code, "SOMETHING"))
    said = await taskq.fails(64 + code.value[0], "task", "explain", ID)
    assert said.startswith(f"taskq: {code.name}: as scripted\n")


@pytest.mark.parametrize(
    ("code", "reason", "fix"),
    [
        (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND", "taskq task list"),
        (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE", "taskq task explain"),
        (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", "TASKQ_TOKEN_FILE"),
        (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "taskq token create"),
        (grpc.StatusCode.UNIMPLEMENTED, "", "taskq server-info"),
    ],
)
async def test_the_error_names_what_is_to_be_done(
    taskq: Taskq, admin_service: ScriptedAdmin, code: grpc.StatusCode, reason: str, fix: str
) -> None:
    admin_service.on(tasks.ExplainTaskRequest, Refusal(code, reason))
    assert fix in await taskq.fails(64 + code.value[0], "task", "explain", ID)


async def test_every_field_at_fault_is_named(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    faults = (("filter", "must have a key at character 1"), ("page_size", "must not be negative"))
    admin_service.on(tasks.ListTasksRequest, Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", faults))
    said = await taskq.fails(67, "task", "list", "--filter", "!")
    assert "filter: must have a key at character 1; page_size: must not be negative" in said


async def test_in_json_the_error_is_json_with_the_details_of_the_call(
    taskq: Taskq, admin_service: ScriptedAdmin
) -> None:
    refusal = Refusal(grpc.StatusCode.UNAVAILABLE, "STOPPING", retry_delay=1.5, server="a")
    admin_service.on(tasks.ExplainTaskRequest, refusal)

    error = json.loads(await taskq.fails(78, "task", "explain", ID, "--json"))
    kind = "type.googleapis.com/google.rpc"
    assert error.pop("requestId") == admin_service.metadata[0]["x-request-id"]
    assert error == {
        "code": "UNAVAILABLE",
        "message": "as scripted",
        "fix": "try again in 1.5 s",
        "details": [
            {"@type": f"{kind}.ErrorInfo", "reason": "STOPPING", "domain": "taskq.v1", "metadata": {"server": "a"}},
            {"@type": f"{kind}.RetryInfo", "retryDelay": "1.5s"},
        ],
    }


@pytest.mark.parametrize(
    "words", [["task", "list", "--bogus", "-o", "json"], ["task", "get", "--json"], ["nouns", "--json"]]
)
async def test_wrong_use_is_2_in_json_too(taskq: Taskq, words: list[str]) -> None:
    error = json.loads(await taskq.fails(2, *words))
    assert error["code"] == "USAGE" and error["message"]


@pytest.mark.parametrize(
    ("words", "meant"), [(["tsk", "list"], "'task'"), (["shedule"], "'schedule'"), (["task", "lst"], "'list'")]
)
async def test_what_is_mistyped_is_guessed(taskq: Taskq, words: list[str], meant: str) -> None:
    said = await taskq.fails(2, *words)
    assert f"id you mean {meant}?" in said


async def test_a_noun_alone_shows_its_verbs(taskq: Taskq) -> None:
    said = await taskq.fails(2, "schedule")
    assert "backfill" in said


async def test_a_call_is_known_by_its_id_and_by_who_makes_it(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    admin_service.on(admin.GetServerInfoRequest, admin.GetServerInfoResponse(version="1.2.3"))

    ended = await taskq("server-info", "-v")
    assert ended.err == f"request id: {admin_service.metadata[0]['x-request-id']}\n"
    assert admin_service.metadata[0]["user-agent"].startswith("taskq-cli/")


async def test_a_call_that_takes_too_long_is_68(taskq: Taskq, admin_service: ScriptedAdmin) -> None:
    admin_service.on(admin.GetServerInfoRequest, lambda request: asyncio.Event().wait())
    assert "--timeout" in await taskq.fails(68, "server-info", "--timeout", "200ms")


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        (["--token", "secret", "--address", "10.0.0.1:50051"], "in plaintext"),
        (["--tls-ca", "nowhere.pem"], "nowhere.pem cannot be read"),
        (["--tls-cert", "a.pem"], "must have both, or neither"),
        (["--plaintext", "--tls-ca", "ca.pem"], "contradict each other"),
    ],
)
async def test_a_connection_that_cannot_be_made_so_is_wrong_use(taskq: Taskq, flags: list[str], rule: str) -> None:
    said = await taskq.fails(2, "server-info", *flags)
    assert rule in said
    assert "secret" not in said


async def test_the_token_is_sent_from_a_file_and_wins_over_the_environment(
    admin_service: ScriptedAdmin, tmp_path: Path
) -> None:
    admin_service.on(admin.GetServerInfoRequest, admin.GetServerInfoResponse())
    (tmp_path / "token").write_text("tq_from_file\n")
    async with serving_admin(admin_service) as address:
        taskq = Taskq(address, TASKQ_TOKEN="tq_from_environment")
        for flags in ([], ["--token-file", str(tmp_path / "token")], ["--token", "tq_flag"]):
            assert (await taskq("server-info", *flags)).code == 0
    sent = [one["authorization"] for one in admin_service.metadata]
    assert sent == ["Bearer tq_from_environment", "Bearer tq_from_file", "Bearer tq_flag"]
