"""A scheduler and a processor over the wire, with nothing but the generated stubs. Whatever is awaited has a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from taskq.v1 import admin_service_pb2 as admin_pb2
from taskq.v1 import admin_service_pb2_grpc, processor_service_pb2_grpc, scheduler_service_pb2_grpc, task_pb2
from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2

LIMIT_SECONDS = 20
"""How long anything may take on a loaded machine before it counts as never."""
SCHEDULED, RUNNING = task_pb2.TASK_STATE_SCHEDULED, task_pb2.TASK_STATE_RUNNING
SUCCEEDED, FAILED = task_pb2.TASK_STATE_SUCCEEDED, task_pb2.TASK_STATE_FAILED
CANCELLED = task_pb2.TASK_STATE_CANCELLED
ACCEPTED = processor_pb2.REPORT_STATUS_ACCEPTED
ALREADY_ACCEPTED = processor_pb2.REPORT_STATUS_ALREADY_ACCEPTED
LEASE_LOST = processor_pb2.REPORT_STATUS_LEASE_LOST
NOT_FOUND = processor_pb2.REPORT_STATUS_NOT_FOUND
OK, REOPEN = processor_pb2.STREAM_STATE_OK, processor_pb2.STREAM_STATE_REOPEN
REREGISTER = processor_pb2.STREAM_STATE_REREGISTER
UNKNOWN_ID = "01935000-0000-7000-8000-000000000000"


def time_at(time_us: int) -> Timestamp:
    return Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1_000)


def span(seconds: float) -> Duration:
    us = round(seconds * 1_000_000)
    return Duration(seconds=us // 1_000_000, nanos=us % 1_000_000 * 1_000)


def microseconds(time: Timestamp) -> int:
    return time.seconds * 1_000_000 + time.nanos // 1_000


def a_task(name: str = "cook", data: bytes = b"", **fields: Any) -> scheduler_pb2.NewTask:
    """A task that is due now; `fields` are those of NewTask."""
    if data:
        fields["payload"] = task_pb2.Payload(data=data)
    return scheduler_pb2.NewTask(name=name, **fields)


def retrying(initial_seconds: float = 1, **fields: Any) -> task_pb2.RetryPolicy:
    """A policy whose delays are known beforehand."""
    none = task_pb2.RetryPolicy.JITTER_NONE
    return task_pb2.RetryPolicy(initial_delay=span(initial_seconds), jitter=none, **fields)


async def soon(awaitable: Awaitable[Any]) -> Any:
    """What the awaitable gives; a failure when it gives nothing for too long."""
    async with asyncio.timeout(LIMIT_SECONDS):
        return await awaitable


class RawScheduler:
    """Enqueues and looks."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = scheduler_service_pb2_grpc.SchedulerServiceStub(channel)

    async def enqueue_all(self, *tasks: scheduler_pb2.NewTask) -> list[scheduler_pb2.EnqueueResult]:
        response = await soon(self.stub.Enqueue(scheduler_pb2.EnqueueRequest(tasks=tasks)))
        return list(response.results)

    async def enqueue(self, name: str = "cook", data: bytes = b"", **fields: Any) -> str:
        """Enqueues one task and answers its id."""
        return str((await self.enqueue_all(a_task(name, data, **fields)))[0].task_id)

    async def get(self, task_id: str) -> task_pb2.Task:
        return (await soon(self.stub.GetTask(scheduler_pb2.GetTaskRequest(task_id=task_id)))).task

    async def states(self, task_ids: Iterable[str]) -> list[int]:
        return [(await self.get(task_id)).state for task_id in task_ids]

    async def cancel(self, task_id: str) -> task_pb2.Task:
        return (await soon(self.stub.CancelTask(scheduler_pb2.CancelTaskRequest(task_id=task_id)))).task

    def watch(self, *task_ids: str) -> Watch:
        request = scheduler_pb2.WatchTaskRequest(task_ids=task_ids)
        return Watch(self.stub.WatchTask(request))


