"""What many have to say to the database at about the same time, said together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from taskq_server.clock import pause

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Rounds(Generic[Item, Answer]):
    """Writes items in rounds, at least `pause_seconds` from one to the next, and answers each after its round. Who
    comes when there was none for so long does not wait.

    A thousand processors that rest send 67 heartbeats a second: 67 transactions, or one every two seconds.
    """

    def __init__(self, write: Callable[[list[Item]], Awaitable[list[Answer]]], pause_seconds: float) -> None:
        self._write = write
        self._pause_seconds = pause_seconds
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._going: asyncio.Task[None] | None = None

    async def join(self, item: Item) -> Answer:
        """The answer to an item; raises what its round has failed with."""
        if not self._pause_seconds:
            return (await self._write([item]))[0]
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._going is None:
            self._going = asyncio.create_task(self._go())
        return await future

    async def _go(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = [one for one in self._waiting if not one[1].done()], []
                await self._go_round(waiting)
                await pause(self._pause_seconds)
        finally:
            self._going = None

    async def _go_round(self, waiting: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._write([item for item, _ in waiting])
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(waiting, answers, strict=True):
            if not future.done():
                future.set_result(answer)
