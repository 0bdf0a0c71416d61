"""Hints of what has changed, to browsers that stay: server-sent events, at most two a second for each.

A hint says on which topics something has changed, and a page that shows such things asks for itself anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

from starlette.responses import PlainTextResponse, Response, StreamingResponse

from taskq.v1 import event_pb2
from taskq_server.access import Access, Caller
from taskq_server.clock import pause
from taskq_server.core.errors import TaskqError
from taskq_server.http.dashboard.calls import Calls
from taskq_server.http.dashboard.visit import Visit

COALESCED_SECONDS = 0.5
QUIET_SECONDS = 15.0
"""After so long without a hint, a comment shows that the stream lives."""
POLLED_SECONDS = 2.0
"""Where the server has no events, everything may have changed so often."""
MOST = 100
"""So many browsers are told; each takes one of the connections over HTTP."""
_METHOD = "AdminService/WatchEvents"
_TOPICS = {
    value: name.removeprefix("EVENT_TOPIC_").lower()
    for name, value in event_pb2.EventTopic.items()
    if value != event_pb2.EVENT_TOPIC_UNSPECIFIED
}


class Live:
    """Those who are told."""

    def __init__(self, calls: Calls, access: Access) -> None:
        self._calls = calls
        self._access = access
        self._many = 0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self._stopping.set()

    async def page(self, visit: Visit) -> Response:
        if self._many >= MOST or self._stopping.is_set():
            return PlainTextResponse("too many are told of changes; ask again later\n", 503)
        cursor = visit.request.headers.get("last-event-id", "")[:200]
        headers = {"x-accel-buffering": "no"}  # a proxy must not keep it back
        return StreamingResponse(self._stream(visit.caller, cursor), headers=headers, media_type="text/event-stream")

    async def _stream(self, caller: Caller, cursor: str) -> AsyncIterator[str]:
        self._many += 1
        try:
            yield "retry: 2000\n\n"
            with self._access.streaming(caller) as limit:
                async with limit:
                    async for message in self._messages(caller, cursor):
                        yield message
        except (TaskqError, TimeoutError):
            pass  # the browser asks again, and is told why
        finally:
            self._many -= 1

    async def _messages(self, caller: Caller, cursor: str) -> AsyncIterator[str]:
        hints: asyncio.Queue[tuple[str, set[str]]] = asyncio.Queue(1_000)
        listening = asyncio.create_task(self._listen(caller, cursor, hints))
        stopping = asyncio.create_task(self._stopping.wait())
        hint = asyncio.create_task(hints.get())
        try:
            while True:
                ends = {listening, stopping}
                done, _ = await asyncio.wait({hint, *ends}, timeout=QUIET_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if done & ends:
                    return
                if not done:
                    yield ": still here\n\n"
                    continue
                await asyncio.wait(ends, timeout=COALESCED_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                last, topics = hint.result()
                while not hints.empty():
                    last, more = hints.get_nowait()
                    topics |= more
                told = json.dumps({"topics": sorted(topics)})
                yield f"{f'id: {last}' if last else ':'}\nevent: changed\ndata: {told}\n\n"
                hint = asyncio.create_task(hints.get())
        finally:
            waited = (hint, listening, stopping)
            for task in waited:
                task.cancel()
            await asyncio.gather(*waited, return_exceptions=True)

    async def _listen(self, caller: Caller, cursor: str, hints: asyncio.Queue[tuple[str, set[str]]]) -> None:
        if not self._calls.serves(_METHOD):
            while True:
                await pause(POLLED_SECONDS)
                await hints.put(("", {"gap"}))
        stream = self._calls.stream(caller, _METHOD, event_pb2.WatchEventsRequest(cursor=cursor))
        async with contextlib.aclosing(stream) as answers:  # type: ignore[type-var]
            async for answer in answers:
                if answer.events:
                    topics = {_TOPICS.get(event.topic, "gap") for event in answer.events}
                    await hints.put((answer.events[-1].cursor, topics))