class RawAdmin:
    """Looks at processors and capabilities, and steers them."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = admin_service_pb2_grpc.AdminServiceStub(channel)

    async def pause(self, name: str = "cook", reason: str = "") -> admin_pb2.CapabilityPause:
        request = admin_pb2.PauseCapabilityRequest(name=name, reason=reason)
        return (await soon(self.stub.PauseCapability(request))).pause

    async def resume(self, name: str = "cook") -> admin_pb2.ResumeCapabilityResponse:
        return await soon(self.stub.ResumeCapability(admin_pb2.ResumeCapabilityRequest(name=name)))  # type: ignore[no-any-return]

    async def drain(self, session_id: str, reason: str = "") -> admin_pb2.Processor:
        request = admin_pb2.DrainProcessorRequest(session_id=session_id, reason=reason)
        return (await soon(self.stub.DrainProcessor(request))).processor

    async def disconnect(self, session_id: str) -> int:
        """How many tasks it held."""
        request = admin_pb2.DisconnectProcessorRequest(session_id=session_id)
        return (await soon(self.stub.DisconnectProcessor(request))).released_tasks  # type: ignore[no-any-return]

    async def processors(self, **page: Any) -> admin_pb2.ListProcessorsResponse:
        return await soon(self.stub.ListProcessors(admin_pb2.ListProcessorsRequest(**page)))

    async def capabilities(self, **page: Any) -> admin_pb2.ListCapabilitiesResponse:
        return await soon(self.stub.ListCapabilities(admin_pb2.ListCapabilitiesRequest(**page)))

    async def capability(self, name: str) -> admin_pb2.CapabilityView:
        return next(one for one in (await self.capabilities()).capabilities if one.name == name)


class Watch:
    """A WatchTask stream."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def next(self) -> task_pb2.Task:
        return (await soon(self._call.read())).task

    async def rest(self) -> list[task_pb2.Task]:
        """Everything until the stream ends."""
        found = []
        while (response := await soon(self._call.read())) is not grpc.aio.EOF:
            found.append(response.task)
        return found


@dataclass
class RawStream:
    """A StreamTasks call, read only when somebody asks."""

    call: Any
    tasks: list[processor_pb2.AssignedTask] = field(default_factory=list)
    """What came and was not taken yet."""

    async def read(self) -> processor_pb2.StreamTasksResponse | None:
        """The next frame; None at the end."""
        frame = await soon(self.call.read())
        return None if frame is grpc.aio.EOF else frame

    async def next(self, kind: str) -> Any:
        """The next frame of this kind; pings and tasks on the way are passed over, the tasks kept."""
        while (frame := await self.read()) is not None:
            found = frame.WhichOneof("event")
            if found == "tasks":
                self.tasks.extend(frame.tasks.tasks)
            if found == kind:
                return getattr(frame, found)
            assert found in ("ping", "tasks"), f"waited for {kind}, but {found} came"
        raise AssertionError(f"waited for {kind}, but the stream ended: {await self.call.code()}")

    async def ended(self) -> None:
        """Reads until the stream ends."""
        while (frame := await self.read()) is not None:
            self.tasks.extend(frame.tasks.tasks)


