"""Stands before PostgreSQL and cuts connections where it matters: before a COMMIT is heard, or before its answer is.

It runs on a thread of its own, so that it works for the test's own process and for others. Encryption it refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support import postgres_wire as wire
from tests.support.loop_thread import LoopThread
from tests.support.postgres import free_port
from tests.support.postgres_conversation import Conversation
from tests.support.postgres_wire import Message, Streams

COMMITTED, ROLLED_BACK = b"COMMIT\0", b"ROLLBACK\0"
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: close sends RST."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What the next COMMIT is to suffer, if its transaction has said `words`."""

    before: bool
    words: bytes


class PostgresProxy:
    """Stands before the server of `url`: `with PostgresProxy(url) as proxy`, then `proxy.url` is the same database by
    way of it. It keeps its port."""

    def __init__(self, url: str) -> None:
        self.port = free_port()
        self.url = wire.through(url, self.port)
        self.cuts = 0
        """How often a COMMIT was cut."""
        self._server_url = url
        self._cut: Cut | None = None
        self._passes = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._thread = LoopThread("postgres proxy")

    def __enter__(self) -> Self:
        self._thread.__enter__()
        self._thread.call(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.call(self._close())
        self._thread.__exit__(kind, error, trace)

    def cut_at_commit(self, *, before: bool, after: bytes = b"") -> None:
        """The next COMMIT of a transaction in which `after` was sent, in a statement or a value, is the last of its
        connection. With `before`, the server does not hear it and rolls back; without, it has committed and the client
        does not hear of that."""
        self._cut = Cut(before, after)

    @property
    def is_armed(self) -> bool:
        """Whether that COMMIT is still to come."""
        return self._cut is not None

    def cut_all(self) -> int:
        """Resets every connection there is, on both sides; answers how many."""
        return self._thread.call(self._reset_all())

    def black_hole(self) -> None:
        """Nothing passes, nothing is closed, and who connects waits for an answer. What is sent meanwhile arrives once
        it heals, also when its sender has given up, as it may in a network."""
        self._thread.call(self._stop_passing())

    def refuse(self) -> None:
        """Nobody listens on its port; the connections that there are stay."""
        self._thread.call(self._stop_listening())

    def heal(self) -> None:
        """Ends `black_hole` and `refuse`."""
        self._thread.call(self._open())

    async def _open(self) -> None:
        self._passes.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _stop_passing(self) -> None:
        self._passes.clear()

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _reset_all(self) -> int:
        tasks = list(self._connections.values())
        for connection, task in self._connections.items():
            connection.is_reset = True
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(tasks)

    async def _close(self) -> None:
        await self._stop_listening()
        await self._reset_all()

    def _accept(self, *near: *Streams) -> None:
        connection = _Connection(near, self)
        task = asyncio.create_task(connection.run())
        self._connections[connection] = task
        task.add_done_callback(lambda _: connection.close())  # here, since a cancelled task may never have begun
        task.add_done_callback(lambda _: self._connections.pop(connection))

    async def _gate(self) -> None:
        await self._passes.wait()

    async def _dial(self) -> Streams:
        return await wire.dial(self._server_url)

    def _claim(self, conversation: Conversation) -> Cut | None:
        """The cut that is waiting, if this is the transaction that it is meant for."""
        cut = self._cut
        if cut is None or not conversation.has_said(cut.words):
            return None
        self._cut = None
        return cut


class _Connection:
    """A client and the server, who believe that they talk to each other. `is_reset` says how it is closed."""

    def __init__(self, near: Streams, proxy: PostgresProxy) -> None:
        self.is_reset = False
        self._near = near
        self._far: Streams | None = None
        self._proxy = proxy
        self._conversation = Conversation()
        self._claimed: Cut | None = None

    async def run(self) -> None:
        with contextlib.suppress(OSError):  # one of the two has gone
            await self._proxy._gate()
            startup = await wire.read_startup(*self._near)
            if startup is None:
                return
            await self._proxy._gate()
            self._far = await self._proxy._dial()
            self._far[1].write(startup.raw)
            if startup.code == wire.CANCEL_REQUEST:
                await self._far[0].read()
                return
            await self._pass_until_either_ends(self._far)

    def close(self) -> None:
        for writer in [streams[1] for streams in (self._near, self._far) if streams is not None]:
            if not self.is_reset:
                writer.close()
                continue
            with contextlib.suppress(OSError):  # its peer was faster
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()

    async def _pass_until_either_ends(self, far: Streams) -> None:
        pumps = [
            asyncio.create_task(self._pump(self._near[0], far[1], self._cuts_question)),
            asyncio.create_task(self._pump(far[0], self._near[1], self._cuts_answer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cuts: Callable[[Message], bool]
    ) -> None:
        while (message := await wire.read_message(reader)) is not None:
            await self._proxy._gate()
            if cuts(message):
                self.is_reset = True
                self._proxy.cuts += 1
                return
            writer.write(message.raw)
            await writer.drain()
        await self._proxy._gate()

    def _cuts_question(self, message: Message) -> bool:
        if not self._conversation.asks(message):
            return False
        self._claimed = self._proxy._claim(self._conversation)
        return self._claimed is not None and self._claimed.before

    def _cuts_answer(self, message: Message) -> bool:
        self._conversation.hears(message)
        if self._claimed is None or message.kind not in (b"C", b"E"):
            return False
        if message.kind == b"C" and message.body == COMMITTED:
            return True
        if message.kind == b"E" or message.body == ROLLED_BACK:
            self._proxy._cut, self._claimed = self._claimed, None  # nothing was committed; it is for the next
        return False
