"""Every call with every kind of credential: a table."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import message_factory
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from taskq.v1 import bulk_operation_pb2
from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq.v1 import schedule_service_pb2 as schedule_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server.config import Config
from taskq_server.core import token as api_token
from taskq_server.rpc.auth import NEEDS
from taskq_server.server import Server
from taskq_server.store.verbs.failures import Failures
from taskq_server.store.verbs.figures import Round
from tests.rpc.callers import Metadata, granted, revoke, showing
from tests.rpc.support import UNKNOWN_ID, a_task, soon
from tests.rpc.wire import METHODS as OURS
from tests.support.schedules import every

pytestmark = pytest.mark.asyncio(loop_scope="module")

OK, DENIED, UNKNOWN = grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND
NOBODY, NO_METHOD = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED
CODES = {"yes": OK, "no": DENIED, "none": UNKNOWN}

# The calls are about a task named cook, a schedule of such tasks, and a session of the same principal that cooks.
# `none` is: there is no such thing.
TABLE = """
                  enqueue:cook enqueue:bake enqueue:* process:cook process:bake process:* read payload:read admin
Enqueue           yes          no           yes       no           no           no        no   no           yes
GetTask           yes          none         yes       no           no           no        yes  yes          yes
WatchTask         yes          none         yes       no           no           no        yes  yes          yes
CancelTask        yes          none         yes       no           no           no        no   no           yes
Register          no           no           no        yes          no           yes       no   no           yes
StreamTasks       no           no           no        yes          no           yes       no   no           yes
Heartbeat         no           no           no        yes          no           yes       no   no           yes
ReportResult      no           no           no        yes          no           yes       no   no           yes
Unregister        no           no           no        yes          no           yes       no   no           yes
CreateSchedule    yes          no           yes       no           no           no        no   no           yes
GetSchedule       yes          none         yes       no           no           no        yes  yes          yes
ListSchedules     yes          yes          yes       no           no           no        yes  yes          yes
UpdateSchedule    yes          none         yes       no           no           no        no   no           yes
DeleteSchedule    yes          none         yes       no           no           no        no   no           yes
PauseSchedule     yes          none         yes       no           no           no        no   no           yes
ResumeSchedule    yes          none         yes       no           no           no        no   no           yes
TriggerSchedule   yes          none         yes       no           no           no        no   no           yes
BackfillSchedule  yes          none         yes       no           no           no        no   no           yes
PreviewSchedule   yes          none         yes       no           no           no        yes  yes          yes
ListProcessors    no           no           no        no           no           no        yes  yes          yes
DrainProcessor    no           no           no        no           no           no        no   no           yes
DisconnectProcessor no         no           no        no           no           no        no   no           yes
ListCapabilities  no           no           no        no           no           no        yes  yes          yes
PauseCapability   no           no           no        no           no           no        no   no           yes
ResumeCapability  no           no           no        no           no           no        no   no           yes
GetServerInfo     no           no           no        no           no           no        yes  yes          yes
PruneTasks        no           no           no        no           no           no        no   no           yes
StartBulkOperation no          no           no        no           no           no        no   no           yes
GetBulkOperation  no           no           no        no           no           no        yes  yes          yes
ListBulkOperations no          no           no        no           no           no        yes  yes          yes
CancelBulkOperation no         no           no        no           no           no        no   no           yes
ListAuditEntries  no           no           no        no           no           no        yes  yes          yes
ListTasks         no           no           no        no           no           no        yes  yes          yes
AdminService.GetTask no        no           no        no           no           no        yes  yes          yes
ExplainTask       no           no           no        no           no           no        yes  yes          yes
ListFailureGroups no           no           no        no           no           no        yes  yes          yes
ResolveFailureGroup no         no           no        no           no           no        no   no           yes
GetStats          no           no           no        no           no           no        yes  yes          yes
WatchEvents       no           no           no        no           no           no        yes  yes          yes
Check             yes          yes          yes       yes          yes          yes       yes  yes          yes
List              yes          yes          yes       yes          yes          yes       yes  yes          yes
Watch             yes          yes          yes       yes          yes          yes       yes  yes          yes
"""
_LINES = [line.split() for line in TABLE.strip().splitlines()]
RIGHTS = _LINES[0]
EXPECTED = {(line[0], right): CODES[word] for line in _LINES[1:] for right, word in zip(RIGHTS, line[1:], strict=True)}
CALLS = [line[0] for line in _LINES[1:]]
OPEN_TO_ALL = {"Check", "List"}
NO_CREDENTIALS = [
    "nothing", "no scheme", "another scheme", "garbage", "wrong checksum", "half a token", "a token and more",
    "never made", "wrong secret", "expired", "revoked", "empty", "two words",
]  # fmt: skip
HEALTH = {method.name: method for method in health_pb2.DESCRIPTOR.services_by_name["Health"].methods}
METHODS = OURS | HEALTH
PATHS = {name: f"/{method.containing_service.full_name}/{method.name}" for name, method in METHODS.items()}


async def test_every_call_that_there_is_has_a_line_in_the_table_and_needs_something() -> None:
    assert set(CALLS) == set(PATHS)
    reflection = {f"/grpc.reflection.{v}.ServerReflection/ServerReflectionInfo" for v in ("v1", "v1alpha")}
    assert set(NEEDS) == set(PATHS.values()) | reflection


@dataclass
class Gate:
    """A server at which callers must show who they are."""

    server: Server
    channel: grpc.aio.Channel
    shown: dict[str, Metadata] = field(default_factory=dict)
    """What to send, by the kind of credential."""

    async def call(
        self, name: str, request: Message, metadata: Metadata, channel: grpc.aio.Channel | None = None
    ) -> tuple[grpc.StatusCode, Any]:
        """How a call ends, and its answer; of a stream the first, which tells that it is open."""
        path, method, channel = PATHS[name], METHODS[name], channel or self.channel
        parse = message_factory.GetMessageClass(method.output_type).FromString
        data = request.SerializeToString()
        try:
            if not method.server_streaming:
                return OK, await soon(channel.unary_unary(path, None, parse)(data, metadata=metadata))
            stream = channel.unary_stream(path, None, parse)(data, metadata=metadata)
            answer = await soon(stream.read())
            assert answer is not grpc.aio.EOF
            stream.cancel()
            return OK, answer
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details()

    async def request(self, name: str) -> Message:
        """A request that is in order, about things that are there."""
        if name in HEALTH:
            return health_pb2.HealthListRequest() if name == "List" else health_pb2.HealthCheckRequest()
        admin, kitchen = self.shown["admin"], self.shown["process:*"]
        message = message_factory.GetMessageClass(METHODS[name].input_type)()
        fields = message.DESCRIPTOR.fields_by_name
        if name == "Enqueue":
            return scheduler_pb2.EnqueueRequest(tasks=[a_task("cook")])
        if name == "Register":
            return _a_registration()
        if METHODS[name].containing_service.name == "ScheduleService":
            return await self._about_a_schedule(name, message)
        if "task_id" in fields:
            enqueue = scheduler_pb2.EnqueueRequest(tasks=[a_task("cook", b"pasta")])
            _, enqueued = await self.call("Enqueue", enqueue, admin)
            message.task_id = enqueued.results[0].task_id  # type: ignore[attr-defined]
        if name == "StartBulkOperation":
            return _a_bulk_operation()
        if "operation_id" in fields:  # one that goes on, since nobody works on it
            _, started = await self.call("StartBulkOperation", _a_bulk_operation(), admin)
            message.operation_id = started.operation.operation_id  # type: ignore[attr-defined]
        if "session_id" in fields:
            _, registered = await self.call("Register", _a_registration(), kitchen)
            message.session_id = registered.session_id  # type: ignore[attr-defined]
        if "fingerprint" in fields:
            seen = Failures("a" * 16, "cook", "Burnt", "", first_time_us=1, last_time_us=1, last_task_id=bytes(16))
            await self.server._store.keep_figures(Round(failures=[seen]))
            message.fingerprint = seen.fingerprint  # type: ignore[attr-defined]
        if name == "ReportResult":
            released = processor_pb2.Released()
            message.results.add(task_id=UNKNOWN_ID, attempt=1, released=released)  # type: ignore[attr-defined]
        if "name" in fields:
            message.name = "cook"  # type: ignore[attr-defined]
        return message

    async def _about_a_schedule(self, name: str, message: Any) -> Message:
        new = every(3_600, f"cook-{next(_NUMBERS)}", data=b"pasta")
        if name == "CreateSchedule":
            return schedule_pb2.CreateScheduleRequest(schedule=new)
        create = schedule_pb2.CreateScheduleRequest(schedule=new)
        _, created = await self.call("CreateSchedule", create, self.shown["admin"])
        if name == "UpdateSchedule":
            return schedule_pb2.UpdateScheduleRequest(
                schedule=every(60, new.name, schedule_id=created.schedule.schedule_id, etag=created.schedule.etag)
            )
        if name == "ListSchedules":
            return schedule_pb2.ListSchedulesRequest(name_prefix=new.name)
        message.name = new.name
        if name == "BackfillSchedule":
            message.start_time.GetCurrentTime()
            message.end_time.GetCurrentTime()
            message.start_time.seconds -= 10
            message.end_time.seconds -= 5
        return message  # type: ignore[no-any-return]


_NUMBERS = itertools.count()


def _a_bulk_operation() -> bulk_operation_pb2.StartBulkOperationRequest:
    action = bulk_operation_pb2.BulkAction(cancel=bulk_operation_pb2.CancelAction())
    return bulk_operation_pb2.StartBulkOperationRequest(filter="name:nobody", action=action)


def _a_registration() -> processor_pb2.RegisterRequest:
    capabilities = [processor_pb2.Capability(name="cook")]
    return processor_pb2.RegisterRequest(processor_name="oven", max_in_flight=1, capabilities=capabilities)


async def _shown(server: Server) -> dict[str, Metadata]:
    shown = {right: showing(await granted(server, "kitchen", right)) for right in RIGHTS}
    revoked, known = await granted(server, "kitchen", "admin"), await granted(server, "kitchen", "admin")
    expired = await granted(server, "kitchen", "admin", expire_after_us=1)
    await revoke(server, revoked)
    other = api_token.new()
    body = f"{known[:15]}{other[15:-7]}"
    wrong_secret = f"{body}_{api_token._checksum(body)}"
    assert api_token.id_of(wrong_secret) == known[:15]
    return shown | {
        "nothing": (),
        "no scheme": (("authorization", known),),
        "another scheme": (("authorization", f"Basic {known}"),),
        "garbage": showing("garbage"),
        "wrong checksum": showing(known[:-1] + ("x" if known[-1] != "x" else "y")),
        "half a token": showing(known[:40]),
        "a token and more": showing(known + "x"),
        "never made": showing(other),
        "wrong secret": showing(wrong_secret),
        "expired": showing(expired),
        "revoked": showing(revoked),
        "empty": (("authorization", ""),),
        "two words": showing(f"{known} {known}"),
    }


def leave_operations(server: Server) -> None:
    """Nobody works on them: they go on until somebody cancels them."""
    server.bulk.tick = asyncio.Event().wait  # type: ignore[assignment, method-assign]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(module_database_url: str) -> AsyncIterator[Gate]:
    server = Server(
        Config(listen="127.0.0.1:0", http_listen="", database_url=module_database_url, stop_grace=1, auth="required")
    )
    await server.start()
    leave_operations(server)
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield Gate(server, channel, await _shown(server))
    await server.stop()


@pytest.fixture(autouse=True)
def _forgiving(gate: Gate) -> None:
    """What others have failed at is not held against a test."""
    gate.server.access._failures._counts.clear()


@pytest.mark.parametrize("right", RIGHTS)
@pytest.mark.parametrize("name", CALLS)
async def test_a_call_with_one_right(gate: Gate, name: str, right: str) -> None:
    code, answer = await gate.call(name, await gate.request(name), gate.shown[right])
    assert code is EXPECTED[name, right], answer


@pytest.mark.parametrize("kind", NO_CREDENTIALS)
@pytest.mark.parametrize("name", CALLS)
async def test_a_call_without_a_credential_that_holds(gate: Gate, name: str, kind: str) -> None:
    code, answer = await gate.call(name, await gate.request(name), gate.shown[kind])
    assert code is (EXPECTED[name, "admin"] if name in OPEN_TO_ALL else NOBODY), answer


@pytest.mark.parametrize("right", RIGHTS)
@pytest.mark.parametrize("name", [name for name in CALLS if name in OURS])
async def test_who_lacks_the_right_to_a_call_is_told_so_whatever_they_send(gate: Gate, name: str, right: str) -> None:
    code, _ = await gate.call(name, processor_pb2.RegisterRequest(build_id="x"), gate.shown[right])
    other_names = {"enqueue:bake": "enqueue:cook", "process:bake": "process:cook"}
    is_denied = EXPECTED[name, other_names.get(right, right)] is DENIED
    assert (code is DENIED) == is_denied


async def test_a_call_that_does_not_exist_is_told_only_to_those_who_may_come_in(gate: Gate) -> None:
    async def code(metadata: Metadata) -> grpc.StatusCode:
        try:
            await soon(gate.channel.unary_unary("/taskq.v1.AdminService/NoSuchCall")(b"", metadata=metadata))
        except grpc.aio.AioRpcError as error:
            return error.code()
        raise AssertionError("it was answered")

    assert await code(gate.shown["read"]) is NO_METHOD
    assert await code(()) is NOBODY
    assert await code(gate.shown["revoked"]) is NOBODY


async def test_many_callers_at_once_are_not_taken_for_each_other(gate: Gate) -> None:
    async def get(right: str, request: Message) -> grpc.StatusCode:
        return (await gate.call("CancelTask", request, gate.shown[right]))[0]

    rights = RIGHTS * 5
    requests = [await gate.request("CancelTask") for _ in rights]
    codes = await asyncio.gather(*(get(right, request) for right, request in zip(rights, requests, strict=True)))
    assert codes == [EXPECTED["CancelTask", right] for right in rights]


@pytest.mark.parametrize("right", ["enqueue:cook", "enqueue:bake", "read", "payload:read", "admin"])
async def test_of_schedules_a_caller_sees_what_may_be_seen_of_their_tasks(gate: Gate, right: str) -> None:
    request = await gate.request("ListSchedules")

    code, answer = await gate.call("ListSchedules", request, gate.shown[right])

    seen = [(one.name, one.task.payload.data) for one in answer.schedules]
    payload = b"" if right == "read" else b"pasta"
    assert code is OK
    assert seen == ([] if right == "enqueue:bake" else [(request.name_prefix, payload)])  # type: ignore[attr-defined]


async def test_a_schedule_cannot_be_turned_into_one_of_tasks_that_its_keeper_may_not_enqueue(gate: Gate) -> None:
    request: Any = await gate.request("UpdateSchedule")
    request.schedule.task.name = "bake"

    code, told = await gate.call("UpdateSchedule", request, gate.shown["enqueue:cook"])

    assert code is DENIED
    assert "enqueue:bake" in told


async def test_a_schedule_that_may_not_be_seen_is_told_of_as_one_that_does_not_exist(gate: Gate) -> None:
    for key in ("name", "schedule_id"):
        hidden: Any = await gate.request("GetSchedule")
        if key == "schedule_id":
            _, found = await gate.call("GetSchedule", hidden, gate.shown["admin"])
            hidden = schedule_pb2.GetScheduleRequest(schedule_id=found.schedule.schedule_id)
        asked = getattr(hidden, key)
        missing = schedule_pb2.GetScheduleRequest(**{key: UNKNOWN_ID if key == "schedule_id" else "no-such"})

        _, told = await gate.call("GetSchedule", hidden, gate.shown["enqueue:bake"])
        _, told_of_none = await gate.call("GetSchedule", missing, gate.shown["enqueue:bake"])

        assert told.replace(asked, "X") == told_of_none.replace(getattr(missing, key), "X")
