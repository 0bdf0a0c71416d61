"""One task stream, from the server's side: what a script sends on it, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from admin_client.conformance.work import ref
from taskq.v1.processor_service_pb2 import (
    AssignedTask,
    CancelTasks,
    Drain,
    Ping,
    StreamTasksResponse,
    Superseded,
    TaskBatch,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call ends that is not answered."""

    code: grpc.StatusCode
    details: str = "by the script of the conformance kit"
    trailing: tuple[tuple[str, bytes], ...] = ()


class Stream:
    """A StreamTasks call. It opens with a ping, as the server's do, and pings when it has nothing else to say."""

    def __init__(self, session_id: str, ping_interval: float) -> None:
        self.session_id = session_id
        self.is_mute = False
        self._ping_interval = ping_interval
        self._script: asyncio.Queue[StreamTasksResponse | Refusal] = asyncio.Queue()

    def push(self, *tasks: AssignedTask) -> None:
        """Sends these in one message."""
        self.say(StreamTasksResponse(tasks=TaskBatch(tasks=tasks)))

    def cancel(self, *tasks: AssignedTask) -> None:
        """Asks for these to be stopped."""
        self.say(StreamTasksResponse(cancel=CancelTasks(attempts=[ref(task) for task in tasks])))

    def drain(self, reason: str, *, processor: bool) -> None:
        """Announces that no further tasks come."""
        self.say(StreamTasksResponse(drain=Drain(reason=reason, processor=processor)))

    def supersede(self) -> None:
        """Announces that another stream has taken over, and ends."""
        self.say(StreamTasksResponse(superseded=Superseded()))
        self.end()

    def say(self, event: StreamTasksResponse) -> None:
        """Sends any message."""
        self._script.put_nowait(event)

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK) -> None:
        """Ends it once all of that is sent."""
        self._script.put_nowait(Refusal(code))

    async def events(self) -> AsyncIterator[StreamTasksResponse | Refusal]:
        """What is to be sent; a Refusal is the last."""
        yield _ping()
        while True:
            try:
                yield await asyncio.wait_for(self._script.get(), self._ping_interval)
            except TimeoutError:
                if not self.is_mute:
                    yield _ping()


def _ping() -> StreamTasksResponse:
    now = Timestamp()
    now.FromNanoseconds(time.time_ns())
    return StreamTasksResponse(ping=Ping(server_time=now))
