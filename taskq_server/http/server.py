"""The HTTP server: uvicorn in this event loop, with bounds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette

from taskq_server.certificates import Certificates
from taskq_server.core.errors import CannotListen
from taskq_server.http.tls import server_context

STOP_SECONDS = 2
"""How long answers that are under way may take when the server stops."""
MOST_CONNECTIONS = 200


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the taskq server's own."""
        yield


class HttpServer:
    """Listens and answers."""

    def __init__(self, application: Starlette, certificates: Certificates | None = None) -> None:
        config = uvicorn.Config(
            application,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=15,  # longer than most scrape
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        if certificates is not None:
            config.load()
            config.ssl = server_context(certificates)
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
        self._serving = asyncio.create_task(self._uvicorn.serve(sockets=[listener]))
        bound = listener.getsockname()[1]
        return f"{address.rpartition(':')[0]}:{bound}"

    async def stop(self) -> None:
        """Takes no further calls, and ends when those under way have ended, or after a moment."""
        if self._serving is not None:
            self._uvicorn.should_exit = True
            await self._serving
