"""A ProcessorService that does what a test tells it to: for the faults that a real server does not commit on demand."""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from client_core.payload import encode
from processor_client import Processor
from taskq.v1 import processor_service_pb2 as pb
from taskq.v1.processor_service_pb2_grpc import ProcessorServiceServicer, add_ProcessorServiceServicer_to_server
from taskq.v1.task_pb2 import TASK_STATE_FAILED, TASK_STATE_SCHEDULED, TASK_STATE_SUCCEEDED, Payload

PATIENCE_SECONDS = 10.0


class Refusal(Exception):
    """Makes a call end with this status."""

    def __init__(self, code: grpc.StatusCode, details: str = "as scripted", trailing: tuple[Any, ...] = ()) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details
        self.trailing = trailing


def seconds(number: float) -> Duration:
    span = Duration()
    span.FromNanoseconds(int(number * 1e9))
    return span


def now(offset: float = 0.0) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(time.time_ns() + int(offset * 1e9))
    return stamp


def a_task(name: str = "noop", args: object = None, attempt: int = 1, **fields: Any) -> pb.AssignedTask:
    """A task as it is assigned; names only what matters to the test."""
    fields.setdefault("task_id", str(uuid.uuid4()))
    fields.setdefault("max_attempts", 5)
    payload = args if isinstance(args, Payload) else encode(args)
    moment = now()
    return pb.AssignedTask(
        name=name, attempt=attempt, payload=payload, due_time=moment, enqueue_time=moment, lease_time=moment, **fields
    )


