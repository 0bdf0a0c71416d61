"""`taskq task`, with a real server: what a scheduler's calls do."""

from __future__ import annotations

import asyncio
import base64
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from processor_client import Fail, Processor
from taskq_server.server import Server
from tests.clients.command_support import Taskq, a_process
from tests.clients.scripted_processor_service import Runs
from tests.rpc.support import UNKNOWN_ID


@pytest.fixture
def taskq(quiet_server: None, server: Server) -> Taskq:
    return Taskq(server.address)


def greet(name: str = "world", seconds: float = 0) -> dict[str, str]:
    return {"greeting": f"Hello, {name}!"}


def burn() -> None:
    raise Fail("the oven\x1b[31m is cold")


@pytest.fixture
async def processor(server: Server) -> AsyncIterator[Processor]:
    async with Processor(server.address, [Runs("greet", greet), Runs("burn", burn)], name="oven") as processor:
        yield processor


async def test_a_task_is_enqueued_and_waited_for(taskq: Taskq, processor: Processor) -> None:
    task = (await taskq.done("task", "enqueue", "greet", "-d", '{"name": "you"}', "--wait"))["task"]

    assert task["state"] == "TASK_STATE_SUCCEEDED"
    assert base64.b64decode(task["result"]["data"]) == b'{"greeting":"Hello, you!"}'


async def test_of_a_task_that_is_waited_for_the_fields_are_those_of_its_end(taskq: Taskq, processor: Processor) -> None:
    shown = await taskq.table("task", "enqueue", "greet", "--wait", "--fields", "state,attempt")

    assert shown == "state:   SUCCEEDED\nattempt: 1\n"


async def test_people_see_its_result_as_text_and_where_it_ran(taskq: Taskq, processor: Processor) -> None:
    shown = await taskq.table("task", "enqueue", "greet", "-d", '{"name": "you"}', "--priority", "7", "--wait")

    assert "state:     SUCCEEDED" in shown
    assert "priority:  7" in shown
    assert "processor: oven" in shown
    assert 'payload:   {"name": "you"}' in shown
    assert 'result:    {"greeting":"Hello, you!"}' in shown


async def test_a_task_that_fails_ends_the_wait_with_3_and_its_failure_moves_no_cursor(
    taskq: Taskq, processor: Processor
) -> None:
    ended = await taskq("task", "enqueue", "burn", "--wait", "-o", "table")

    assert ended.code == 3
    assert "failure:   Fail: the oven�[31m is cold" in ended.out
    assert "failed" in ended.err


async def test_a_task_that_is_late_ends_the_wait_with_4_and_says_where_to_look(taskq: Taskq) -> None:
    ended = await taskq("task", "enqueue", "nobody.home", "--wait", "--wait-timeout", "200ms")

    assert ended.code == 4
    assert "is not finished after 0.2 s" in ended.err
    assert "taskq task explain" in ended.err
    assert ended.json["task"]["state"] == "TASK_STATE_SCHEDULED"


async def test_a_task_that_is_cancelled_ends_the_wait_with_4(taskq: Taskq) -> None:
    task_id = (await taskq("task", "enqueue", "nobody.home", "-o", "name")).out.strip()
    waiting = await a_process("task", "wait", task_id, "-o", "name", TASKQ_ADDRESS=taskq.address)
    cancelled = await taskq.done("task", "cancel", task_id)

    out, err = await asyncio.wait_for(waiting.communicate(), 60)
    assert cancelled["task"]["state"] == "TASK_STATE_CANCELLED"
    assert (waiting.returncode, out.decode()) == (4, f"{task_id}\n")
    assert b"was cancelled" in err


async def test_ctrl_c_is_130(taskq: Taskq) -> None:
    task_id = (await taskq("task", "enqueue", "nobody.home", "-o", "name")).out.strip()
    watching = await a_process("task", "watch", task_id, TASKQ_ADDRESS=taskq.address)
    assert watching.stdout is not None
    assert task_id.encode() in await asyncio.wait_for(watching.stdout.readline(), 60)

    watching.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(watching.wait(), 60) == 130


async def test_changes_are_watched_until_the_end(taskq: Taskq, processor: Processor) -> None:
    task_id = (await taskq("task", "enqueue", "greet", "-o", "name")).out.strip()
    ended = await taskq("task", "watch", task_id)

    assert ended.code == 0
    assert ended.lines[-1]["task"]["state"] == "TASK_STATE_SUCCEEDED"


