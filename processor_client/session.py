"""One registration of this processor, from Register until it ends: what it holds, hears, says and reports."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

import grpc
import grpc.aio

from client_core.times import from_duration, from_timestamp
from processor_client import report
from processor_client.attempt import Attempt, Phase, Stop
from processor_client.handler import Handler
from processor_client.heart import Beat, Heart
from processor_client.held import Held
from processor_client.inbox import Inbox
from processor_client.link import Link
from processor_client.reporter import Report, Reporter
from processor_client.runner import HookRun, Runner
from processor_client.server_clock import ServerClock
from processor_client.streams import Streams
from taskq.v1.processor_service_pb2 import (
    REPORT_STATUS_ACCEPTED,
    REPORT_STATUS_ALREADY_ACCEPTED,
    STREAM_STATE_REOPEN,
    STREAM_STATE_REREGISTER,
    RegisterResponse,
    ReportAnswer,
    TaskResult,
    UnregisterRequest,
)
from taskq.v1.task_pb2 import TASK_STATE_SCHEDULED

logger = logging.getLogger("taskq.processor")

DEFAULT_PING = timedelta(seconds=15)
UNREGISTER_SECONDS = 3.0


class Session:
    """Everything here runs on the loop, but for the heart, whose answers arrive by `call_soon_threadsafe`."""

    def __init__(
        self,
        registered: RegisterResponse,
        handlers: dict[str, Handler],
        runner: Runner,
        clock: ServerClock,
        open_channel: Callable[[int], grpc.aio.Channel],
        open_blocking_channel: Callable[[int], grpc.Channel],
        on_drain: Callable[[], None],
    ) -> None:
        self.id = registered.session_id
        self.held = Held()
        # Set once the server has ended it.
        self.ended = asyncio.Event()
        self.draining = False
        self._server_knows_of_drain = False
        # Set whenever an attempt has moved on, for those who wait for the last one.
        self.moved = asyncio.Event()
        self._runner = runner
        self._loop = asyncio.get_running_loop()
        # Reports that wait until a heartbeat has said something that the server must know first.
        self._held_back: list[Report] = []
        # Reports and the stream have a connection each, as has the heart: none can block another.
        self._report_link = Link(open_channel)
        self._stream_link = Link(open_channel)
        interval = from_duration(registered.heartbeat_interval).total_seconds()
        ping = from_duration(registered.ping_interval) or DEFAULT_PING
        self.reporter = Reporter(self.id, self._report_link, self._answered, self.drop)
        self._inbox = Inbox(self, handlers, runner, clock, from_duration(registered.ack_timeout), on_drain)
        self._streams = Streams(self.id, self._stream_link, ping.total_seconds(), self._inbox.on_event)
        self._heart = Heart(self.id, self.held, Link(open_blocking_channel), interval, self._tell)
        self._tasks: list[asyncio.Task[None]] = []
        clock.told(from_timestamp(registered.server_time))

    def start(self) -> None:
        """Begins to hear, to receive and to report."""
        self._heart.start()
        self._tasks = [
            self._loop.create_task(self._streams.run(), name="taskq-streams"),
            self._loop.create_task(self.reporter.run(), name="taskq-reporter"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._is_over)

    def drain(self) -> None:
        """Takes nothing more, and gives back what has not started."""
        if self.draining:
            return
        self.draining = True
        self._heart.drain()
        self.release(attempt for attempt in self.held if attempt.phase is Phase.WAITING)

    def give_up(self) -> None:
        """Stops what still runs and gives it back. A thread that does not listen is left behind; its task is not."""
        for attempt in self.held:
            attempt.tell_to_stop(Stop.DRAINED)

    def release_running(self) -> None:
        """Gives back what did not stop when it was told to."""
        self.release(attempt for attempt in self.held if attempt.phase is Phase.RUNNING)

    @property
    def is_running(self) -> bool:
        """Whether a handler has still to end."""
        return any(attempt.phase in (Phase.WAITING, Phase.RUNNING) for attempt in self.held)

    @property
    def is_reported(self) -> bool:
        """Whether every report was answered."""
        return not self._held_back and not len(self.reporter)

    async def close(self, *, unregister: bool) -> None:
        """Ends it. What is still held is lost to this processor. Safe to repeat, also after one that was cancelled."""
        self._heart.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for attempt in self.held:
            attempt.tell_to_stop(Stop.LOST)
            self.drop(attempt)
        if unregister and not self.ended.is_set():  # when it has ended, its channels may be closed too
            await self._unregister()
        await self._stream_link.channel.close()
        await self._report_link.channel.close()
        await asyncio.to_thread(self._heart.join, 1.0)

    async def _unregister(self) -> None:
        try:
            await self._report_link.stub.Unregister(UnregisterRequest(session_id=self.id), timeout=UNREGISTER_SECONDS)
        except grpc.RpcError as error:
            # The server ends the session by itself, once it has heard nothing for a lease.
            logger.info("unregister failed: %s", error)

    # What the runner says of an attempt.

    def finish(self, attempt: Attempt, result: TaskResult) -> None:
        """Reports it, unless its lease is gone."""
        if attempt.phase is Phase.GONE or attempt.phase is Phase.REPORTED:
            return
        attempt.phase = Phase.REPORTED
        if self.draining:
            self.moved.set()
        self._report(attempt, result)

    def _report(self, attempt: Attempt, result: TaskResult) -> None:
        if self._must_wait(attempt, result):
            self._held_back.append(Report(attempt, result))
            self._heart.hurry()
        else:
            self.reporter.add(attempt, result)

    def _must_wait(self, attempt: Attempt, result: TaskResult) -> bool:
        """Whether a heartbeat has to say something first."""
        if not result.HasField("failed") and not result.HasField("released"):
            return False
        # A released task would come straight back.
        if self.draining and not self._server_knows_of_drain and result.HasField("released"):
            return True
        # A later attempt must find what this one saved.
        return self.held.has_unsent_checkpoint(attempt.key)

    def release(self, attempts: Iterable[Attempt], due_time: datetime | None = None) -> None:
        """Gives them back unrun."""
        for attempt in attempts:
            self.finish(attempt, report.released(attempt.assigned, due_time))

    def fall_silent(self, attempt: Attempt) -> None:
        """It ran too long by our clock. It stays listed in the heartbeats, so that the server, whose clock counts, ends
        it as RUN_TIMEOUT and says so; a report or an omission of ours could only say something wrong."""
        if attempt.phase is Phase.RUNNING:
            attempt.phase = Phase.SILENT
            self.moved.set()

    def drop(self, attempt: Attempt) -> None:
        """Says nothing more about it."""
        attempt.phase = Phase.GONE
        self.held.remove([attempt.key])
        self.moved.set()

    # What the server says.

    def _tell(self, beat: Beat) -> None:
        # In the heart's thread.
        try:
            self._loop.call_soon_threadsafe(self._on_beat, beat)
        except RuntimeError:
            self._heart.close()  # The loop is closed: nobody is left to keep a lease for.

    def _on_beat(self, beat: Beat) -> None:
        if self.ended.is_set():
            return
        if beat.reply.stream == STREAM_STATE_REREGISTER:
            self._server_ended_it()
            return
        if beat.reply.stream == STREAM_STATE_REOPEN and self._streams.reopen(beat.sent):
            self.reporter.reroute()
        self._inbox.on_beat(beat)
        self._server_knows_of_drain |= beat.draining
        held_back, self._held_back = self._held_back, []
        for attempt, result in held_back:
            self._report(attempt, result)

    def _is_over(self, task: asyncio.Task[None]) -> None:
        """The streams end when the server no longer knows the session. A fault of ours is mended by a new one."""
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            logger.critical("%s failed; registering anew", task.get_name(), exc_info=error)
        self._server_ended_it()

    def _server_ended_it(self) -> None:
        if not self.ended.is_set():
            logger.warning("the server has ended session %s; what runs is stopped", self.id)
            self.ended.set()
            self.moved.set()

    def _answered(self, answers: Sequence[tuple[Report, ReportAnswer]]) -> None:
        hooks: list[HookRun] = []
        for (attempt, result), answer in answers:
            attempt.phase = Phase.GONE
            if answer.status in (REPORT_STATUS_ACCEPTED, REPORT_STATUS_ALREADY_ACCEPTED):
                if (hook := _hook(attempt, result, answer)) is not None:
                    hooks.append(hook)
            elif not result.HasField("cancelled"):  # which nobody expects to be accepted
                logger.warning("the report of %r came too late: status %d; dropped", attempt, answer.status)
        self.held.remove([each.attempt.key for each, _ in answers])
        self.moved.set()
        if hooks:
            self._runner.put_hooks(hooks)


def _hook(attempt: Attempt, result: TaskResult, answer: ReportAnswer) -> HookRun | None:
    if attempt.handler.success is not None and result.HasField("succeeded"):
        return HookRun("success", attempt, {"result": attempt.value})
    # The error holds the stack that holds the attempt.
    error, attempt.error = attempt.error, None
    if attempt.handler.failure is not None and result.HasField("failed"):
        return HookRun("failure", attempt, {"error": error, "will_retry": answer.state == TASK_STATE_SCHEDULED})
    return None
