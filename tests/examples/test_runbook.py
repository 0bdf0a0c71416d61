"""The commands of the runbook, run against servers of their own: three ways, one answer, one outcome."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from taskq.v1 import admin_service_pb2 as admin_pb2
from taskq.v1 import (
    admin_service_pb2_grpc,
    admin_task_pb2,
    audit_pb2,
    bulk_operation_pb2,
    task_pb2,
)
from taskq_server.server import Server
from tests.conftest import StartServer
from tests.rpc.support import RawProcessor, RawScheduler, retrying, soon, span
from tests.support import grpcurl
from tests.support.process import ROOT
from tests.support.schedules import RawSchedules, a_schedule

PAGE = (ROOT / "docs" / "admin.md").read_text()
WAYS = ("taskq", "grpcurl", "curl")
NEW = "01935000-0000-7000-8000-00000000000a"
_ITEM = re.compile(r"^## (\d+)\. (.*?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
_PASSING = re.compile(
    r"[Tt]ime$|[Tt]oken$|[Aa]ge$|^(version|settings|peer|source|requestId|entryId|operationId)$",
)
"""What differs from one server, or one way, to the next."""
_UNSAID = ("", "0", 0, False, "0s")
"""What one way writes and another leaves out."""


@dataclass(frozen=True)
class Item:
    number: int
    title: str
    commands: dict[str, str]
    click: str

    def __str__(self) -> str:
        return f"{self.number}-{self.title.split()[0]}"


def items() -> Iterator[Item]:
    for number, title, body in _ITEM.findall(PAGE):
        commands = {line.split()[0]: line for block in _BLOCK.findall(body) for line in block.splitlines()}
        yield Item(int(number), title, commands, body.partition("Click:")[2].strip())


ITEMS = list(items())


def test_there_are_twenty_things_and_each_has_four_ways() -> None:
    assert [item.number for item in ITEMS] == list(range(1, 21))
    assert [item.title for item in ITEMS if tuple(item.commands) != WAYS or not item.click] == []


class House:
    """A server with something of everything."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.channel = grpc.aio.insecure_channel(server.address)
        self.admin = admin_service_pb2_grpc.AdminServiceStub(self.channel)
        self.scheduler = RawScheduler(self.channel)
        self.processor = RawProcessor(server.address)
        self.names: dict[str, str] = {"NEW": NEW}

    async def furnish(self) -> None:
        """One that runs, one that waits for its time, two that have failed, one that nobody can run, and a schedule."""
        await self.processor.register("oven", {"kitchen.cook": 0, "kitchen.bake": 0}, 10, {"zone": "eu"})
        await self.processor.open()
        once = retrying(max_attempts=1)
        failed = [await self.scheduler.enqueue("kitchen.bake", retry_policy=once) for _ in range(2)]
        for burnt in await self.processor.take(2):
            await self.processor.fail(burnt, message="it is black", stack="")
        self.names |= {"FAILED": failed[0], "SESSION": self.processor.session_id}
        await self.scheduler.enqueue("kitchen.cook")
        self.running = await self.processor.take_one()
        self.names["TASK"] = await self.scheduler.enqueue("kitchen.cook", delay=span(3600))
        await self.scheduler.enqueue("kitchen.smoke")
        made = await RawSchedules(self.channel).create(a_schedule("nightly", "kitchen.wash", crons=["0 3 * * *"]))
        self.names["SCHEDULE"] = made.schedule_id
        await soon(self.admin.PauseCapability(admin_pb2.PauseCapabilityRequest(name="kitchen.fry", reason="no oil")))
        await self.server.figures.tick()  # which it does each second

    async def run(self, command: str) -> Any:
        """What a command answers, as JSON; of several lines of JSON, a list."""
        environment = {
            **os.environ,
            **self.names,
            "TASKQ_ADDRESS": self.server.address,
            "TASKQ_HTTP": f"http://{self.server.http_address}",
            "PATH": f"{Path(sys.executable).parent}:{grpcurl.find().parent}:{os.environ['PATH']}",
        }
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await asyncio.wait_for(process.communicate(), 60)
        found = _values(output.decode())
        assert process.returncode == 0, errors.decode() + output.decode()
        assert not (isinstance(found, dict) and "error" in found), found  # curl ends well whatever it was answered
        return found

    async def outcome(self) -> dict[str, Any]:
        """What stands in the server once nothing is under way any more."""
        await self._operations_end()
        processors = await soon(self.admin.ListProcessors(admin_pb2.ListProcessorsRequest()))
        if any(not one.HasField("drain") for one in processors.processors):
            await self._what_is_due_runs()
        tasks = await soon(self.admin.ListTasks(admin_task_pb2.ListTasksRequest(view=admin_task_pb2.TASK_VIEW_FULL)))
        capabilities = await soon(self.admin.ListCapabilities(admin_pb2.ListCapabilitiesRequest()))
        audit = await soon(self.admin.ListAuditEntries(audit_pb2.ListAuditEntriesRequest()))
        schedules = (await RawSchedules(self.channel).list()).schedules
        far = 1_800_000_000
        return {
            "tasks": sorted(
                (
                    one.name, task_pb2.TaskState.Name(one.state), one.priority, one.payload.data,
                    one.due_time.seconds if one.due_time.seconds > far else 0,
                )
                for one in tasks.tasks
            ),
            "drained": [one.drain.reason for one in processors.processors],
            "paused": {one.name: one.pause.reason for one in capabilities.capabilities if one.HasField("pause")},
            "schedules": [one.pause.note for one in schedules],
            "audit": [(one.action, one.target_kind, one.reason) for one in audit.entries],
        }  # fmt: skip

    async def _what_is_due_runs(self) -> None:
        due = admin_task_pb2.ListTasksRequest(filter="is:due name:kitchen.bake")
        async with asyncio.timeout(20):
            while (await self.admin.ListTasks(due)).tasks:
                await asyncio.sleep(0.02)

    async def _operations_end(self) -> None:
        asked = bulk_operation_pb2.ListBulkOperationsRequest()
        async with asyncio.timeout(20):
            while True:
                listed = await self.admin.ListBulkOperations(asked)
                if all(one.state != bulk_operation_pb2.BULK_OPERATION_STATE_RUNNING for one in listed.operations):
                    return
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self.processor.disconnect()
        await self.channel.close()


