"""Tells the server that this processor lives: from a thread of its own, so that no handler can keep it from that."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from client_core.times import from_duration
from processor_client.held import Held
from processor_client.link import Link
from taskq.v1.processor_service_pb2 import HeartbeatRequest, HeartbeatResponse

logger = logging.getLogger("taskq.processor")

JITTER = 0.1
FIRST_RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 1.0
# A checkpoint prompts a heartbeat, but no more often than this.
CHECKPOINT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat that was answered."""

    reply: HeartbeatResponse
    # When it was sent, by the monotonic clock: what was begun since then, the reply does not know.
    sent: float
    # It said that this processor takes nothing more.
    draining: bool = False


class Heart:
    """One session's heartbeats. `tell` is called in the heart's thread with each answer; it must not block."""

    def __init__(
        self, session_id: str, held: Held, link: Link[grpc.Channel], interval: float, tell: Callable[[Beat], None]
    ) -> None:
        self._session_id = session_id
        self._held = held
        self._link = link
        self._interval = interval
        self._tell = tell
        self._failures = 0
        self._draining = False
        self._at_once = False
        self._closed = False
        self._wake = threading.Event()
        held.wake_on_checkpoint(self._wake)
        self._thread = threading.Thread(target=self._run, name="taskq-heartbeat", daemon=True)

    def start(self) -> None:
        """Begins; the first heartbeat follows after one interval, since Register counts as one."""
        self._thread.start()

    def drain(self) -> None:
        """Tells the server at once to send no further tasks."""
        self._draining = self._at_once = True
        self._wake.set()

    def hurry(self) -> None:
        """Sends the next heartbeat at once."""
        self._at_once = True
        self._wake.set()

    def close(self) -> None:
        """Ends, also a heartbeat under way. May be called from any thread, and again."""
        self._closed = True
        self._wake.set()
        self._link.channel.close()

    def join(self, timeout: float) -> None:
        """Waits until the thread has ended."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def beat(self) -> float:
        """Sends one heartbeat; answers how many seconds to wait before the next."""
        in_flight, news = self._held.take()
        draining = self._draining
        request = HeartbeatRequest(session_id=self._session_id, in_flight=in_flight, draining=draining)
        sent = time.monotonic()
        try:
            reply = self._link.stub.Heartbeat(request, timeout=self._interval)
        except grpc.RpcError as error:
            code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
            if code is grpc.StatusCode.INVALID_ARGUMENT and (news.progress or news.checkpoints):
                # The lease is worth more than what a handler has said.
                logger.error("heartbeat refused; progress and checkpoints are dropped: %s", error.details())
                self._held.arrived()
                return 0.0
            self._held.put_back(news)
            return self._failed(code, error.details() or "" if isinstance(error, grpc.Call) else "")
        self._link.worked()
        self._failures = 0
        more_waits = self._held.arrived()
        self._tell(Beat(reply, sent, draining))
        if more_waits:
            return CHECKPOINT_SECONDS
        rests = reply.HasField("rest") and self._held.wake_on_first()
        pause = from_duration(reply.rest).total_seconds() if rests else self._interval
        return pause * random.uniform(1 - JITTER, 1 + JITTER)

    def _failed(self, code: grpc.StatusCode, why: str) -> float:
        # A connection that has swallowed a heartbeat for a quarter of the lease is not given a second one.
        old = self._link.failed(is_wedged=code is grpc.StatusCode.DEADLINE_EXCEEDED)
        if old is not None:
            old.close()
        pause = min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(self._failures, 10), self._interval)
        if self._failures == 0 and not self._closed:
            logger.warning("heartbeat failed: %s %s; trying again", code.name, why)
        self._failures += 1
        return pause * random.uniform(0.5, 1.0)

    def _run(self) -> None:
        last = time.monotonic()
        due = last + self._interval * random.uniform(1 - JITTER, 1 + JITTER)
        while not self._closed:
            if self._wake.wait(max(0.0, due - time.monotonic())):
                self._wake.clear()
                due = min(due, time.monotonic() + self._interval)  # it rests no longer
                if self._held.has_checkpoints:
                    due = min(due, last + CHECKPOINT_SECONDS)
            if self._at_once:
                due = last
            if self._closed or time.monotonic() < due:
                continue
            self._at_once = False
            pause = self._safe_beat()
            last = time.monotonic()
            due = last + pause
        self._link.channel.close()

    def _safe_beat(self) -> float:
        try:
            return self.beat()
        except Exception:
            # Whatever it is, a thread that ends here would cost the lease.
            if not self._closed:
                logger.exception("heartbeat failed")
            return MAX_RETRY_SECONDS
