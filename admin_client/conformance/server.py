"""The server's side of ProcessorService by script: notes what it is asked, and answers as the server would unless told
otherwise."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from admin_client.conformance.authority import Authority
from admin_client.conformance.stream import Refusal, Stream
from admin_client.conformance.work import MAX_PAYLOAD_BYTES, Key
from taskq.v1 import processor_service_pb2 as pb
from taskq.v1.processor_service_pb2_grpc import ProcessorServiceServicer, add_ProcessorServiceServicer_to_server
from taskq.v1.task_pb2 import TASK_STATE_SCHEDULED, TASK_STATE_SUCCEEDED

OPTIONS: Final = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
]
HEARTBEAT_SECONDS: Final = 0.5
BIND_SECONDS: Final = 20.0
DETAILS_KEY: Final = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat, and when it came by the monotonic clock."""

    request: pb.HeartbeatRequest
    time: float

    @property
    def keys(self) -> set[Key]:
        """The attempts that it lists."""
        return {(each.task_id, each.attempt) for each in self.request.in_flight}


@dataclass(frozen=True, slots=True)
class Report:
    """One result that was reported, by which session, and when."""

    session_id: str
    result: pb.TaskResult
    time: float

    @property
    def key(self) -> Key:
        """The attempt that it is about."""
        return self.result.task_id, self.result.attempt

    @property
    def outcome(self) -> str:
        """`succeeded`, `failed`, `released` or `cancelled`."""
        return self.result.WhichOneof("outcome") or "nothing"


