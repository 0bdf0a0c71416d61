"""Everything of a scheduler that lives in one event loop: its channels, and what is on its way through them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc.aio

from client_core.channel import open_channel
from client_core.home import Home
from scheduler_client.enqueuer import Enqueuer
from scheduler_client.watcher import Watcher
from taskq.v1.scheduler_service_pb2_grpc import SchedulerServiceStub

if TYPE_CHECKING:
    from taskq.v1.scheduler_service_pb2_grpc import SchedulerServiceAsyncStub


class Connection:
    """Opened in the running event loop; gRPC connects at the first call."""

    def __init__(self, address: str, timeout: float | None) -> None:
        self.home = Home("the scheduler")
        self._address = address
        self._channels: list[grpc.aio.Channel] = []
        self._watch_stubs: list[SchedulerServiceAsyncStub] = []
        self.channel = self._open()
        self.stub: SchedulerServiceAsyncStub = SchedulerServiceStub(self.channel)
        self.enqueuer = Enqueuer(self.stub, timeout)
        self.watcher = Watcher(self._watch_stub)

    async def close(self, grace: float) -> None:
        """Gives what is on its way `grace` seconds, then ends it."""
        await self.enqueuer.close(grace)
        await self.watcher.close()
        for channel in self._channels:
            await channel.close()

    def _open(self) -> grpc.aio.Channel:
        channel = open_channel(self._address)
        self._channels.append(channel)
        return channel

    def _watch_stub(self, line: int) -> SchedulerServiceAsyncStub:
        # Streams have connections of their own: a call waits silently on one that has as many as the server allows.
        while len(self._watch_stubs) <= line:
            self._watch_stubs.append(SchedulerServiceStub(self._open()))
        return self._watch_stubs[line]
