"""A server with its dashboard, those who ask it by HTTP, and a real browser."""

from __future__ import annotations

import asyncio
import http.client
import shutil
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from taskq_server.http.app import app
from taskq_server.http.dashboard.dashboard import Dashboard
from taskq_server.http.dashboard.frame import Frame
from taskq_server.http.safety import Hosts
from taskq_server.http.server import HttpServer
from tests.conftest import StartServer
from tests.rpc.world import World

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
Result = TypeVar("Result")


@dataclass
class Answer:
    """What HTTP has answered."""

    status: int
    headers: dict[str, str]
    text: str
    cookies: list[str] = field(default_factory=list)


class Site(World):
    """A server whose pages are asked for as a browser asks."""

    second: HttpServer | None = None
    cookie = ""

    @property
    def url(self) -> str:
        return f"http://{self.server.http_address}"

    async def get(self, path: str, **headers: str) -> Answer:
        return await asyncio.to_thread(self._ask, "GET", path, None, headers)

    async def post(self, path: str, fields: dict[str, str] | None = None, **headers: str) -> Answer:
        headers = {"sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded"} | headers
        return await asyncio.to_thread(self._ask, "POST", path, urllib.parse.urlencode(fields or {}), headers)

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection(*self.server.http_address.split(":"), timeout=20)
        given = {name.replace("_", "-"): value for name, value in headers.items() if value}
        if self.cookie:
            given.setdefault("cookie", self.cookie)
        try:
            connection.request(method, path, body, given)
            response = connection.getresponse()
            text = response.read().decode()
            cookies = response.headers.get_all("set-cookie") or []
            named = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, named, text, cookies)
        finally:
            connection.close()

    async def answers(self, *servicers: object) -> str:
        """A second door to the same server, behind which these answer first; where it is."""
        shown = Dashboard([*servicers, *self.server.servicers], self.server.access, self.clock, Frame("here"))
        server = self.server
        hosts = Hosts("127.0.0.1:0", "", any_name=False)
        self.second = HttpServer(
            app(server.access, server.metrics, server.gauges, server.readiness, hosts, None, shown)
        )
        return f"http://{await self.second.start('127.0.0.1:0')}"

    async def end(self) -> None:
        if self.second is not None:
            await self.second.stop()
        await super().end()


@pytest.fixture
async def site(start_server: StartServer) -> AsyncIterator[Site]:
    site = Site(start_server)
    await site.begin(http_listen="127.0.0.1:0")
    yield site
    await site.end()


@pytest.fixture
async def house(start_server: StartServer) -> AsyncIterator[Site]:
    """A server at which callers must show who they are."""
    site = Site(start_server)
    await site.begin(http_listen="127.0.0.1:0", auth="required")
    yield site
    await site.end()


class Chromium:
    """A browser in a thread of its own, so that the server can answer it meanwhile."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, "chromium")
        self.thread.submit(self._start).result(60)

    def _start(self) -> None:
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        self.browser = self._playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

    def close(self) -> None:
        def end() -> None:
            self.browser.close()
            self._playwright.stop()

        self.thread.submit(end).result(60)
        self.thread.shutdown()


class Reader:
    """Somebody who looks at pages: `await reader.does(lambda page: page.goto(…))`."""

    def __init__(self, chromium: Chromium, **how: Any) -> None:
        self._chromium = chromium
        self.complaints: list[str] = []
        """What the browser had to complain about: errors of scripts, what the policy forbids."""
        self.asked: list[str] = []
        """Every address that was asked for."""
        chromium.thread.submit(self._open, how).result(60)

    def _open(self, how: dict[str, Any]) -> None:
        self._context = self._chromium.browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **how})
        self._context.set_default_timeout(15_000)
        self.page = self._context.new_page()
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("request", lambda request: self.asked.append(request.url))

    async def does(self, what: Callable[[Any], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._chromium.thread, what, self.page)

    def close(self) -> None:
        self._chromium.thread.submit(self._context.close).result(60)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    if CHROMIUM is None:
        pytest.skip("THE DASHBOARD IS NOT TESTED IN A BROWSER: there is no Chromium; apt-get install chromium")
    one = Chromium()
    yield one
    one.close()


@pytest.fixture
def reader(chromium: Chromium) -> Iterator[Reader]:
    one = Reader(chromium)
    yield one
    one.close()


@pytest.fixture
def readers(chromium: Chromium) -> Iterator[Callable[..., Reader]]:
    """Those who have another screen, or no scripts."""
    opened: list[Reader] = []

    def open_one(**how: Any) -> Reader:
        opened.append(Reader(chromium, **how))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()
