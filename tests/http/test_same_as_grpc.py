"""Whatever is asked by HTTP is answered as by gRPC: the same messages, the same errors, word for word."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import status_pb2

from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server.config import Config
from taskq_server.http.errors import STATUS
from taskq_server.server import Server
from tests.http.asking import JSON, PROTO, Asked, by_connect, by_rest, response_of
from tests.http.given import NOT_THERE, Both, a_world, about
from tests.rpc.bounds import BOUNDS, NOTHING_TO_ACT_ON, a_valid
from tests.rpc.wire import METHODS, put
from tests.support.databases import Databases

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNARY = [name for name, method in METHODS.items() if not method.server_streaming]
ANNOTATED = [name for name in UNARY if METHODS[name].containing_service.name != "ProcessorService"]
FIELDS = [(name, path) for name in UNARY for path in BOUNDS[name]]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, databases: Databases
) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('http')}/taskq.db"
    else:
        with databases.fresh() as url:
            yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(url: str) -> AsyncIterator[Both]:
    server = Server(Config(listen="127.0.0.1:0", http_listen="127.0.0.1:0", database_url=url, stop_grace=1))
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield Both(server.http_address, channel)
    assert not server.stopping.is_set(), "the server could not go on"
    await server.stop()


def forms(name: str, request: Message) -> list[tuple[Asked, str]]:
    """Every way to send it by HTTP, and what it is answered in. Nothing by JSON if JSON cannot say it."""
    found = [(by_connect(name, request, PROTO), PROTO)]
    try:
        json_format.MessageToJson(request)
    except (ValueError, json_format.SerializeToJsonError):
        return found
    return [*found, (by_connect(name, request), JSON), *((one, JSON) for one in by_rest(name, request))]


@pytest.mark.parametrize(("name", "path"), FIELDS)
async def test_a_value_that_breaks_its_bound_is_refused_in_the_same_words(both: Both, name: str, path: str) -> None:
    for value in BOUNDS[name][path].breaks:
        request = a_valid(name, path)
        put(request, path, value)
        refused = await both.grpc(name, request)
        assert isinstance(refused, status_pb2.Status)
        for asked, _ in forms(name, request):
            answered = await both.http(asked)
            assert answered.status == STATUS[refused.code], (asked, answered.body)
            assert answered.error == refused, asked


@pytest.mark.parametrize(("name", "path"), FIELDS)
async def test_a_value_at_its_bound_is_accepted(both: Both, name: str, path: str) -> None:
    for value in BOUNDS[name][path].fits[:1] + BOUNDS[name][path].fits[-1:]:
        request = a_valid(name, path)
        put(request, path, value)
        for asked, _ in forms(name, request):
            answered = await both.http(asked)
            assert answered.status == 200 or answered.reason in NOTHING_TO_ACT_ON, (asked, answered.body)


@pytest.mark.parametrize("name", ANNOTATED)
async def test_every_call_that_is_annotated_can_be_asked_for_by_its_path(name: str) -> None:
    request = a_valid(name)
    if name == "UpdateSchedule":
        assert request.schedule.schedule_id
    assert list(by_rest(name, request))


LOOKS = "GetTask", "GetSchedule", "ListSchedules", "PreviewSchedule", "ListCapabilities", "GetServerInfo"
NOT_THE_SAME = {
    "server_time", "task_id", "schedule_id", "session_id", "name", "due_time", "create_time", "update_time",
    "next_fire_time", "next_due_time", "nominal_time", "pause_time", "drain_time", "etag", "page_token", "enqueue_time",
    "next_page_token", "heartbeat_time", "register_time", "lease_expire_time", "first_due_time", "finish_time",
    *("operation_id", "task_ids", "start_time", "end_time", "entry_id", "change_time", "target", "before", "after"),
    *("time", "text", "summary", "facts", "names"),
}  # fmt: skip
"""What is another's, or later, when it is done once more."""


def compared(name: str, message: Message) -> Any:
    """What two answers to the same question have in common, when each was about something of its own."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: ... if key in NOT_THE_SAME else without(one) for key, one in value.items()}
        return [without(one) for one in value] if isinstance(value, list) else value

    value = json_format.MessageToDict(message, preserving_proto_field_name=True)
    if name in LOOKS:
        value.pop("server_time", None)
        return value
    return without(value) if name != "ListProcessors" else list(without(value))


@pytest.mark.parametrize("name", UNARY)
async def test_what_is_done_and_answered_is_the_same(both: Both, name: str) -> None:
    world = await a_world(both)
    request = about(name, world)
    answered = await both.grpc(name, request)
    if name in NOT_THERE:
        assert isinstance(answered, status_pb2.Status), answered
        for asked, _ in forms(name, request):
            assert (await both.http(asked)).error == answered
        return
    assert not isinstance(answered, status_pb2.Status), answered
    expected = compared(name, answered)
    for i in range(len(forms(name, request))):
        if name not in LOOKS:
            world = await a_world(both)
        asked, kind = forms(name, about(name, world))[i]
        assert compared(name, response_of(name, await both.http(asked), kind)) == expected, asked


async def test_what_is_enqueued_by_http_is_what_a_scheduler_enqueues(both: Both) -> None:
    body = b"""{"tasks": [{"name": "cook", "taskId": "019353a4-5b67-7cc2-9d1a-4b7e1c8f2aff",
      "payload": {"data": "AP8="},
      "dueTime": "2200-01-02T03:04:05.678901+01:00", "priority": "9", "runTimeout": "1.5s", "tags": null,
      "dedup": {"key": "by HTTP", "on_conflict": "DEDUP_CONFLICT_REJECT"}, "headers": {"a": "\xc3\xbc"}}]}"""

    answered = await both.http(Asked("POST", "/v1/tasks", body, f"{JSON}; charset=UTF-8"))

    enqueued = response_of("Enqueue", answered)
    assert enqueued.results[0].outcome == scheduler_pb2.ENQUEUE_OUTCOME_CREATED  # type: ignore[attr-defined]
    got: Any = await both.grpc("GetTask", scheduler_pb2.GetTaskRequest(task_id="019353a4-5b67-7cc2-9d1a-4b7e1c8f2aff"))
    task = got.task
    assert (task.payload.data, task.priority, dict(task.headers)) == (b"\x00\xff", 9, {"a": "ü"})
    assert (task.due_time.ToJsonString(), task.run_timeout.ToTimedelta().total_seconds()) == (
        "2200-01-02T02:04:05.678901Z",
        1.5,
    )


async def test_what_does_not_exist_is_told_of_in_the_same_words(both: Both) -> None:
    for name in ("GetTask", "CancelTask", "GetSchedule", "PauseSchedule", "DrainProcessor"):
        request = a_valid(name)
        key = next(
            field for field in ("task_id", "schedule_id", "session_id") if field in request.DESCRIPTOR.fields_by_name
        )
        setattr(request, key, str(uuid.uuid4()))
        missing = await both.grpc(name, request)
        assert isinstance(missing, status_pb2.Status)
        for asked, _ in forms(name, request):
            answered = await both.http(asked)
            assert (answered.status, answered.error) == (404, missing)
            assert getattr(request, key) in missing.message
