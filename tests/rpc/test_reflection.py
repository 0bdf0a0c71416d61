"""The server says itself what it can be asked: by stubs of both versions, by grpcurl and by evans, which are run."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection_pb2

from taskq_server.rpc.reflection import V1, V1ALPHA
from tests.conftest import StartServer
from tests.rpc.callers import granted
from tests.rpc.support import SUCCEEDED, UNKNOWN_ID, soon
from tests.rpc.world import World
from tests.support import evans, grpcurl
from tests.support.waiting import until_async

SERVICES = {
    f"taskq.v1.{service}" for service in ("SchedulerService", "ProcessorService", "ScheduleService", "AdminService")
}


def ask(world: World, version: str) -> Any:
    return world.channel().stream_stream(
        f"/{version}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()


@pytest.mark.parametrize("version", [V1, V1ALPHA])
async def test_both_versions_list_the_services_and_describe_them_to_the_last_import(world: World, version: str) -> None:
    call = ask(world, version)
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = {one.name for one in (await soon(call.read())).list_services_response.service}
    assert listed == {*SERVICES, health.SERVICE_NAME, V1ALPHA}

    # whatever is listed can be described, with all that it imports
    wanted, known = set(), set()
    for name in listed:
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
        for raw in (await soon(call.read())).file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(raw)
            known.add(file.name)
            wanted.update(file.dependency)
    while missing := wanted - known:
        for name in missing:
            await call.write(reflection_pb2.ServerReflectionRequest(file_by_filename=name))
            response = await soon(call.read())
            assert response.HasField("file_descriptor_response"), f"{name}: {response.error_response.error_message}"
            for raw in response.file_descriptor_response.file_descriptor_proto:
                file = descriptor_pb2.FileDescriptorProto.FromString(raw)
                known.add(file.name)
                wanted.update(file.dependency)
    assert "taskq/v1/task.proto" in known and "google/api/http.proto" in known
    await call.done_writing()
    assert await soon(call.code()) == grpc.StatusCode.OK


async def test_who_keeps_the_question_open_does_not_hold_up_the_stop(world: World) -> None:
    await world.restart(stop_grace=10.0)
    call = ask(world, V1)
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await soon(call.read())
    async with asyncio.timeout(5):
        await world.server.stop()
    assert await soon(call.code()) == grpc.StatusCode.UNAVAILABLE


async def test_nothing_is_left_of_those_who_have_asked_and_gone(world: World) -> None:
    before = len(asyncio.all_tasks())
    for _ in range(20):
        call = ask(world, V1)
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await soon(call.read())
        call.cancel()
    await until_async(lambda: len(asyncio.all_tasks()) <= before, "their calls end")


# ── grpcurl ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    try:
        yield grpcurl.find()
    except grpcurl.NoGrpcurl as why:
        pytest.skip(f"GRPCURL IS NOT TESTED: {why}")


class Grpcurl:
    """grpcurl, with nothing but the address of a server."""

    def __init__(self, program: Path, world: World) -> None:
        self._program = program
        self._world = world

    async def __call__(self, *words: str, data: object = None) -> subprocess.CompletedProcess[str]:
        flags = ["-plaintext", "-max-time", "20", *(["-d", json.dumps(data)] if data is not None else [])]
        command = [str(self._program), *flags, self._world.server.address, *words]
        return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)

    async def answer(self, method: str, data: object) -> Any:
        """What a call is answered."""
        ended = await self(method, data=data)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)


@pytest.fixture
def curl(program: Path, world: World) -> Grpcurl:
    return Grpcurl(program, world)


async def test_grpcurl_lists_and_describes_what_there_is(curl: Grpcurl) -> None:
    listed = await curl("list")
    assert set(listed.stdout.split()) >= SERVICES, listed.stderr
    methods = await curl("list", "taskq.v1.SchedulerService")
    assert "taskq.v1.SchedulerService.Enqueue" in methods.stdout.split()
    described = await curl("describe", "taskq.v1.NewTask")
    assert "google.protobuf.Struct args" in described.stdout, described.stderr


async def test_grpcurl_enqueues_a_task_watches_it_and_gets_it(curl: Grpcurl, world: World) -> None:
    oven = await world.processor()
    task = {"name": "cook", "args": {"dish": "soup", "servings": 2}}
    enqueued = await curl.answer("taskq.v1.SchedulerService/Enqueue", {"tasks": [task]})
    (result,) = enqueued["results"]
    assert result["outcome"] == "ENQUEUE_OUTCOME_CREATED"

    watching = asyncio.create_task(curl("taskq.v1.SchedulerService/WatchTask", data={"task_id": result["taskId"]}))
    taken = await oven.take_one()
    assert json.loads(taken.payload.data) == {"dish": "soup", "servings": 2}
    await oven.succeed(taken, b"eaten")
    watched = await watching
    assert watched.returncode == 0, watched.stderr
    assert "TASK_STATE_SUCCEEDED" in watched.stdout

    got = await curl.answer("taskq.v1.SchedulerService/GetTask", {"task_id": result["taskId"]})
    assert got["task"]["state"] == "TASK_STATE_SUCCEEDED"
    assert (await world.scheduler.get(result["taskId"])).state == SUCCEEDED


async def test_grpcurl_shows_the_reason_of_an_error(curl: Grpcurl) -> None:
    ended = await curl("taskq.v1.SchedulerService/GetTask", data={"task_id": UNKNOWN_ID})
    assert ended.returncode == 64 + grpc.StatusCode.NOT_FOUND.value[0]
    assert "TASK_NOT_FOUND" in ended.stderr
    ended = await curl("taskq.v1.SchedulerService/Enqueue", data={"tasks": [{"name": "cook"}, {"priority": 12}]})
    assert ended.returncode == 64 + grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "tasks[1].priority" in ended.stderr


async def test_grpcurl_administers_and_asks_for_the_health(curl: Grpcurl, world: World) -> None:
    info = await curl.answer("taskq.v1.AdminService/GetServerInfo", {})
    assert info["apiVersions"] == ["taskq.v1"]
    await curl.answer("taskq.v1.AdminService/PauseCapability", {"name": "cook", "reason": "no gas"})
    assert (await world.admin.capability("cook")).pause.reason == "no gas"
    assert (await curl.answer("grpc.health.v1.Health/Check", {}))["status"] == "SERVING"


# ── evans ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def evans_program() -> Path:
    try:
        return evans.build()
    except evans.NoEvans as why:
        pytest.skip(f"EVANS IS NOT TESTED: {why}")


class Evans:
    """evans, with nothing but the address of a server, and perhaps a token."""

    def __init__(self, program: Path, home: Path, address: str, token: str = "") -> None:
        host, _, port = address.rpartition(":")
        header = [f"--header=authorization=Bearer {token}"] if token else []
        self._command = [str(program), "--silent", f"--host={host}", f"--port={port}", "--reflection", *header, "cli"]
        self._environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)}

    async def __call__(self, *words: str, data: object = None) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            [*self._command, *words],
            input=json.dumps(data),
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    async def answers(self, method: str, data: object) -> list[Any]:
        """All that a call is answered."""
        ended = await self("call", f"taskq.v1.{method}", data=data)
        assert ended.returncode == 0, ended.stderr
        return list(documents(ended.stdout))


def documents(text: str) -> Iterator[Any]:
    """JSON after JSON."""
    while text := text.lstrip():
        document, end = json.JSONDecoder().raw_decode(text)
        yield document
        text = text[end:]


async def test_evans_lists_describes_and_calls_what_there_is(evans_program: Path, world: World, tmp_path: Path) -> None:
    asks = Evans(evans_program, tmp_path, world.server.address)
    listed = await asks("list")
    assert set(listed.stdout.split()) == {*SERVICES, health.SERVICE_NAME, V1ALPHA}, listed.stderr
    described = await asks("desc", "taskq.v1.NewTask")
    assert ".google.protobuf.Struct args" in described.stdout, described.stderr

    task = {"name": "cook", "args": {"dish": "soup", "servings": 2}, "delay": "1.5s"}
    ((result,),) = [answer["results"] for answer in await asks.answers("SchedulerService.Enqueue", {"tasks": [task]})]
    assert result["outcome"] == "ENQUEUE_OUTCOME_CREATED"
    (got,) = await asks.answers("SchedulerService.GetTask", {"taskId": result["taskId"]})
    assert (got["task"]["name"], got["task"]["state"]) == ("cook", "TASK_STATE_SCHEDULED")
    await world.scheduler.cancel(result["taskId"])
    watched = await asks.answers("SchedulerService.WatchTask", {"taskId": result["taskId"]})
    assert watched[-1]["task"]["state"] == "TASK_STATE_CANCELLED"
    refused = await asks("call", "taskq.v1.SchedulerService.GetTask", data={"taskId": "nope"})
    assert refused.returncode == 1
    assert "InvalidArgument" in refused.stderr and "task_id must be a UUID" in refused.stderr


async def test_evans_is_told_nothing_without_a_credential(
    evans_program: Path, start_server: StartServer, tmp_path: Path
) -> None:
    server = await start_server(auth="required")
    refused = await Evans(evans_program, tmp_path, server.address)("list")
    assert refused.returncode == 1 and "Unauthenticated" in refused.stderr
    token = await granted(server, "reader", "read")
    listed = await Evans(evans_program, tmp_path, server.address, token)("list")
    assert set(listed.stdout.split()) >= SERVICES, listed.stderr
