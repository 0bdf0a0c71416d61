"""The HTTP server: uvicorn in this event loop, with bounds."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import ssl
from collections.abc import Iterator
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from taskq_server.core.errors import CannotListen

STOP_SECONDS = 2
"""How long answers that are under way may take when the server stops."""
MOST_CONNECTIONS = 200
"""With a whole request under way or without; one of those without makes room for a new one. A connection has one
request under way at most, so that there are no more of those, either."""
BACKLOG = 100
"""So many are accepted at once, before any of them can be hung up on."""
MOST_FILES = MOST_CONNECTIONS + BACKLOG
"""File descriptors that HTTP takes at most."""
REQUEST_SECONDS = 10
"""So long may a handshake take, and then the head of a request."""


class _Door:
    """The connections that there are. uvicorn's own limit refuses requests and hangs up on nobody: with it, whoever
    only connects keeps everybody out."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.context = context
        self._all: set[_Connection] = set()
        self._idle: dict[_Connection, None] = {}
        """Without a whole request under way; those that have been so longest first."""
        self._is_shut = False

    def let_in(self, connection: _Connection) -> bool:
        """Hangs up on another if there are too many."""
        if self._is_shut:
            return False
        if len(self._all) >= MOST_CONNECTIONS:
            if not self._idle:
                return False
            longest = next(iter(self._idle))
            self.let_out(longest)
            longest.hang_up()
        self._all.add(connection)
        self._idle[connection] = None
        return True

    def let_out(self, connection: _Connection) -> None:
        self._all.discard(connection)
        self._idle.pop(connection, None)

    def tell(self, connection: _Connection, is_busy: bool) -> None:
        """Whether a whole request is under way."""
        if is_busy:
            self._idle.pop(connection, None)
        elif connection in self._all:
            self._idle.setdefault(connection)

    def shut(self) -> None:
        """Nobody comes in any more, and those who are still shaking hands go."""
        self._is_shut = True
        for connection in [one for one in self._all if one.is_shaking_hands]:
            connection.hang_up()


class _Connection(H11Protocol):
    """One that has to ask in time. TLS begins here and not in asyncio's server, which tells of a connection only when
    hands have been shaken: those that never do it could not be counted."""

    def __init__(self, door: _Door, **given: Any) -> None:
        super().__init__(**given)
        self._door = door
        self._socket: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._early = b""

    @property
    def is_shaking_hands(self) -> bool:
        return self._handshake is not None and self.transport is None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._socket = transport
        if not self._door.let_in(self):
            transport.abort()
        elif self._door.context is None:
            self._begin(transport)
        else:
            transport.pause_reading()  # what comes is for TLS
            self._handshake = self.loop.create_task(self._shake_hands(transport, self._door.context))

    async def _shake_hands(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        with contextlib.suppress(OSError):  # all that may go wrong in a handshake
            secured = await self.loop.start_tls(
                transport, self, context, server_side=True, ssl_handshake_timeout=REQUEST_SECONDS
            )
            if secured is not None and not secured.is_closing():  # it is None when the peer has gone meanwhile
                self._begin(secured)
                if self._early:
                    self.data_received(self._early)
                return
        self._door.let_out(self)
        transport.abort()

    def _begin(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        if self.transport is None:  # it came together with the end of the handshake
            self._early += data
            return
        super().data_received(data)
        self._look()
        if not self._is_busy:
            self._await_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._await_request()  # it may have to read its last answer before it is closed

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.let_out(self)
        self._stop_timer()
        if self.transport is not None:
            super().connection_lost(exc)

    def hang_up(self) -> None:
        if self._socket is not None:
            self._socket.abort()

    @property
    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_whole(self) -> bool:
        """Whether all of the request has come. Whoever is slow with the body of one makes room as whoever asks nothing:
        some are read before it is known who sends them."""
        return self.cycle is not None and not self.cycle.more_body

    def _look(self) -> None:
        self._door.tell(self, self._is_busy and self._is_whole)
        if self._is_busy:
            self._stop_timer()

    def _await_request(self) -> None:
        """From now on, whatever it sends meanwhile."""
        if self._timer is None:
            self._timer = self.loop.call_later(REQUEST_SECONDS, self.hang_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the taskq server's own."""
        yield


class HttpServer:
    """Listens and answers."""

    def __init__(self, application: Starlette, tls: ssl.SSLContext | None = None) -> None:
        self._door = _Door(tls)
        config = uvicorn.Config(
            application,
            http=cast(type[asyncio.Protocol], functools.partial(_Connection, self._door)),
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=15,  # longer than most scrape
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        # Whoever connects must not be able to write into the log.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._uvicorn = _Uvicorn(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self, address: str) -> str:
        """Binds and serves; answers the address that was bound, or raises CannotListen."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, int(port)), family=family)
        except OSError as error:
            raise CannotListen(address, "TASKQ_HTTP_LISTEN") from error
        # Handed on to each connection: else the body of an answer waits 40 ms for its head to be acknowledged.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._serving = asyncio.create_task(self._uvicorn.serve(sockets=[listener]))
        bound = listener.getsockname()[1]
        return f"{address.rpartition(':')[0]}:{bound}"

    async def stop(self) -> None:
        """Takes no further calls, and ends when those under way have ended, or after a moment."""
        if self._serving is not None:
            self._door.shut()
            self._uvicorn.should_exit = True
            await self._serving
