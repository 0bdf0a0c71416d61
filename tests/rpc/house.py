"""A server at which callers must show who they are."""

from __future__ import annotations

import contextlib

import grpc

from taskq_server.clock import ManualClock
from taskq_server.server import Server
from tests.rpc.callers import granted, show
from tests.rpc.support import RawProcessor, RawScheduler


class House:
    """A server at which callers must show who they are, on a clock that stands, and those who call."""

    def __init__(self, server: Server, clock: ManualClock, database_url: str) -> None:
        self.server = server
        self.clock = clock
        self.database_url = database_url
        self.stack = contextlib.AsyncExitStack()

    async def token(self, *rights: str, principal: str = "kitchen", expire_after_seconds: float | None = None) -> str:
        expiry_us = None if expire_after_seconds is None else round(expire_after_seconds * 1_000_000)
        return await granted(self.server, principal, *rights, expire_after_us=expiry_us)

    async def channel(self, token: str) -> grpc.aio.Channel:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.insecure_channel(self.server.address, options, interceptors=show(token))
        return await self.stack.enter_async_context(channel)

    async def scheduler(self, *rights: str, principal: str = "kitchen") -> RawScheduler:
        return RawScheduler(await self.channel(await self.token(*rights, principal=principal)))

    async def processor(self, token: str, *names: str) -> RawProcessor:
        """One that has registered, if it is to run something."""
        processor = RawProcessor(self.server.address, show(token))
        self.stack.push_async_callback(processor.disconnect)
        if names:
            await processor.register("oven", names, 10, {})
        return processor