class RawProcessor:
    """One registration of a processor."""

    def __init__(
        self,
        address: str,
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
        channel: grpc.aio.Channel | None = None,
    ) -> None:
        # a connection of its own, as processors are separate programs; and a window that does not grow
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
        self._channel = channel or grpc.aio.insecure_channel(address, options, interceptors=interceptors)
        self.stub = processor_service_pb2_grpc.ProcessorServiceStub(self._channel)
        self.registered = processor_pb2.RegisterResponse()
        self.stream: RawStream

    @property
    def session_id(self) -> str:
        return self.registered.session_id

    async def register(
        self, name: str, can: Mapping[str, int] | Iterable[str], max_in_flight: int, labels: Mapping[str, str]
    ) -> None:
        limits = can if isinstance(can, Mapping) else dict.fromkeys(can, 0)
        capabilities = [processor_pb2.Capability(name=word, max_in_flight=most) for word, most in limits.items()]
        request = processor_pb2.RegisterRequest(
            processor_name=name, capabilities=capabilities, max_in_flight=max_in_flight, labels=labels
        )
        self.registered = await soon(self.stub.Register(request))

    async def open(self) -> RawStream:
        """Opens the session's stream; its first ping tells that it is open."""
        call = self.stub.StreamTasks(processor_pb2.StreamTasksRequest(session_id=self.session_id))
        stream = self.stream = RawStream(call)
        first = await stream.read()
        assert first is not None and first.HasField("ping")
        return stream

    async def close_stream(self) -> None:
        self.stream.call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.stream.call.code()
            await self.stream.call.read()

    async def take(self, count: int = 1) -> list[processor_pb2.AssignedTask]:
        """The next tasks, in the order in which they came."""
        while len(self.stream.tasks) < count:
            await self.stream.next("tasks")
        taken, self.stream.tasks = self.stream.tasks[:count], self.stream.tasks[count:]
        return taken

    async def take_one(self) -> processor_pb2.AssignedTask:
        return (await self.take(1))[0]

    async def heartbeat(
        self, *held: processor_pb2.AssignedTask, draining: bool = False, **said: Any
    ) -> processor_pb2.HeartbeatResponse:
        """`said` (progress, checkpoint) is said of each."""
        in_flight = [processor_pb2.InFlight(task_id=one.task_id, attempt=one.attempt, **said) for one in held]
        request = processor_pb2.HeartbeatRequest(session_id=self.session_id, in_flight=in_flight, draining=draining)
        return await soon(self.stub.Heartbeat(request))

    async def report(self, *results: processor_pb2.TaskResult) -> list[processor_pb2.ReportAnswer]:
        request = processor_pb2.ReportResultRequest(session_id=self.session_id, results=results)
        return list((await soon(self.stub.ReportResult(request))).answers)

    async def _report(self, task: processor_pb2.AssignedTask, **outcome: Any) -> processor_pb2.ReportAnswer:
        return (await self.report(a_result(task, **outcome)))[0]

    async def succeed(self, task: processor_pb2.AssignedTask, data: bytes = b"") -> processor_pb2.ReportAnswer:
        result = task_pb2.Payload(data=data) if data else None
        return await self._report(task, succeeded=processor_pb2.Succeeded(result=result))

    async def fail(self, task: processor_pb2.AssignedTask, **fields: Any) -> processor_pb2.ReportAnswer:
        return await self._report(task, failed=processor_pb2.Failed(**{"error_type": "Burnt", **fields}))

    async def release(self, task: processor_pb2.AssignedTask, **fields: Any) -> processor_pb2.ReportAnswer:
        return await self._report(task, released=processor_pb2.Released(**fields))

    async def unregister(self) -> None:
        await soon(self.stub.Unregister(processor_pb2.UnregisterRequest(session_id=self.session_id)))

    async def disconnect(self) -> None:
        await self._channel.close()


def a_result(task: processor_pb2.AssignedTask | processor_pb2.AttemptRef, **outcome: Any) -> processor_pb2.TaskResult:
    outcome = outcome or {"succeeded": processor_pb2.Succeeded()}
    return processor_pb2.TaskResult(task_id=task.task_id, attempt=task.attempt, **outcome)


def keys(attempts: Iterable[processor_pb2.AssignedTask | processor_pb2.AttemptRef]) -> set[tuple[str, int]]:
    return {(one.task_id, one.attempt) for one in attempts}


@dataclass
class Refusal:
    """An error, as its caller sees it."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    domain: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    """Field to rule."""
    retry_seconds: float | None = None


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    refusal = Refusal(error.code(), error.details() or "")
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            refusal.reason, refusal.domain, refusal.facts = info.reason, info.domain, dict(info.metadata)
        elif detail.Unpack(request):
            refusal.faults = {one.field: one.description for one in request.field_violations}
        elif detail.Unpack(retry):
            refusal.retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()
    return refusal


async def refused(call: Awaitable[Any]) -> Refusal:
    """The error of a call that must not succeed."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await soon(call)
    return refusal_of(caught.value)
