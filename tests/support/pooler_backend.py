"""A pooler's connections to the server, each lent to one client at a time."""

from __future__ import annotations

import asyncio
import random
from typing import Protocol, Self

from tests.support import postgres_wire as wire
from tests.support.postgres_wire import Message, Streams

TRACKED = {"client_encoding", "datestyle", "timezone", "standard_conforming_strings", "application_name"}
"""The only settings that PgBouncer keeps for a client, since the server reports them when they change."""


class Refused(Exception):
    """`answer` is what the server said to a connection that it does not want."""

    def __init__(self, answer: Message) -> None:
        self.answer = answer


class Client(Protocol):
    """Whom a connection is lent to."""

    settings: dict[str, str]

    async def receive(self, message: Message) -> None: ...

    def bereave(self) -> None:
        """Its connection to the server has ended."""


class Backend:
    """`lent_to` is None while nobody has it, or while it is made ready for somebody."""

    def __init__(self, streams: Streams) -> None:
        self._reader, self._writer = streams
        self.key = b""
        """Its pid and its secret, with which its statement can be cancelled."""
        self.reported: dict[str, str] = {}
        self.is_taken = False
        self.lent_to: Client | None = None
        self._answered = asyncio.Event()

    @classmethod
    async def open(cls, url: str, user: str, database: str) -> Self:
        """Raises Refused, or OSError."""
        backend = cls(await wire.dial(url))
        startup = wire.text("user", user, "database", database, "application_name", "pooler") + b"\0"
        backend._writer.write(wire.Startup(wire.VERSION, startup).raw)
        while (message := await wire.read_message(backend._reader)) is not None:
            if message.kind == b"Z":
                return backend
            if message.kind == b"E" or (message.kind == b"R" and message.body != bytes(4)):
                backend.close()
                wants_password = wire.error("FATAL", "28000", "the pooler knows no passwords; the server wants one")
                raise Refused(message if message.kind == b"E" else wants_password)
            backend._note(message)
        backend.close()
        raise ConnectionResetError("the server hung up")

    @property
    def settings(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.reported.items() if name.lower() in TRACKED}

    @property
    def pid(self) -> int:
        return int.from_bytes(self.key[:4])

    def send(self, message: Message) -> None:
        self._writer.write(message.raw)

    async def drain(self) -> None:
        await self._writer.drain()

    def close(self) -> None:
        self._writer.transport.abort()

    async def lend(self, client: Client) -> None:
        """Gives it the client's tracked settings, which are then spelled as the server spells them."""
        mine = self.settings
        changes = [f"SET {name} TO {_literal(value)}" for name, value in client.settings.items() if mine[name] != value]
        if changes:
            self._answered.clear()
            self.send(Message(b"Q", wire.text("; ".join(changes))))
            await self._answered.wait()
            if self._writer.is_closing():
                raise ConnectionResetError("the server hung up")
            client.settings.update(self.settings)
        self.lent_to = client

    async def run(self) -> None:
        """Hands on what the server says, until it says no more."""
        while (message := await wire.read_message(self._reader)) is not None:
            self._note(message)
            if self.lent_to is not None:
                await self.lent_to.receive(message)
            elif message.kind == b"Z":
                self._answered.set()
        self._answered.set()
        self.close()
        if self.lent_to is not None:
            self.lent_to.bereave()

    def _note(self, message: Message) -> None:
        if message.kind == b"S":
            name, value = wire.texts(message.body)
            self.reported[name] = value
        if message.kind == b"K":
            self.key = message.body


class Pool:
    """The connections of one user to one database; `size` of them while anybody asks."""

    def __init__(self, url: str, user: str, database: str, size: int) -> None:
        self._whom = url, user, database
        self._size = size
        self._backends: dict[Backend, asyncio.Task[None]] = {}
        self._filling = asyncio.Lock()
        self._changed = asyncio.Event()

    async def fill(self) -> dict[str, str]:
        """Raises Refused, or OSError. Answers what the server reports of itself."""
        async with self._filling:
            while len(self._backends) < self._size:
                backend = await Backend.open(*self._whom)
                self._backends[backend] = asyncio.create_task(self._keep(backend))
            return next(iter(self._backends)).reported

    async def take(self, client: Client, but: Backend | None) -> Backend:
        """Any that is free, except that one."""
        while True:
            await self.fill()
            free = [backend for backend in self._backends if not backend.is_taken and backend is not but]
            if free:
                break
            self._changed.clear()
            await self._changed.wait()
        chosen = random.choice(free)
        chosen.is_taken = True
        await chosen.lend(client)
        return chosen

    def give_back(self, backend: Backend) -> None:
        backend.lent_to, backend.is_taken = None, False
        self._changed.set()

    def close(self) -> None:
        for backend in self._backends:
            backend.close()

    async def _keep(self, backend: Backend) -> None:
        await backend.run()
        del self._backends[backend]
        self._changed.set()


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
