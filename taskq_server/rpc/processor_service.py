"""ProcessorService: convert, call, convert; and the loop that writes a session's stream."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator

import structlog

from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq_server import task_id
from taskq_server.access import NOBODYS_SESSION, Access
from taskq_server.clock import SECOND_US, Alarm, Clock
from taskq_server.config import Config
from taskq_server.core.errors import SessionNotFound, Stopping
from taskq_server.core.task import Assignment
from taskq_server.metrics import Metrics
from taskq_server.rpc import convert_processor as convert
from taskq_server.rpc.convert import duration, timestamp
from taskq_server.session import Session, Stream
from taskq_server.sessions import Sessions, microseconds
from taskq_server.store.verbs.reading import Owned
from taskq_server.task_queue import TaskQueue

log = structlog.get_logger("taskq.rpc")

STREAM_AGE_SECONDS = 1_800
"""A stream is renewed after this long, give or take a tenth: connections are authenticated and balanced anew."""


class ProcessorService:
    """What processors call."""

    def __init__(
        self,
        tasks: TaskQueue,
        sessions: Sessions,
        access: Access,
        clock: Clock,
        alarm: Alarm,
        config: Config,
        metrics: Metrics,
    ) -> None:
        self._metrics = metrics
        self._tasks = tasks
        self._sessions = sessions
        self._access = access
        self._clock = clock
        self._alarm = alarm
        self._config = config
        self._stopping = False

    def stop(self) -> None:
        """Takes no new sessions and streams."""
        self._stopping = True

    async def Register(self, request: processor_pb2.RegisterRequest) -> processor_pb2.RegisterResponse:
        new = convert.new_session(request)
        caller = self._access.caller()
        caller.must_process(new.capabilities)
        new.principal = caller.principal
        if self._stopping:
            raise Stopping
        session = await self._sessions.register(new)
        interval_us = microseconds(self._config.heartbeat_interval)
        return processor_pb2.RegisterResponse(
            session_id=task_id.to_text(session.session_id),
            lease_duration=duration(microseconds(self._config.lease_duration)),
            heartbeat_interval=duration(interval_us),
            ack_timeout=duration(2 * interval_us),
            server_time=timestamp(self._clock.now_us()),
            ping_interval=duration(microseconds(self._config.ping_interval)),
        )

    async def StreamTasks(
        self, request: processor_pb2.StreamTasksRequest
    ) -> AsyncIterator[processor_pb2.StreamTasksResponse]:
        session_id = convert.session_id(request.session_id)
        if self._stopping:
            raise Stopping
        if await self._callers(session_id) != session_id:
            raise SessionNotFound(task_id.to_text(session_id))
        session = await self._sessions.take(session_id)
        if self._stopping:  # meanwhile: nobody would drain this stream any more
            raise Stopping
        stream = session.open_stream()
        self._alarm.ring()
        try:
            async with contextlib.aclosing(self._frames(session, stream)) as frames:
                async for frame in frames:
                    yield frame
        finally:
            unsent = session.close_stream(stream)
            if unsent:
                await asyncio.shield(self._tasks.release(session, unsent))

    async def _callers(self, session_id: bytes) -> bytes:
        """The session, if it is the caller's; else the id of none. PermissionDenied when their credential, which may be
        another than the one that has registered it, does not allow all that it runs; of a session that has ended they
        hear that, as anybody does: it makes a processor register again, and that names what is missing."""
        if not self._access.required:
            return session_id
        caller = self._access.caller()
        owned = await self._sessions.owner(session_id)
        if owned is None or owned.principal != caller.principal:
            return NOBODYS_SESSION
        if isinstance(owned, Session) and owned.vetted_caller is caller:  # there may be a thousand names
            return session_id
        if isinstance(owned, Owned) and owned.has_ended and not caller.may_process(owned.capabilities):
            return NOBODYS_SESSION
        caller.must_process(owned.capabilities, fields=False)
        if isinstance(owned, Session):
            owned.vetted_caller = caller
        return session_id

    async def _frames(
        self, session: Session, stream: Stream
    ) -> AsyncGenerator[processor_pb2.StreamTasksResponse, None]:
        yield self._ping()  # tells the processor that it is open
        ends_at = asyncio.get_running_loop().time() + STREAM_AGE_SECONDS * random.uniform(0.9, 1.1)
        told_of_drain: str | None = None
        while True:
            woken = await _within(self._config.ping_interval, stream.wake)
            stream.wake.clear()
            if session.drain_reason != told_of_drain:  # what runs goes on, and may still have to be stopped
                told_of_drain = session.drain_reason
                drain = processor_pb2.Drain(reason=told_of_drain or "", processor=True)
                yield processor_pb2.StreamTasksResponse(drain=drain)
            if stream.error is not None:
                raise stream.error
            if stream.superseded:
                yield processor_pb2.StreamTasksResponse(superseded=processor_pb2.Superseded())
                return
            if stream.drain is not None:
                drain = processor_pb2.Drain(reason=stream.drain, processor=False)
                yield processor_pb2.StreamTasksResponse(drain=drain)
                return
            now_us = self._clock.now_us()
            outgoing = session.take_outgoing(stream, now_us)
            if outgoing.stop:
                stop = processor_pb2.CancelTasks(attempts=convert.attempt_refs(outgoing.stop))
                yield processor_pb2.StreamTasksResponse(cancel=stop)
            if outgoing.tasks:
                self._measure(outgoing.tasks, now_us)
                for frame in convert.task_frames(outgoing.tasks):
                    yield frame
                stream.writing_bytes = 0
                self._alarm.ring()  # what was held back until this was written
            if not woken:
                yield self._ping()
            if asyncio.get_running_loop().time() >= ends_at:
                stream.drain = "the stream is renewed"
                stream.wake.set()

    def _measure(self, tasks: list[Assignment], now_us: int) -> None:
        lateness: dict[str, list[float]] = {}
        for task in tasks:
            late_us = now_us - task.due_time_us
            lateness.setdefault(task.route.name, []).append(late_us / SECOND_US if late_us > 0 else 0.0)
        self._metrics.pushed(lateness)

    def _ping(self) -> processor_pb2.StreamTasksResponse:
        return processor_pb2.StreamTasksResponse(ping=processor_pb2.Ping(server_time=timestamp(self._clock.now_us())))

    async def Heartbeat(self, request: processor_pb2.HeartbeatRequest) -> processor_pb2.HeartbeatResponse:
        session_id = convert.session_id(request.session_id)
        sightings = convert.sightings(request.in_flight, self._config.max_payload_bytes)
        session_id = await self._callers(session_id)
        pulse = await self._sessions.heartbeat(session_id, sightings, draining=request.draining)
        if pulse.roomier:
            self._alarm.ring()
        state = processor_pb2.STREAM_STATE_REREGISTER
        if pulse.alive:
            state = processor_pb2.STREAM_STATE_OK if pulse.streaming else processor_pb2.STREAM_STATE_REOPEN
        return processor_pb2.HeartbeatResponse(
            stream=state,
            lost=convert.attempt_refs(pulse.lost),
            cancelled=convert.attempt_refs(pulse.cancelled),
            drain=pulse.drained,
            server_time=timestamp(self._clock.now_us()),
            rest=duration(microseconds(self._config.rest_interval)) if pulse.resting else None,
        )

    async def ReportResult(self, request: processor_pb2.ReportResultRequest) -> processor_pb2.ReportResultResponse:
        session_id = convert.session_id(request.session_id)
        endings = convert.endings(request.results, self._config.max_payload_bytes, self._clock.now_us())
        return convert.report_response(await self._tasks.report(await self._callers(session_id), endings))

    async def Unregister(self, request: processor_pb2.UnregisterRequest) -> processor_pb2.UnregisterResponse:
        session_id = await self._callers(convert.session_id(request.session_id))
        await asyncio.shield(self._sessions.unregister(session_id))
        self._alarm.ring()
        return processor_pb2.UnregisterResponse()


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Whether the event was set in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
            return True
    return False