class ScriptedServer(ProcessorServiceServicer):
    """A server for one processor. What it was asked stands in its lists; what it answers, a script may change."""

    def __init__(self, *, ping_interval: float = 5.0, token: str | None = None, tls: Authority | None = None) -> None:
        self.address = "127.0.0.1:0"
        self._ping_interval = ping_interval
        self._token = token
        self.tls = tls
        self._server: grpc.aio.Server | None = None
        self._changed = asyncio.Event()
        # What it was asked.
        self.registrations: list[pb.RegisterRequest] = []
        self.sessions: list[str] = []
        self.streams: list[Stream] = []
        self.refused_streams = 0
        self.beats: list[Beat] = []
        self.reports: list[Report] = []
        self.unregistered: list[str] = []
        self.unauthorised: list[str] = []
        # How many requests to report wait for their answer, and how many were given up before they were answered.
        self.unanswered = 0
        self.given_up = 0
        # What it answers. Each refusal is used once.
        self.register_refusals: deque[Refusal] = deque()
        self.report_refusals: deque[Refusal] = deque()
        # A None is a heartbeat that is never answered.
        self.heartbeat_refusals: deque[Refusal | None] = deque()
        self.heartbeat_refusal: Refusal | None = None
        self.answer_losses = 0
        self.stream_refusal: Refusal | None = None
        self.stream_state: pb.StreamState.ValueType = pb.STREAM_STATE_OK
        self.lost: dict[Key, pb.AttemptRef] = {}
        self.cancelled: dict[Key, pb.AttemptRef] = {}
        # Attempts whose report comes too late, though nothing has said so before.
        self.late: set[Key] = set()
        self.is_draining = False
        self.rest_seconds: float | None = None
        # Reports are answered only while it is set.
        self.answering = asyncio.Event()
        self.answering.set()
        self._outcomes: dict[Key, bytes] = {}

    async def listen(self) -> None:
        """Listens: the first time on any port, later on the same."""
        server = grpc.aio.server(options=OPTIONS)
        add_ProcessorServiceServicer_to_server(self, server)
        self.address = f"127.0.0.1:{await self._bind(server)}"
        await server.start()
        self._server = server

    async def _bind(self, server: grpc.aio.Server) -> int:
        """The port of before may have been taken meanwhile, as somebody's end of a connection that passes."""
        until = time.monotonic() + BIND_SECONDS
        while True:
            try:
                if self.tls is None:
                    return server.add_insecure_port(self.address)
                return server.add_secure_port(self.address, self.tls.credentials())
            except RuntimeError:
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(0.1)

    async def go_away(self) -> None:
        """Hangs up, and listens no more."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(0)

    async def changed(self, at_most: float) -> None:
        """Returns when something was asked, or after so many seconds."""
        try:
            await asyncio.wait_for(self._changed.wait(), at_most)
        except TimeoutError:
            return
        self._changed.clear()

    def changes(self) -> None:
        """Wakes whoever waits for a change."""
        self._changed.set()

    async def Register(self, request: pb.RegisterRequest, context: Any) -> pb.RegisterResponse:
        await self._let_in("Register", context)
        self.registrations.append(request)
        self.changes()
        if self.register_refusals:
            await _abort(self.register_refusals.popleft(), context)
        self.sessions.append(str(uuid.uuid4()))
        self.stream_state = pb.STREAM_STATE_OK
        return pb.RegisterResponse(
            session_id=self.sessions[-1],
            lease_duration=_span(4 * HEARTBEAT_SECONDS),
            heartbeat_interval=_span(HEARTBEAT_SECONDS),
            ack_timeout=_span(20),  # machines on which this runs may be slow
            ping_interval=_span(self._ping_interval),
            server_time=_now(),
        )

    async def StreamTasks(self, request: pb.StreamTasksRequest, context: Any) -> AsyncIterator[pb.StreamTasksResponse]:
        await self._let_in("StreamTasks", context)
        if self.stream_refusal is not None:
            self.refused_streams += 1
            self.changes()
            await _abort(self.stream_refusal, context)
        if request.session_id != self._session_id:
            await _abort(Refusal(grpc.StatusCode.NOT_FOUND, "the session has ended"), context)
        stream = Stream(request.session_id, self._ping_interval)
        self.streams.append(stream)
        self.stream_state = pb.STREAM_STATE_OK
        self.changes()
        async for event in stream.events():
            if not isinstance(event, Refusal):
                yield event
            elif event.code is grpc.StatusCode.OK:
                return
            else:
                await _abort(event, context)

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Any) -> pb.HeartbeatResponse:
        await self._let_in("Heartbeat", context)
        beat = Beat(request, time.monotonic())
        self.beats.append(beat)
        self.changes()
        if self.heartbeat_refusals:
            await _refuse(self.heartbeat_refusals.popleft(), context)
        if self.heartbeat_refusal is not None:
            await _abort(self.heartbeat_refusal, context)
        if request.session_id != self._session_id:
            return pb.HeartbeatResponse(stream=pb.STREAM_STATE_REREGISTER, server_time=_now())
        return pb.HeartbeatResponse(
            stream=self.stream_state,
            lost=[ref for key, ref in self.lost.items() if key in beat.keys],
            cancelled=[ref for key, ref in self.cancelled.items() if key in beat.keys],
            drain=self.is_draining,
            server_time=_now(),
            rest=None if self.rest_seconds is None else _span(self.rest_seconds),
        )

    async def ReportResult(self, request: pb.ReportResultRequest, context: Any) -> pb.ReportResultResponse:
        await self._let_in("ReportResult", context)
        self.unanswered += 1
        self.changes()
        try:
            await self.answering.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            self.changes()
            raise
        finally:
            self.unanswered -= 1
        if (refusal := _fault_of(request)) is not None or self.report_refusals:
            await _abort(refusal or self.report_refusals.popleft(), context)
        reports = [Report(request.session_id, result, time.monotonic()) for result in request.results]
        self.reports += reports
        answers = [self._judge(report) for report in reports]
        self.changes()
        if self.answer_losses:
            self.answer_losses -= 1
            await _abort(Refusal(grpc.StatusCode.UNAVAILABLE, "the answer is lost"), context)
        return pb.ReportResultResponse(answers=answers)

    async def Unregister(self, request: pb.UnregisterRequest, context: Any) -> pb.UnregisterResponse:
        await self._let_in("Unregister", context)
        self.unregistered.append(request.session_id)
        self.changes()
        return pb.UnregisterResponse()

    @property
    def _session_id(self) -> str:
        return self.sessions[-1] if self.sessions else ""

    def end_session(self) -> None:
        """Forgets the session: its stream ends, its heartbeats are told to register again."""
        self.sessions.append("")

    def _judge(self, report: Report) -> pb.ReportAnswer:
        content = report.result.SerializeToString(deterministic=True)
        if (
            report.session_id != self._session_id
            or report.key in {*self.lost, *self.cancelled, *self.late}
            or self._outcomes.setdefault(report.key, content) != content
        ):
            status = pb.REPORT_STATUS_LEASE_LOST
        else:
            repeated = sum(each.key == report.key for each in self.reports) > 1
            status = pb.REPORT_STATUS_ALREADY_ACCEPTED if repeated else pb.REPORT_STATUS_ACCEPTED
        state = TASK_STATE_SUCCEEDED if report.outcome == "succeeded" else TASK_STATE_SCHEDULED
        return pb.ReportAnswer(task_id=report.key[0], attempt=report.key[1], status=status, state=state)

    async def _let_in(self, method: str, context: Any) -> None:
        shown = dict(context.invocation_metadata() or ()).get("authorization")
        if self._token is not None and shown != f"Bearer {self._token}":
            self.unauthorised.append(method)
            self.changes()
            await _abort(Refusal(grpc.StatusCode.UNAUTHENTICATED, "no token was shown that holds"), context)


def _fault_of(request: pb.ReportResultRequest) -> Refusal | None:
    """As the server refuses what it cannot keep: with the fields, and nothing recorded."""
    faults = []
    for i, result in enumerate(request.results):
        if (size := len(result.succeeded.result.data)) > MAX_PAYLOAD_BYTES:
            field = f"results[{i}].succeeded.result.data"
            faults.append((field, f"must be at most {MAX_PAYLOAD_BYTES} bytes; is {size}"))
        if result.WhichOneof("outcome") is None:
            faults.append((f"results[{i}].outcome", "must be set: succeeded, failed, released or cancelled"))
        if result.HasField("failed") and not 1 <= len(result.failed.error_type) <= 256:
            faults.append((f"results[{i}].failed.error_type", "must be 1 to 256 characters"))
    if not faults:
        return None
    violations = [BadRequest.FieldViolation(field=field, description=rule) for field, rule in faults]
    status = Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message=f"{faults[0][0]} {faults[0][1]}")
    status.details.add().Pack(BadRequest(field_violations=violations))
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, status.message, ((DETAILS_KEY, status.SerializeToString()),))


async def _refuse(refusal: Refusal | None, context: Any) -> None:
    if refusal is None:
        await asyncio.Event().wait()  # until the caller has waited long enough
    else:
        await _abort(refusal, context)


async def _abort(refusal: Refusal, context: Any) -> None:
    await context.abort(refusal.code, refusal.details, refusal.trailing)


def _span(seconds: float) -> Duration:
    span = Duration()
    span.FromNanoseconds(int(seconds * 1e9))
    return span


def _now() -> Timestamp:
    now = Timestamp()
    now.FromNanoseconds(time.time_ns())
    return now