class Stream:
    """One StreamTasks call, from the server's side."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.script: asyncio.Queue[pb.StreamTasksResponse | Refusal | None] = asyncio.Queue()
        self.is_open = True

    def send(self, *tasks: pb.AssignedTask) -> None:
        self.script.put_nowait(pb.StreamTasksResponse(tasks=pb.TaskBatch(tasks=tasks)))

    def ping(self) -> None:
        self.script.put_nowait(pb.StreamTasksResponse(ping=pb.Ping(server_time=now())))

    def cancel(self, *tasks: pb.AssignedTask) -> None:
        refs = [pb.AttemptRef(task_id=task.task_id, attempt=task.attempt) for task in tasks]
        self.script.put_nowait(pb.StreamTasksResponse(cancel=pb.CancelTasks(attempts=refs)))

    def say(self, **event: Any) -> None:
        self.script.put_nowait(pb.StreamTasksResponse(**event))

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK) -> None:
        self.script.put_nowait(None if code is grpc.StatusCode.OK else Refusal(code))


class ScriptedServer(ProcessorServiceServicer):
    """Records what it is asked; answers as a server would, unless a script says otherwise."""

    def __init__(self, *, heartbeat_interval: float = 0.05, ping_interval: float = 30.0) -> None:
        self.heartbeat_interval = heartbeat_interval
        self.ping_interval = ping_interval
        self.address = ""
        self.registrations: list[pb.RegisterRequest] = []
        self.streams: list[Stream] = []
        self.heartbeats: list[pb.HeartbeatRequest] = []
        self.heartbeat_times: list[float] = []
        self.requests: list[pb.ReportResultRequest] = []
        self.unregistered: list[str] = []
        # Each used once, in order, before the usual answer: a Refusal, or something to answer with.
        self.register_script: deque[Refusal] = deque()
        self.heartbeat_script: deque[Refusal | pb.HeartbeatResponse] = deque()
        self.report_script: deque[Refusal | None] = deque()
        self.judge: Callable[[pb.TaskResult], pb.ReportAnswer] = accept
        self.refuse: Callable[[pb.ReportResultRequest], Refusal | None] = lambda request: None
        # Reports are answered only while it is set.
        self.answering = asyncio.Event()
        self.answering.set()
        self.silent = False
        self._changed = asyncio.Condition()

    async def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        """Waits until the condition holds, looking whenever something was asked."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            async with self._changed:
                await self._changed.wait_for(condition)
        return condition()

    async def stream(self, number: int = 1) -> Stream:
        """The stream that was opened as the `number`th."""
        await self.until(lambda: len(self.streams) >= number)
        return self.streams[number - 1]

    @property
    def results(self) -> list[pb.TaskResult]:
        """All that was reported and not refused."""
        return [result for request in self.requests for result in request.results]

    async def result_of(self, task: pb.AssignedTask) -> pb.TaskResult:
        """What was reported first of a task's attempt."""

        def found() -> list[pb.TaskResult]:
            key = (task.task_id, task.attempt)
            return [result for result in self.results if (result.task_id, result.attempt) == key]

        return (await self.until(found))[0]

    async def beats(self, further: int = 2) -> list[pb.HeartbeatRequest]:
        """The heartbeats that come from now on, the first of which may have been under way."""
        seen = len(self.heartbeats)
        await self.until(lambda: len(self.heartbeats) >= seen + further)
        return self.heartbeats[seen:]

    async def changed(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def Register(self, request: Any, context: Any) -> Any:
        self.registrations.append(request)
        await self.changed()
        await self._follow(self.register_script, context)
        return pb.RegisterResponse(
            session_id=f"session-{len(self.registrations)}",
            lease_duration=seconds(self.heartbeat_interval * 4),
            heartbeat_interval=seconds(self.heartbeat_interval),
            # Generous, since these tests also run where the loop is held up by others.
            ack_timeout=seconds(20),
            ping_interval=seconds(self.ping_interval),
            server_time=now(),
        )

    async def StreamTasks(self, request: Any, context: Any) -> AsyncIterator[Any]:
        stream = Stream(request.session_id)
        self.streams.append(stream)
        await self.changed()
        try:
            while True:
                step = await stream.script.get()
                if step is None:
                    return
                if isinstance(step, Refusal):
                    await context.abort(step.code, step.details)
                else:
                    yield step
        finally:
            stream.is_open = False
            await self.changed()

    async def Heartbeat(self, request: Any, context: Any) -> Any:
        self.heartbeats.append(request)
        self.heartbeat_times.append(time.monotonic())
        await self.changed()
        reply = await self._follow(self.heartbeat_script, context)
        return reply or pb.HeartbeatResponse(stream=pb.STREAM_STATE_OK, server_time=now())

    async def ReportResult(self, request: Any, context: Any) -> Any:
        await self.answering.wait()
        if (refusal := self.refuse(request)) is not None:
            await _abort(refusal, context)
        self.requests.append(request)
        await self.changed()
        await self._follow(self.report_script, context)
        return pb.ReportResultResponse(answers=[self.judge(result) for result in request.results])

    async def Unregister(self, request: Any, context: Any) -> Any:
        self.unregistered.append(request.session_id)
        await self.changed()
        return pb.UnregisterResponse()

    async def _follow(self, script: deque[Any], context: Any) -> Any:
        step = script.popleft() if script else None
        if isinstance(step, Refusal):
            await _abort(step, context)
        return step


async def _abort(refusal: Refusal, context: Any) -> None:
    await context.abort(refusal.code, refusal.details, refusal.trailing)


def accept(result: pb.TaskResult) -> pb.ReportAnswer:
    """As the real server answers a report under a live lease; a failed task has attempts left."""
    state = TASK_STATE_SUCCEEDED if result.HasField("succeeded") else TASK_STATE_SCHEDULED
    if result.HasField("failed") and result.failed.HasField("retryable") and not result.failed.retryable:
        state = TASK_STATE_FAILED
    status = pb.REPORT_STATUS_ACCEPTED
    return pb.ReportAnswer(task_id=result.task_id, attempt=result.attempt, status=status, state=state)


@asynccontextmanager
async def scripted_server(**settings: Any) -> AsyncIterator[ScriptedServer]:
    """A scripted server on a free port."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    servicer = ScriptedServer(**settings)
    add_ProcessorServiceServicer_to_server(servicer, server)
    servicer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield servicer
    finally:
        await server.stop(0)


@asynccontextmanager
async def at_work(
    *tasks: Any, script: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[tuple[ScriptedServer, Stream]]:
    """A processor that runs `tasks` for a scripted server, and the stream that it has opened."""
    async with scripted_server(**(script or {})) as server, Processor(server.address, tasks, **settings):
        yield server, await server.stream()


class Runs:
    """A function that is declared as the handler of a name, as scheduler_client declares one."""

    def __init__(self, task_name: str, function: Callable[..., Any], executor: str | None = None) -> None:
        self.task_name = task_name
        self.function = function
        self.executor = executor


def utc_now() -> datetime:
    return datetime.now(UTC)


def in_flight(heartbeat: pb.HeartbeatRequest) -> set[tuple[str, int]]:
    return {(each.task_id, each.attempt) for each in heartbeat.in_flight}


def ref(task: pb.AssignedTask) -> pb.AttemptRef:
    return pb.AttemptRef(task_id=task.task_id, attempt=task.attempt)


def keys(tasks: Iterable[pb.AssignedTask]) -> set[tuple[str, int]]:
    return {(task.task_id, task.attempt) for task in tasks}
