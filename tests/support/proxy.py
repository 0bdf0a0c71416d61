"""A TCP proxy that cuts, resets and swallows; it never reorders bytes. It runs on the event loop of its test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

CHUNK_BYTES = 16_384
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: close sends RST."""


class Proxy:
    """Stands before `address`. `cut_after`, asked for each new connection, says after how many bytes, counted both
    ways, it is reset; None for never."""

    def __init__(self, address: str, cut_after: Callable[[], int | None] = lambda: None) -> None:
        host, _, port = address.rpartition(":")
        self._target = host, int(port)
        self._cut_after = cut_after
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.address = ""
        self.cuts = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset_all(self) -> int:
        """Resets every connection there is; answers how many."""
        return self._each(_Connection.reset)

    def swallow_all(self) -> int:
        """Lets nothing more through on any connection there is, and closes none: the peer is gone without a word."""
        return self._each(_Connection.swallow)

    def _each(self, change: Callable[[_Connection], None]) -> int:
        connections = list(self._connections)
        for connection in connections:
            change(connection)
        return len(connections)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)

        def ended(_: object) -> None:
            self._tasks.discard(task)
            writer.transport.abort()  # here, since a task that is cancelled before it begins does nothing at all

        task.add_done_callback(ended)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            beyond = await asyncio.open_connection(*self._target)
        except OSError:
            return  # the server is away
        connection = _Connection((reader, writer), beyond, self._cut_after())
        self._connections.add(connection)
        try:
            self.cuts += await connection.run()
        finally:
            self._connections.discard(connection)


class _Connection:
    """Two sockets and the bytes between them."""

    def __init__(
        self,
        near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        cut_after: int | None,
    ) -> None:
        self._near, self._far = near, far
        self._left = cut_after
        self._over = asyncio.Event()
        self._passes = asyncio.Event()
        self._passes.set()

    def reset(self) -> None:
        self._over.set()

    def swallow(self) -> None:
        self._passes.clear()

    async def run(self) -> bool:
        """Until either side ends or it is cut; answers whether it was cut."""
        pumps = [
            asyncio.create_task(self._pump(self._near[0], self._far[1])),
            asyncio.create_task(self._pump(self._far[0], self._near[1])),
        ]
        over = asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait([*pumps, over], return_when=asyncio.FIRST_COMPLETED)
            return self._over.is_set()
        finally:
            for writer in self._writers():
                with contextlib.suppress(OSError):  # its peer was faster
                    if self._over.is_set():
                        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()
            for task in (*pumps, over):
                task.cancel()
            await asyncio.gather(*pumps, over, return_exceptions=True)

    def _writers(self) -> Iterator[asyncio.StreamWriter]:
        yield self._near[1]
        yield self._far[1]

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                await self._passes.wait()
                if self._left is not None:
                    data = data[: self._left]
                    self._left -= len(data)
                writer.write(data)
                await writer.drain()
                if self._left == 0:
                    self._over.set()
        except OSError:
            return  # one side has gone
