"""Calls that stand until their caller goes: a stopping server must not wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Coroutine
from typing import Any, TypeVar

import grpc

Item = TypeVar("Item")


class Standing:
    """Lets such calls go when the server stops."""

    def __init__(self) -> None:
        self._calls: set[asyncio.Task[None]] = set()
        self._end = asyncio.Event()

    @property
    def has_ended(self) -> bool:
        """The server stops."""
        return self._end.is_set()

    async def run(self, call: Coroutine[Any, Any, None], context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Runs a call until it ends, its caller goes, or the server stops."""
        task = asyncio.create_task(call)
        self._calls.add(task)
        if self.has_ended:
            task.cancel()
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            self._calls.discard(task)
        if self.has_ended:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
        await task

    async def each(self, requests: AsyncIterable[Item]) -> AsyncIterator[Item]:
        """What a caller sends, until it is content or the server stops. Nothing is cancelled in the middle of an
        answer: gRPC could not send the status then."""
        iterator, ending = aiter(requests), asyncio.ensure_future(self._end.wait())
        reading: asyncio.Future[Item | None] | None = None
        try:
            while not self.has_ended:
                reading = asyncio.ensure_future(anext(iterator, None))
                await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done() or (request := reading.result()) is None:
                    break
                yield request
        finally:
            ending.cancel()
            if reading is not None:
                reading.cancel()

    def end(self) -> None:
        """Lets all of them go, now and from now on."""
        self._end.set()
        for task in self._calls:
            task.cancel()
