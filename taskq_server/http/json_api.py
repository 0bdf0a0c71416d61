"""The calls by HTTP: as JSON on the paths of their annotations, and by Connect's unary protocol on those of gRPC.

Whoever may not come in has nothing read: first who calls and what they may do, then what the body is and how large,
and only then is it read, and understood, and done.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from google.rpc import code_pb2
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from taskq_server.access import Access
from taskq_server.core.errors import Stopping
from taskq_server.http import body, connect, json_body
from taskq_server.http.auth import who
from taskq_server.http.binding import Binding, bindings
from taskq_server.http.body import JSON
from taskq_server.http.calls import Call
from taskq_server.http.errors import Failure, Refusal

LARGE_BYTES = 65_536
"""What is larger is read and written in a thread: a batch that takes 100 ms must not hold up what is due."""

Item = TypeVar("Item")


class JsonApi:
    """Answers every request that nothing else does."""

    def __init__(self, calls: Iterable[Call], access: Access) -> None:
        self._access = access
        self._calls = {call.path: call for call in calls}
        found = [one for call in self._calls.values() for one in bindings(call)]
        # A word of a path's own comes before whatever a variable would take it for.
        self.bindings = sorted(found, key=lambda binding: len(binding.variables))
        self._thread = ThreadPoolExecutor(1, "taskq-json")
        self._stopping = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._answer(request)
        await response(scope, receive, send)

    async def stop(self, grace_seconds: float) -> None:
        """Makes no further calls, and returns when those under way have ended, or after the grace."""
        self._stopping = True
        with contextlib.suppress(TimeoutError):  # those that are left are cut off with their connections
            async with asyncio.timeout(grace_seconds):
                await self._idle.wait()

    async def _answer(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode("ascii", "replace")
        if (call := self._calls.get(path)) is not None:
            return await self._connect(call, request)
        verb = "GET" if request.method == "HEAD" else request.method
        verbs: set[str] = set()
        for binding in self.bindings:
            values = binding.template.match(path)
            if values is not None and binding.verb == verb:
                return await self._rest(binding, values, request)
            if values is not None:
                verbs |= {"GET", "HEAD"} if binding.verb == "GET" else {binding.verb}
        if verbs:
            return google_error(Failure(wrong_verb(request.method, verbs)))
        message = "there is no such path; /openapi.json has those that there are"
        return google_error(Failure(Refusal(404, code_pb2.NOT_FOUND, "NO_SUCH_PATH", message)))

    async def _rest(self, binding: Binding, values: Sequence[str], request: Request) -> Response:
        async def answer() -> bytes:
            seconds = self._admit(binding.call, request)
            kind = body.media_type(request, JSON)
            data = await body.read(request, kind)
            if data and not binding.body:
                message = f"{request.method} must have no body here"
                raise Refusal(400, code_pb2.INVALID_ARGUMENT, "UNEXPECTED_BODY", message)
            query = request.scope["query_string"].decode("latin-1")
            asked = await self._convert(len(data), lambda: binding.message(values, query, data))
            answered = await binding.call.run(asked, seconds, request)
            return await self._convert(answered.ByteSize(), lambda: json_body.text_of(answered))

        found = await self._counted(binding.call, answer)
        return google_error(found) if isinstance(found, Failure) else Response(found, media_type=JSON)

    async def _connect(self, call: Call, request: Request) -> Response:
        kind = JSON

        async def answer() -> bytes:
            nonlocal kind
            if request.method != "POST":
                raise wrong_verb(request.method, {"POST"})
            seconds = self._admit(call, request)
            connect.check(request.headers)
            kind = body.media_type(request, *connect.CONTENT_TYPES) or JSON
            if call.is_stream:
                message = f"{call.method.name} is a stream, which is for gRPC alone"
                raise Refusal(501, code_pb2.UNIMPLEMENTED, "STREAMS_BY_GRPC", message)
            data = await body.read(request, request.headers.get("content-type", ""))
            asked = await self._convert(len(data), lambda: connect.request_of(call, kind, data))
            answered = await call.run(asked, seconds, request)
            return await self._convert(answered.ByteSize(), lambda: connect.response_of(answered, kind))

        found = await self._counted(call, answer)
        if isinstance(found, Failure):
            return Response(connect.error_of(found), found.status, found.headers, JSON)
        return Response(found, media_type=kind)

    def _admit(self, call: Call, request: Request) -> float | None:
        """Lets in who may make this call; how long they wait."""
        if self._access.required:
            caller = who(self._access, request)
            caller.must_meet(call.need)
            self._access.enter(caller)
        if self._stopping:
            raise Stopping
        return connect.timeout_seconds(request.headers)

    async def _counted(self, call: Call, answer: Callable[[], Awaitable[bytes]]) -> bytes | Failure:
        self._under_way += 1
        self._idle.clear()
        try:
            return await call.counted(answer)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _convert(self, size: int, convert: Callable[[], Item]) -> Item:
        if size <= LARGE_BYTES:
            return convert()
        return await asyncio.get_running_loop().run_in_executor(self._thread, convert)


def google_error(failure: Failure) -> Response:
    """AIP-193."""
    return Response(json.dumps(failure.as_google()).encode(), failure.status, failure.headers, JSON)


def wrong_verb(verb: str, known: set[str]) -> Refusal:
    allow = ", ".join(sorted(known))
    return Refusal(405, code_pb2.UNIMPLEMENTED, "WRONG_VERB", f"must be {allow}; is {verb[:20]}", allow=allow)
