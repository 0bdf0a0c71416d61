"""A real server with a manual clock, and those who call it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc

from taskq_server.clock import ManualClock
from taskq_server.server import Server
from taskq_server.task_id import from_text
from tests.conftest import StartServer
from tests.rpc.support import RawAdmin, RawProcessor, RawScheduler

LEASE_SECONDS = 30.0


class World:
    """A server on port 0 with a clock that stands until a test moves it, and its callers."""

    def __init__(self, start: StartServer) -> None:
        self._start = start
        self.clock = ManualClock()
        self.server: Server
        self._channels: list[grpc.aio.Channel] = []
        self._processors: list[RawProcessor] = []
        self._marker: RawProcessor | None = None

    async def begin(self, **settings: Any) -> None:
        self.server = await self._start(clock=self.clock, **{"lease_duration": LEASE_SECONDS, **settings})
        self.scheduler, self.admin = RawScheduler(self.channel()), RawAdmin(self.channel())
        self._marker = None

    async def restart(self, **settings: Any) -> None:
        """Stops the server and starts another one on the same file."""
        await self.server.stop()
        await self.begin(**settings)

    async def end(self) -> None:
        for processor in self._processors:
            await processor.disconnect()
        for channel in self._channels:
            await channel.close()

    def channel(self) -> grpc.aio.Channel:
        channel = grpc.aio.insecure_channel(self.server.address, [("grpc.use_local_subchannel_pool", 1)])
        self._channels.append(channel)
        return channel

    def moved(self, processor: RawProcessor) -> RawProcessor:
        """The same processor, connected to the server that runs now."""
        again = RawProcessor(self.server.address)
        again.registered = processor.registered
        self._processors.append(again)
        return again

    async def registered(
        self,
        name: str = "oven",
        *,
        can: Mapping[str, int] | Iterable[str] = ("cook",),
        max_in_flight: int = 10,
        labels: Mapping[str, str] | None = None,
    ) -> RawProcessor:
        """A processor that has registered, without a stream."""
        processor = RawProcessor(self.server.address)
        self._processors.append(processor)
        await processor.register(name, can, max_in_flight, labels or {})
        return processor

    async def processor(self, name: str = "oven", **how: Any) -> RawProcessor:
        """A processor whose stream is open."""
        processor = await self.registered(name, **how)
        await processor.open()
        return processor

    def has_pushed(self, task_id: str, attempt: int = 1) -> bool:
        """Whether it is on its way to a processor, which must not be so before it is due. It may be leased by then."""
        key = from_text(task_id), attempt
        return any(
            (held := session.in_flight.get(key)) is not None
            and (held.sent or key in {(one.task_id, one.attempt) for one in session._outbox})
            for session in self.server._sessions.all()
        )

    async def dispatched(self) -> None:
        """Returns once a whole dispatch that began after this call is over: what has not been pushed by it stays.

        The second of two marker tasks, each pushed before the next is enqueued, belongs to such a dispatch.
        """
        if self._marker is None:
            self._marker = await self.processor("marker", can=("marker",), max_in_flight=1)
        for _ in range(2):
            task_id = await self.scheduler.enqueue("marker")
            marker = await self._marker.take_one()
            assert marker.task_id == task_id
            await self._marker.succeed(marker)

    async def let_arrive(self) -> None:
        """Waits for the ack_timeout: what has been sent and did not arrive by now never will."""
        await self.let_pass(LEASE_SECONDS / 2)

    async def let_pass(self, seconds: float, *alive: RawProcessor) -> None:
        """Moves the clock in steps that the server takes for no pause of its own; `alive` send heartbeats."""
        step = LEASE_SECONDS / 8
        while seconds > 0:
            await self.renews()
            self.clock.advance(min(step, seconds))
            seconds -= step
            await self.server.housekeeper.tick()
            for processor in alive:
                await processor.heartbeat(*processor.stream.tasks)
            if self._marker is not None:
                await self._marker.heartbeat()

    async def renews(self) -> None:
        """A server that lives says so, however fast its clock is moved: else it would take itself for dead."""
        if (neighbours := self.server.neighbours) is not None:
            await neighbours._renew(self.clock.now_us())


class Neighbour(World):
    """A server beside others, on the same clock."""

    rings = True

    async def renews(self) -> None:
        """Here it is for the tests to say who lives."""

    async def looks(self) -> None:
        """Lets it find what others have done, if they do not ring."""
        if not self.rings:
            assert self.server.neighbours is not None
            await self.server.neighbours.tick()


Pair = tuple[Neighbour, Neighbour]
