"""Keeps a task stream open: whatever ends it, another is opened, until told to stop."""

import asyncio
import contextlib
import enum
import logging
import random
import time
from collections.abc import Callable

import grpc
import grpc.aio

from client_core.backoff import Backoff
from processor_client.link import Link
from taskq.v1.processor_service_pb2 import StreamTasksRequest, StreamTasksResponse

logger = logging.getLogger("taskq.processor")

FIRST_RETRY_SECONDS = 0.5
MAX_RETRY_SECONDS = 30.0
# Heartbeats find a server that has come back before the backoff does; not all streams follow at the same instant.
REOPEN_SPREAD_SECONDS = 0.5
# Silence of this many intervals means that the stream is dead.
SILENT_PINGS = 3
# A heartbeat that left so soon after a stream was opened may have been answered before the server saw the stream.
SETTLE_SECONDS = 1.0


class End(enum.Enum):
    """Why the next stream is wanted."""

    BROKEN = enum.auto()
    ROTATED = enum.auto()
    SUPERSEDED = enum.auto()
    SESSION_GONE = enum.auto()


class Streams:
    """One session's streams: one at a time, but for the moment when the server asks for another before the old ends."""

    def __init__(
        self,
        session_id: str,
        link: Link[grpc.aio.Channel],
        ping_interval: float,
        on_event: Callable[[str, StreamTasksResponse], None],
    ) -> None:
        self._session_id = session_id
        self._link = link
        self._ping_interval = ping_interval
        self._on_event = on_event
        self._backoff = Backoff(FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)
        self._readers: set[asyncio.Task[End]] = set()
        self._turn: asyncio.Future[End] | None = None
        self._opened = 0.0
        self._asked = asyncio.Event()
        self._is_wedged = False

    async def run(self) -> None:
        """Reads until cancelled, or until the server says that the session has ended."""
        try:
            while True:
                end = await self._open()
                if end is End.SESSION_GONE:
                    return
                if end is End.SUPERSEDED:
                    # Somebody else reads this session's stream. To take it back would start a quarrel; when nobody
                    # reads it any more, a heartbeat's answer says so.
                    logger.warning("the task stream was taken over by another")
                    self._asked.clear()
                    await self._asked.wait()
                await self._pause()
        finally:
            for reader in self._readers:
                reader.cancel()

    async def _pause(self) -> None:
        """Before the next try: by the backoff, or until a heartbeat was answered and so the server is there."""
        self._asked.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._backoff.next()):
                await self._asked.wait()
                await asyncio.sleep(random.uniform(0.0, REOPEN_SPREAD_SECONDS))

    def reopen(self, as_of: float) -> bool:
        """No server had a stream of this session when a heartbeat was answered that was sent at `as_of`, monotonic.
        Answers whether there was one all the same, whose server must then have stopped without a word."""
        self._asked.set()
        if self._turn is None or self._turn.done() or self._opened + SETTLE_SECONDS >= as_of:
            return False
        logger.warning("the server has lost the task stream; opening another")
        self._is_wedged = True
        self._turn.set_result(End.BROKEN)
        return True

    async def _open(self) -> End:
        """Opens a stream and waits until another is wanted."""
        self._opened = time.monotonic()
        turn: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._turn = turn
        reader = asyncio.create_task(self._read(turn))
        self._readers.add(reader)
        reader.add_done_callback(lambda reader: self._ended(reader, turn))
        end = await turn
        if end is End.BROKEN:
            reader.cancel()
            # A connection that has swallowed three pings, or the end of its stream, is not given a second one.
            wedged, self._is_wedged = self._is_wedged, False
            if (old := self._link.failed(is_wedged=wedged)) is not None:
                await old.close()
        return end

    async def _read(self, turn: asyncio.Future[End]) -> End:
        call = self._link.stub.StreamTasks(StreamTasksRequest(session_id=self._session_id))
        watchdog = Watchdog(self._ping_interval, call.cancel)
        end = End.BROKEN
        try:
            while (event := await call.read()) is not grpc.aio.EOF:
                watchdog.heard()
                self._link.worked()
                self._backoff.reset()
                match event.WhichOneof("event"):
                    case "superseded":
                        end = End.SUPERSEDED
                    case "drain" if not event.drain.processor:
                        _settle(turn, End.ROTATED)
                    case None:
                        pass  # A kind that only a newer server knows.
                    case kind:
                        self._pass_on(kind, event)
            why = f"{(await call.code()).name} {await call.details() or ''}"
        except grpc.aio.AioRpcError as error:
            why = f"{error.code().name} {error.details() or ''}"
            if error.code() is grpc.StatusCode.NOT_FOUND:
                end = End.SESSION_GONE
        except asyncio.CancelledError:
            # Also what a read raises when not its task but its call is cancelled, by the watchdog.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            why = f"nothing came for {SILENT_PINGS} ping intervals" if watchdog.has_bitten else "channel closed"
        finally:
            watchdog.stop()
            self._is_wedged = self._is_wedged or watchdog.has_bitten
            call.cancel()
        if not turn.done():
            logger.info("the task stream ended: %s", why)
        return end

    def _ended(self, reader: asyncio.Task[End], turn: asyncio.Future[End]) -> None:
        self._readers.discard(reader)
        if reader.cancelled():
            _settle(turn, End.BROKEN)
        elif (error := reader.exception()) is not None:
            logger.error("the task stream failed", exc_info=error)
            _settle(turn, End.BROKEN)
        else:
            _settle(turn, reader.result())

    def _pass_on(self, kind: str, event: StreamTasksResponse) -> None:
        try:
            self._on_event(kind, event)
        except Exception:
            # One event that we cannot handle must not keep the others from us.
            logger.exception("the event %s of the task stream failed", kind)


class Watchdog:
    """Bites when nothing was heard for three ping intervals. It counts ticks and not time: a loop that a handler has
    held up for minutes ticks once, and does not take its own silence for the server's."""

    def __init__(self, ping_interval: float, bite: Callable[[], object]) -> None:
        self._tick_seconds = ping_interval / 2
        self._bite = bite
        self._silent_ticks = 0
        self.has_bitten = False
        self._timer = asyncio.get_running_loop().call_later(self._tick_seconds, self._tick)

    def heard(self) -> None:
        """Something came."""
        self._silent_ticks = 0

    def stop(self) -> None:
        """Bites no more."""
        self._timer.cancel()

    def _tick(self) -> None:
        self._silent_ticks += 1
        if self._silent_ticks >= 2 * SILENT_PINGS:
            self.has_bitten = True
            self._bite()
            return
        self._timer = asyncio.get_running_loop().call_later(self._tick_seconds, self._tick)


def _settle(turn: asyncio.Future[End], end: End) -> None:
    if not turn.done():
        turn.set_result(end)