def _values(text: str) -> Any:
    decoder, at, found = json.JSONDecoder(), 0, []
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        found.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found[0] if len(found) == 1 else found


def facts(answer: Any, names: dict[str, str]) -> set[str]:
    """All that an answer says, whatever its shape: without times and what else must differ."""
    said: set[str] = set()

    def walk(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for inner, one in value.items():
                walk(one, inner)
        elif isinstance(value, list):
            for one in value:
                walk(one, key)
        elif not _PASSING.search(key) and value not in _UNSAID:
            said.add(f"{key}={float(value) if isinstance(value, int | float) else value}")

    walk(answer, "")
    return said


async def furnished(start: StartServer, folder: Path, way: str) -> House:
    house = House(await start(database_url=f"sqlite:///{folder}/{way}.db", http_listen="127.0.0.1:0"))
    await house.furnish()
    return house


def tools() -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    try:
        grpcurl.find()
    except grpcurl.NoGrpcurl as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("item", ITEMS, ids=str)
async def test_each_way_answers_alike_and_leaves_the_same_behind(
    item: Item, start_server: StartServer, tmp_path: Path
) -> None:
    tools()
    outcomes = {}
    for way, command in item.commands.items():
        house = await furnished(start_server, tmp_path, way)
        before = await house.outcome()
        await house.run(command)
        outcomes[way] = before, await house.outcome()
        await house.close()
    before, after = outcomes["taskq"]
    for way in ("grpcurl", "curl"):
        for part, found in after.items():
            assert outcomes[way][1][part] == found, f"{part} by {way}, and by taskq"
    changes = item.number in {6, 7, 9, 10, 11, 12, 13, 14, 17, 18, 19}
    assert (before != after) == changes
    if changes and item.number != 6:
        assert len(after["audit"]) == len(before["audit"]) + 1


READS = [item for item in ITEMS if item.number in {1, 2, 3, 4, 5, 8, 15, 16, 20}]


@pytest.mark.parametrize("item", READS, ids=str)
async def test_what_is_read_is_the_same_by_each_way(item: Item, start_server: StartServer, tmp_path: Path) -> None:
    tools()
    house = await furnished(start_server, tmp_path, "reads")
    try:
        said = {way: facts(await house.run(command), house.names) for way, command in item.commands.items()}
    finally:
        await house.close()
    assert said["grpcurl"] == said["curl"]
    assert said["taskq"], "it says something"
    assert said["taskq"] <= said["curl"]


def test_json_of_the_contract_is_what_is_compared() -> None:
    """Else the facts above would be those of three dialects."""
    assert json_format.MessageToDict(task_pb2.Task(task_id="a")) == {"taskId": "a"}
