"""One request for a page: who asks, what the servicers answer, how it is shown."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from taskq_server.access import Caller
from taskq_server.core.errors import TaskqError
from taskq_server.http.dashboard import forms
from taskq_server.http.dashboard.calls import Calls, NotServed
from taskq_server.http.dashboard.kept import Kept
from taskq_server.http.dashboard.render import Renderer


@dataclass(frozen=True, slots=True)
class Part:
    """What one call has answered for a part of a page, or why there is nothing: other parts are shown all the same."""

    answer: Any = None
    why_not: str = ""

    def __bool__(self) -> bool:
        return self.answer is not None


class Visit:
    """A request, and what there is to answer it with."""

    def __init__(
        self, request: Request, caller: Caller, calls: Calls, renderer: Renderer, kept: Kept, now_us: int
    ) -> None:
        self.request = request
        self.frame = renderer.frame
        self.caller = caller
        self.calls = calls
        self.kept = kept
        self.now_us = now_us
        self._renderer = renderer
        self._form: forms.Form | None = None

    @property
    def now(self) -> Timestamp:
        return Timestamp(seconds=self.now_us // 1_000_000, nanos=self.now_us % 1_000_000 * 1_000)

    def query(self, name: str, default: str = "") -> str:
        return self.request.query_params.get(name, default).strip()

    def path(self, name: str) -> str:
        return str(self.request.path_params[name])

    async def form(self) -> forms.Form:
        if self._form is None:
            self._form = await forms.read(self.request)
        return self._form

    def may(self, method: str) -> bool:
        """Whether there is any use in offering it: it is served, and whoever asks may call it."""
        return self.calls.serves(method) and self.calls.may(self.caller, method)

    async def call(self, method: str, request: Message, reason: str = "") -> Any:
        client, request_id = self.request.client, self.request.headers.get("x-request-id", "")
        return await self.calls.unary(self.caller, method, request, client.host if client else "", request_id, reason)

    async def part(self, method: str, request: Message) -> Part:
        try:
            return Part(await self.call(method, request))
        except (TaskqError, NotServed) as error:
            return Part(why_not=str(error))
        except TimeoutError:
            return Part(why_not="there was no answer in time")

    def show(self, template: str, status: int = 200, **shown: Any) -> Response:
        return HTMLResponse(self._renderer.render(template, self, **shown), status)

    async def show_large(self, template: str, status: int = 200, **shown: Any) -> Response:
        """The same in a thread: a page that takes 100 ms must not hold up what is due."""
        return await asyncio.to_thread(self.show, template, status, **shown)

    def go(self, path: str) -> Response:
        """To another page, once something is done."""
        return RedirectResponse(self.frame.base_path + path, 303)