@pytest.mark.parametrize("how", ["file", "stdin", "flag"])
async def test_the_payload_is_sent_as_it_was_written_to_the_last_digit(taskq: Taskq, tmp_path: Path, how: str) -> None:
    text = '{ "n": 9007199254740993, "x": 1.0 }'
    (tmp_path / "payload.json").write_text(text)
    data = {"file": f"@{tmp_path}/payload.json", "stdin": "-", "flag": text}[how]
    ended = await taskq("task", "enqueue", "greet", "-d", data, "-o", "name", input=text)
    assert ended.code == 0, ended.err

    waited = await taskq("task", "wait", ended.out.strip(), "--wait-timeout", "1ms", "--json")
    assert waited.code == 4
    cancelled = await taskq.done("task", "cancel", ended.out.strip())
    assert base64.b64decode(cancelled["task"]["payload"]["data"]) == text.encode()
    assert cancelled["task"]["payload"]["contentType"] == "application/json"


async def test_what_is_no_json_is_refused_before_it_is_sent(taskq: Taskq) -> None:
    said = await taskq.fails(2, "task", "enqueue", "greet", "-d", "{name: you}")
    assert "is not JSON" in said and "--content-type" in said

    assert (await taskq("task", "enqueue", "greet", "-d", "{name: you}", "--content-type", "text/plain")).code == 0


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        (["--at", "tomorrow"], "must be epoch seconds, ISO 8601"),
        (["--at", "2026-12-24T18:00"], "has no time zone"),
        (["--at", "1767225600000000"], "must be epoch seconds, not milliseconds"),
        (["--delay", "5"], "must be a number and a unit"),
        (["--at", "+5m", "--delay", "5m"], "one of them"),
        (["--priority", "10"], "0<=x<=9"),
        (["-d", "@nowhere.json"], "nowhere.json cannot be read"),
        (["--header", "no-value"], "must be KEY=VALUE"),
    ],
)
async def test_what_breaks_a_rule_is_refused_with_the_rule(taskq: Taskq, flags: list[str], rule: str) -> None:
    assert rule in await taskq.fails(2, "task", "enqueue", "greet", *flags)


@pytest.mark.parametrize("flags", [["--at", "+10m"], ["--delay", "10m"], ["--delay", "+600s"]])
async def test_a_delay_is_counted_from_now(taskq: Taskq, flags: list[str]) -> None:
    assert "due:     in 10m" in await taskq.table("task", "enqueue", "greet", *flags)


@pytest.mark.parametrize("moment", ["4102444800", "2100-01-01T00:00:00Z", "2100-01-01T01:00:00+01:00"])
async def test_a_moment_is_the_same_however_it_is_written(taskq: Taskq, moment: str) -> None:
    shown = await taskq.table("task", "enqueue", "greet", "--at", moment, "--time", "iso")
    assert "due:     2100-01-01T00:00:00Z" in shown
    assert "due:     4102444800\n" in await taskq.table("task", "enqueue", "greet", "--at", moment, "--time", "epoch")


async def test_a_key_that_is_held_is_an_error_only_when_that_was_asked_for(taskq: Taskq) -> None:
    enqueue = ("task", "enqueue", "greet", "--delay", "1h", "--key", "order-42")
    first = (await taskq(*enqueue, "-o", "name")).out.strip()
    assert (await taskq(*enqueue, "-o", "name")).out.strip() == first

    said = await taskq.fails(70, *enqueue, "--on-conflict", "reject")
    assert first in said and "order-42" in said


async def test_a_task_that_is_not_there_is_69_with_where_to_look(taskq: Taskq) -> None:
    said = await taskq.fails(69, "task", "cancel", UNKNOWN_ID)
    assert said.startswith("taskq: NOT_FOUND: ")
    assert "`taskq task list`" in said


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


async def test_a_task_goes_on_with_the_trace_of_who_enqueues_it(taskq: Taskq) -> None:
    taskq.environment |= {"TRACEPARENT": PARENT, "TRACESTATE": "a=b"}
    enqueued = await taskq("task", "enqueue", "greet", "--delay", "1h", "-o", "name", "-v")
    assert f"trace id: {TRACE}\n" in enqueued.err and "request id: " in enqueued.err
    cancelled = await taskq.done("task", "cancel", enqueued.out.strip())
    assert cancelled["task"]["headers"] == {"traceparent": PARENT, "tracestate": "a=b"}


async def test_what_is_no_trace_is_none_and_a_header_wins(taskq: Taskq) -> None:
    taskq.environment |= {"TRACEPARENT": "nonsense"}
    enqueued = await taskq("task", "enqueue", "greet", "--delay", "1h", "-o", "name", "-v")
    assert "trace id" not in enqueued.err
    assert "headers" not in (await taskq.done("task", "cancel", enqueued.out.strip()))["task"]

    taskq.environment |= {"TRACEPARENT": PARENT}
    mine = PARENT.replace(TRACE, "a" * 32)
    enqueued = await taskq("task", "enqueue", "greet", "--header", f"traceparent={mine}", "-o", "name", "-v")
    assert f"trace id: {'a' * 32}\n" in enqueued.err


async def test_none_says_nothing(taskq: Taskq) -> None:
    ended = await taskq("task", "enqueue", "greet", "-o", "none")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
