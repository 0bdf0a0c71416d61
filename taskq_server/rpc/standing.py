"""Calls that stand until their caller goes: a stopping server must not wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc


class Standing:
    """Lets such calls go when the server stops."""

    def __init__(self) -> None:
        self._calls: set[asyncio.Task[None]] = set()
        self._ended = False

    async def run(self, call: Coroutine[Any, Any, None], context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Runs a call until it ends, its caller goes, or the server stops."""
        task = asyncio.create_task(call)
        self._calls.add(task)
        if self._ended:
            task.cancel()
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            self._calls.discard(task)
        if self._ended:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
        await task

    def end(self) -> None:
        """Lets all of them go, now and from now on."""
        self._ended = True
        for task in self._calls:
            task.cancel()
