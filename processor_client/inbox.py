"""What the server says to a session, by the task stream and by its answers to heartbeats, and what follows from it."""

import logging
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from client_core.times import from_timestamp
from processor_client.attempt import Attempt, AttemptKey, Phase, Stop
from processor_client.handler import Handler
from processor_client.heart import Beat
from processor_client.report import cancelled
from processor_client.runner import Runner
from processor_client.server_clock import ServerClock
from taskq.v1.processor_service_pb2 import AttemptRef, StreamTasksResponse, TaskBatch

if TYPE_CHECKING:
    from processor_client.session import Session

logger = logging.getLogger("taskq.processor")

# A task of a name that nobody here runs comes back so much later, rather than at once and for ever.
UNKNOWN_NAME_DELAY = timedelta(seconds=5)
# For so long after the loop was held up, what the stream brings may have lain there.
SUSPICION_SECONDS = 5.0


class Inbox:
    """Acts on a session's attempts; runs on the loop and never waits, so that the stream is always read."""

    def __init__(
        self,
        session: "Session",
        handlers: dict[str, Handler],
        runner: Runner,
        clock: ServerClock,
        ack_timeout: timedelta,
        on_drain: Callable[[], None],
    ) -> None:
        self._session = session
        self._held = session.held
        self._handlers = handlers
        self._runner = runner
        self._clock = clock
        self._ack_timeout = ack_timeout
        self._on_drain = on_drain
        self._suspicious_until = 0.0

    def on_event(self, kind: str, event: StreamTasksResponse) -> None:
        """One frame of the task stream."""
        match kind:
            case "tasks":
                self._take(event.tasks)
            case "cancel":
                self._cancel(event.cancel.attempts)
            case "drain":
                self._on_drain()
            case "ping":
                self._clock.told(from_timestamp(event.ping.server_time))

    def on_beat(self, beat: Beat) -> None:
        """One answer to a heartbeat; what it says of the stream is not ours."""
        self._clock.told(from_timestamp(beat.reply.server_time))
        now = time.monotonic()
        if self._ack_timeout and now - beat.sent > self._ack_timeout.total_seconds() / 2:
            logger.warning("a handler has held up the event loop for %.1f s", now - beat.sent)
            self._suspicious_until = now + SUSPICION_SECONDS
        self._lose(beat.reply.lost)
        self._cancel(beat.reply.cancelled)
        if beat.reply.drain:
            self._on_drain()

    def _take(self, batch: TaskBatch) -> None:
        session, held, handlers = self._session, self._held, self._handlers
        arrived: dict[AttemptKey, Attempt] = {}
        for assigned in batch.tasks:
            key = (assigned.task_id, assigned.attempt)
            # The stream may bring again what it brought before it broke.
            if key not in held and key not in arrived:
                arrived[key] = Attempt(key, assigned, handlers.get(assigned.name, _NOBODY), session)
        fresh = list(arrived.values())
        if fresh and self._lay_too_long(fresh[0]):
            logger.warning("%d tasks were read too late to be ours and are left to others", len(fresh))
            return
        held.add(fresh)
        for attempt in [attempt for attempt in fresh if attempt.handler is _NOBODY]:
            logger.error("nobody here runs %r; task %s is released", attempt.assigned.name, attempt.key[0])
            session.release([attempt], self._clock.now() + UNKNOWN_NAME_DELAY)
        if session.draining:
            session.release(fresh)
        else:
            self._runner.put(fresh)

    def _lay_too_long(self, attempt: Attempt) -> bool:
        """Whether the server has given it to another by now: a handler kept us from reading it and from listing it."""
        if time.monotonic() > self._suspicious_until:
            return False
        return self._clock.now() - from_timestamp(attempt.assigned.lease_time) > self._ack_timeout

    def _lose(self, refs: Iterable[AttemptRef]) -> None:
        for ref in refs:
            attempt = self._held.get((ref.task_id, ref.attempt))
            # The answer to a report under way says more: it may have been accepted just before this heartbeat.
            if attempt is not None and attempt.phase is not Phase.REPORTED:
                logger.warning("%r is lost: another may run it; it is stopped and not reported", attempt)
                attempt.tell_to_stop(Stop.LOST)
                self._session.drop(attempt)

    def _cancel(self, refs: Iterable[AttemptRef]) -> None:
        for ref in refs:
            attempt = self._held.get((ref.task_id, ref.attempt))
            if attempt is None:
                continue
            if attempt.phase is Phase.RUNNING:
                attempt.tell_to_stop(Stop.CANCELLED)
            else:
                self._session.finish(attempt, cancelled(attempt.assigned))


_NOBODY = Handler("", lambda context: None, is_async=False)
