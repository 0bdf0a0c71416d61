"""What many have to say to the database at about the same time, said together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from taskq_server.clock import pause

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_Left = dict[Hashable, tuple[Item, Callable[[Answer], None]]]


class Rounds(Generic[Item, Answer]):
    """Writes items in rounds, at least `pause_seconds` from one to the next, and answers each after its round. Who
    comes when there was none for so long does not wait. What is left here, whose answer nobody waits for, goes with the
    next round, or with `flush`.

    A thousand processors that rest send 56 heartbeats a second: 56 transactions, or one every two seconds; one in
    fourteen, where they need no answer from the database.
    """

    def __init__(self, write: Callable[[list[Item]], Awaitable[list[Answer]]], pause_seconds: float) -> None:
        self._write = write
        self._pause_seconds = pause_seconds
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._left: _Left[Item, Answer] = {}
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

    def leave(self, key: Hashable, item: Item, then: Callable[[Answer], None]) -> None:
        """Lets it go with others, in place of what was left under this key; `then` is called with the answer. What
        could not be written lies on."""
        self._left[key] = item, then

    async def flush(self) -> None:
        """Writes what was left now; raises what that has failed with."""
        if left := self._take_left():
            await self._write_with([], left)

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
            answers = await self._write_with([item for item, _ in waiting], self._take_left())
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(waiting, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    def _take_left(self) -> _Left[Item, Answer]:
        left, self._left = self._left, {}
        return left

    async def _write_with(self, items: list[Item], left: _Left[Item, Answer]) -> list[Answer]:
        """The answers to `items`, which go with what was left."""
        try:
            answers = await self._write([*items, *(item for item, _ in left.values())])
        except BaseException:
            self._left = left | self._left
            raise
        for (_, then), answer in zip(left.values(), answers[len(items) :], strict=True):
            then(answer)
        return answers[: len(items)]
