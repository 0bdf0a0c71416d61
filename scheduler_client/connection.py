"""Everything of a scheduler that lives in one event loop: its channels, and what is on its way through them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc.aio

from client_core.access import ENVIRONMENT, Access
from client_core.channel import open_channel
from client_core.errors import TaskqError
from client_core.home import Home
from client_core.knock import explain
from scheduler_client.enqueuer import Enqueuer
from scheduler_client.watcher import Watcher
from taskq.v1.schedule_service_pb2_grpc import ScheduleServiceStub
from taskq.v1.scheduler_service_pb2_grpc import SchedulerServiceStub

if TYPE_CHECKING:
    from taskq.v1.schedule_service_pb2_grpc import ScheduleServiceAsyncStub
    from taskq.v1.scheduler_service_pb2_grpc import SchedulerServiceAsyncStub


class Connection:
    """Opened in the running event loop; gRPC connects at the first call."""

    def __init__(self, address: str, timeout: float | None, access: Access = ENVIRONMENT) -> None:
        self.home = Home("the scheduler")
        self._address = address
        self._access = access
        self._channels: list[grpc.aio.Channel] = []
        self._watch_stubs: list[SchedulerServiceAsyncStub] = []
        self._open_calls()
        self.enqueuer = Enqueuer(lambda: self.stub, timeout, self.explain)
        self.watcher = Watcher(self._watch_stub, self.explain)

    async def close(self, grace: float) -> None:
        """Gives what is on its way `grace` seconds, then ends it."""
        await self.enqueuer.close(grace)
        await self.watcher.close()
        for channel in self._channels:
            await channel.close()

    async def explain(self, error: TaskqError) -> TaskqError:
        """A better error, if the server is there and cannot be talked to. Where it can by now, with the certificates of
        now, the channels are opened anew: gRPC's keep those that they began with."""
        error, agrees = await explain(error, self._address, self._access)
        if agrees and self._access.tls_now() is not None:
            old, self._channels, self._watch_stubs = self._channels, [], []
            self._open_calls()
            for channel in old:
                await channel.close()
        return error

    def _open_calls(self) -> None:
        channel = self._open()
        self.stub: SchedulerServiceAsyncStub = SchedulerServiceStub(channel)
        self.schedules: ScheduleServiceAsyncStub = ScheduleServiceStub(channel)

    def _open(self) -> grpc.aio.Channel:
        channel = open_channel(self._address, access=self._access)
        self._channels.append(channel)
        return channel

    def _watch_stub(self, line: int) -> SchedulerServiceAsyncStub:
        # Streams have connections of their own: a call waits silently on one that has as many as the server allows.
        while len(self._watch_stubs) <= line:
            self._watch_stubs.append(SchedulerServiceStub(self._open()))
        return self._watch_stubs[line]
