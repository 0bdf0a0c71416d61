"""The whole way: what goes wrong is found, explained, done again and accounted for, with nothing but the command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from processor_client import Fail, Processor
from taskq_server.server import Server
from tests.clients.command_support import Taskq
from tests.clients.scripted_processor_service import Runs


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: object) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/taskq.db"
    return request.getfixturevalue("postgres_url")  # type: ignore[no-any-return]


class Oven:
    """Is cold until it is lit."""

    is_lit = False

    def bake(self) -> str:
        if not self.is_lit:
            raise Fail("the oven is cold")
        return "bread"


@pytest.fixture
def oven() -> Oven:
    return Oven()


@pytest.fixture
async def taskq(quiet_server: None, server: Server, oven: Oven) -> AsyncIterator[Taskq]:
    async with Processor(server.address, [Runs("bake", oven.bake)], name="oven"):
        yield Taskq(server.address)


async def test_what_failed_is_found_looked_at_and_run_again(taskq: Taskq, oven: Oven) -> None:
    # given
    failed = await taskq("task", "enqueue", "bake", "-d", '{"n": 1}', "--tag", "monday", "--wait", "--json")
    assert failed.code == 3
    task_id = failed.json["task"]["taskId"]

    # then
    assert (await taskq("task", "list", "--filter", "state:FAILED tag:monday", "-o", "name")).out == f"{task_id}\n"
    assert await taskq.table("task", "count", "--filter", "state:FAILED") == "1\n"
    shown = await taskq.table("task", "get", task_id, "--full")
    assert "Fail: the oven is cold" in shown and "Attempts\n" in shown and "Timeline\n" in shown
    assert "FAILED: " in await taskq.table("task", "explain", task_id)

    # when
    oven.is_lit = True
    rerun = await taskq.done(
        "task", "rerun", "--filter", "state:FAILED", "--yes", "--expect", "1", "--reason", "it is lit"
    )
    assert rerun["operation"]["doneTasks"] == "1"

    # then
    assert (await taskq("task", "wait", task_id, "-o", "none")).code == 0
    (operation,) = (await taskq("op", "list")).lines
    assert operation["reason"] == "it is lit"
    changes = (await taskq("audit", "list", "--kind", "operation")).lines
    assert [(one["source"], one["reason"]) for one in changes] == [("AUDIT_SOURCE_CLI", "it is lit")]


async def test_a_task_that_waits_says_why(taskq: Taskq) -> None:
    waits = await taskq("task", "enqueue", "gpu-render", "--wait", "--wait-timeout", "3s", "-o", "name")
    assert waits.code == 4
    assert "waits: " in waits.err and "gpu-render" in waits.err and "bake" in waits.err
    assert "gpu-render" in await taskq.table("task", "explain", waits.out.strip())


async def test_a_page_that_holds_less_is_not_the_end_of_a_list(taskq: Taskq) -> None:
    ids = [(await taskq("task", "enqueue", "later", "--delay", "1h", "-o", "name")).out.strip() for _ in range(3)]
    listed = await taskq("task", "list", "--filter", "name:later", "--all", "-o", "name")
    assert sorted(listed.out.split()) == sorted(ids)
    first = await taskq.done("task", "list", "--filter", "name:later", "--limit", "2")
    token = first["nextPageToken"]
    rest = await taskq("task", "list", "--filter", "name:later", "--page-token", token, "-o", "name")
    assert len(first["tasks"]) == 2 and len(rest.out.split()) == 1


async def test_tasks_are_moved_and_named_ones_that_cannot_be_say_why(taskq: Taskq) -> None:
    task_id = (await taskq("task", "enqueue", "later", "--delay", "1h", "-o", "name")).out.strip()
    assert (await taskq("task", "reprioritise", task_id, "--priority", "9")).code == 0
    assert (await taskq("task", "reschedule", task_id, "--delay", "3h")).code == 0
    shown = await taskq.table("task", "get", task_id)
    assert "priority: 9" in shown and "due:      in 3h" in shown

    refused = await taskq("task", "delete", task_id)
    assert refused.code == 73 and "must be" in refused.err
    assert (await taskq("task", "cancel", task_id)).code == 0
    assert (await taskq("task", "delete", task_id)).code == 0
    await taskq.fails(69, "task", "get", task_id)


async def test_failures_that_are_alike_are_one(taskq: Taskq, oven: Oven) -> None:
    for _ in range(2):
        await taskq("task", "enqueue", "bake", "--wait")
    async with asyncio.timeout(60):  # what is counted is written down within a second
        while sum(int(one["failures"]) for one in (await taskq("failure", "list")).lines) < 2:
            pass
    (group,) = (await taskq("failure", "list")).lines
    assert group["name"] == "bake"
    assert "FAILED 2" in await taskq.table("top", "--once")

    oven.is_lit = True
    assert (await taskq.done("failure", "rerun", group["fingerprint"], "--yes"))["operation"]["doneTasks"] == "2"
    assert (await taskq("failure", "resolve", group["fingerprint"], "--note", "lit")).code == 0
    assert (await taskq("failure", "list")).out == ""
