"""Many tasks at once: a few requests on their way while the next one is being built."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar

from client_core.errors import InvalidArgument, TaskqError
from scheduler_client.enqueuer import Enqueuer, Waiting, batches
from scheduler_client.errors import Conflict, Rejected
from taskq.v1.scheduler_service_pb2 import EnqueueResult, NewTask

REQUESTS_ON_THEIR_WAY: Final = 4

H = TypeVar("H")


class Bulk(Generic[H]):
    """One `enqueue_many`: `to_message` makes what is sent of what was given, `to_handle` what is returned."""

    def __init__(
        self,
        enqueuer: Enqueuer,
        to_message: Callable[[Any], NewTask],
        to_handle: Callable[[EnqueueResult], H],
    ) -> None:
        self._enqueuer = enqueuer
        self._to_message = to_message
        self._to_handle = to_handle
        self._server_is_lost = False

    async def send(self, tasks: Iterable[Any]) -> list[H | TaskqError]:
        """One answer for each task, in order; fewer when the server was lost, for then the rest is not looked at."""
        deliveries: list[asyncio.Task[list[H | TaskqError]]] = []
        try:
            await self._start(tasks, deliveries)
        except Exception:
            # `tasks` raised: what is on its way arrives before the caller hears of it.
            await asyncio.gather(*deliveries, return_exceptions=True)
            raise
        except asyncio.CancelledError:
            for delivery in deliveries:
                delivery.cancel()
            raise
        return [answer for batch in await asyncio.gather(*deliveries) for answer in batch]

    async def _start(self, tasks: Iterable[Any], deliveries: list[asyncio.Task[list[H | TaskqError]]]) -> None:
        for batch in batches(self._waiting(tasks)):
            deliveries.append(asyncio.create_task(self._deliver(batch)))
            # Twice, so that gRPC has the request and the network is busy while the next one is built here.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            # The first one alone: requests that wait for the connection would be sent in any order.
            await _until_fewer_than(1 if len(deliveries) == 1 else REQUESTS_ON_THEIR_WAY, deliveries)
            if self._server_is_lost:
                return

    def _waiting(self, tasks: Iterable[Any]) -> Iterator[Waiting]:
        for task in tasks:
            try:
                waiting = self._enqueuer.wait_for(self._to_message(task))
            except InvalidArgument as fault:
                waiting = self._enqueuer.wait_for(NewTask())
                waiting.answer.set_exception(fault)
            yield waiting

    async def _deliver(self, batch: Sequence[Waiting]) -> list[H | TaskqError]:
        await self._enqueuer.deliver(batch)
        return [self._answer(waiting) for waiting in batch]

    def _answer(self, waiting: Waiting) -> H | TaskqError:
        error = waiting.answer.exception()
        if error is None:
            return self._to_handle(waiting.answer.result())
        if not isinstance(error, TaskqError):
            raise error
        if not isinstance(error, InvalidArgument | Conflict | Rejected):  # those are about one task only
            self._server_is_lost = True
        return error


async def _until_fewer_than(most: int, deliveries: Sequence[asyncio.Task[Any]]) -> None:
    while len(pending := [delivery for delivery in deliveries[-2 * most :] if not delivery.done()]) >= most:
        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
