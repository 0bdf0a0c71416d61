"""A pooler as PgBouncer is in transaction mode, only stricter: a client never has the same connection twice in a row.

What a client leaves in its session - settings, prepared statements, LISTEN - is gone with its transaction, or in the
way of another client. Encryption is refused, and every user believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from types import TracebackType
from typing import Self

from tests.support import postgres_wire as wire
from tests.support.loop_thread import LoopThread
from tests.support.pooler_backend import TRACKED, Backend, Pool, Refused
from tests.support.postgres_wire import CANCEL_REQUEST, Message, Startup, Streams

SIZE = 4
"""Connections to the server, for each user and database."""
ENDS = {b"Q", b"S", b"F"}
"""After Query, Sync and FunctionCall, the server says whether it is in a transaction."""
COPIES = {b"d", b"c", b"f"}


class Pooler:
    """Stands before the server of `url`: `with Pooler(url) as pooler`, then `pooler.url` is the same database by way of
    it; clients may ask for others. The server must believe every user, as the tests' own does.
    """

    def __init__(self, url: str) -> None:
        self.transactions = 0
        self.backends: set[int] = set()
        """The pids of the server's processes that have run one."""
        self._server_url = url
        self._thread = LoopThread("pooler")
        self._pools: dict[tuple[str, str], Pool] = {}
        self._clients: dict[bytes, _Client] = {}
        """By the invented key with which each may cancel its statement."""

    def __enter__(self) -> Self:
        self._thread.__enter__()
        port = self._thread.call(self._listen())
        self.url = wire.through(self._server_url, port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.call(self._close())
        self._thread.__exit__(kind, error, trace)

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        self._server.close()
        for client in list(self._clients.values()):
            client.bereave()
        for pool in self._pools.values():
            pool.close()

    async def _accept(self, *streams: *Streams) -> None:
        try:
            startup = await wire.read_startup(*streams)
            if startup is not None and startup.code == CANCEL_REQUEST:
                await self._cancel(startup.body)
            elif startup is not None:
                await self._serve(streams, startup)
        finally:
            streams[1].transport.abort()

    async def _serve(self, streams: Streams, startup: Startup) -> None:
        client = _Client(streams, self)
        unknown = [name for name in startup.parameters if name.lower() not in {"user", "database", *TRACKED}]
        if unknown:
            await client.refuse(wire.error("FATAL", "08P01", f"unsupported startup parameter: {unknown[0]}"))
            return
        self._clients[client.key] = client
        try:
            await client.run(startup.parameters)
        except Refused as refused:
            await client.refuse(refused.answer)
        except OSError as error:
            await client.refuse(wire.error("FATAL", "08006", f"the server is away: {error}"))
        finally:
            del self._clients[client.key]
            client.leave()

    def pool(self, user: str, database: str) -> Pool:
        if (user, database) not in self._pools:
            self._pools[user, database] = Pool(self._server_url, user, database, SIZE)
        return self._pools[user, database]

    async def _cancel(self, key: bytes) -> None:
        client = self._clients.get(key)
        if client is None or client.backend is None:
            return
        reader, writer = await wire.dial(self._server_url)
        writer.write(Startup(CANCEL_REQUEST, client.backend.key).raw)
        with contextlib.suppress(OSError):
            await reader.read()  # the server hangs up once it has passed it on
        writer.transport.abort()


class _Client:
    """`backend` is the connection that it has, for as long as its transaction lasts."""

    def __init__(self, streams: Streams, pooler: Pooler) -> None:
        self._reader, self._writer = streams
        self._pooler = pooler
        self.key = struct.pack("!I", random.getrandbits(31)) + random.randbytes(4)
        self.settings: dict[str, str] = {}
        self.backend: Backend | None = None
        self._last: Backend | None = None
        self._unanswered = 0
        self._is_open = False
        """Whether something was sent that no Sync has followed yet."""

    async def run(self, parameters: dict[str, str]) -> None:
        self._pool = self._pooler.pool(parameters["user"], parameters.get("database", parameters["user"]))
        await self._greet(await self._pool.fill(), {name.lower(): value for name, value in parameters.items()})
        while (message := await wire.read_message(self._reader)) is not None and message.kind != b"X":
            backend = self.backend or await self._take()
            if message.kind in ENDS:
                self._unanswered += 1
            if message.kind not in COPIES:
                self._is_open = message.kind not in ENDS
            backend.send(message)
            await backend.drain()

    async def receive(self, message: Message) -> None:
        self._writer.write(message.raw)
        if message.kind == b"S":
            name, value = wire.texts(message.body)
            self.settings |= {name.lower(): value} if name.lower() in TRACKED else {}
        if message.kind == b"Z":
            self._unanswered -= 1
            if message.body == b"I" and not self._unanswered and not self._is_open:
                self._give_back()
        with contextlib.suppress(OSError):  # its own loop notices
            await self._writer.drain()

    def bereave(self) -> None:
        """The server has hung up on it, or the pooler ends."""
        self._writer.write(wire.error("FATAL", "08P01", "server conn crashed?").raw)
        self._writer.close()
        self._reader.feed_eof()

    async def refuse(self, answer: Message) -> None:
        self._writer.write(answer.raw)
        with contextlib.suppress(OSError):
            await self._writer.drain()
        self._writer.close()

    def leave(self) -> None:
        """Its transaction, if it has one, is rolled back by ending the connection."""
        if self.backend is not None:
            self.backend.lent_to = None
            self.backend.close()

    async def _greet(self, reported: dict[str, str], wanted: dict[str, str]) -> None:
        told = {name: wanted.get(name.lower(), value) for name, value in reported.items()}
        self.settings = {name.lower(): value for name, value in told.items() if name.lower() in TRACKED}
        statuses = [Message(b"S", wire.text(*status)) for status in told.items()]
        greeting = [Message(b"R", bytes(4)), *statuses, Message(b"K", self.key), Message(b"Z", b"I")]
        self._writer.write(b"".join(message.raw for message in greeting))
        await self._writer.drain()

    async def _take(self) -> Backend:
        self.backend = await self._pool.take(self, self._last)
        self._pooler.transactions += 1
        self._pooler.backends.add(self.backend.pid)
        return self.backend

    def _give_back(self) -> None:
        assert self.backend is not None
        self._last, self.backend = self.backend, None
        self._pool.give_back(self._last)
