"""Those who connect over HTTP and do not ask keep nobody out."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskq_server.http import app, server
from taskq_server.http.server import MOST_CONNECTIONS
from taskq_server.server import Server
from tests.conftest import StartServer
from tests.http.conftest import fetch
from tests.rpc.support import soon
from tests.support import hostile
from tests.support.authority import Authority
from tests.support.hostile import connected

HALF_A_HEAD = b"GET /livez HTTP/1.1\r\nHost: "


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """None of this comes to the database."""
    return f"sqlite:///{tmp_path}/taskq.db"


class Site:
    """A server that answers over HTTP, in plaintext or by TLS."""

    def __init__(self, server: Server, authority: Authority | None) -> None:
        self.server = server
        self.address = server.http_address
        self._context = None if authority is None else ssl.create_default_context(cafile=authority.ca)

    def ask(self, path: str = "/livez") -> int:
        host, _, port = self.address.rpartition(":")
        if self._context is None:
            return fetch(f"http://{self.address}{path}").status
        opened = http.client.HTTPSConnection(host, int(port), context=self._context, timeout=20)
        with contextlib.closing(opened) as connection:
            connection.request("GET", path)
            return connection.getresponse().status


@pytest.fixture(params=["plaintext", "tls"])
async def site(request: pytest.FixtureRequest, start_server: StartServer, tmp_path: Path) -> Site:
    if request.param == "plaintext":
        return Site(await start_server(http_listen="127.0.0.1:0"), None)
    authority = Authority(tmp_path)
    pair = authority.signs("server")
    return Site(await start_server(http_listen="127.0.0.1:0", tls_cert=pair.cert, tls_key=pair.key), authority)


class Held:
    """Metrics that are asked for, and not answered before they may be."""

    def __init__(self) -> None:
        self.arrived, self.go_on = threading.Event(), threading.Event()

    def encode(self, registry: object) -> str:
        self.arrived.set()
        assert self.go_on.wait(20)
        return "held\n"


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held()
    monkeypatch.setattr(app, "choose_encoder", lambda accept: (held.encode, "text/plain"))
    try:
        yield held
    finally:
        held.go_on.set()


async def test_three_hundred_that_never_ask_are_hung_up_on_and_a_probe_is_answered_meanwhile(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 2)

    def come_in() -> tuple[int, int, int]:
        with connected(site.address, 300) as idle:
            for one in idle[::2]:  # the others do not even begin
                with contextlib.suppress(OSError):  # of those that have made room
                    one.sendall(HALF_A_HEAD)
            status = site.ask()
            made_room = hostile.hung_up(idle, seconds=0.2)
            return status, made_room, hostile.hung_up(idle, seconds=15)

    status, made_room, gone = await asyncio.to_thread(come_in)
    assert status == 200
    assert made_room >= 300 - MOST_CONNECTIONS
    assert gone == 300, "those that had made room among them"
    assert await asyncio.to_thread(site.ask) == 200


async def test_one_that_sends_its_question_byte_by_byte_is_hung_up_on_all_the_same(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    site = Site(await start_server(http_listen="127.0.0.1:0"), None)

    def drip(beginning: bytes) -> float:
        with connected(site.address) as (one,):
            began = time.monotonic()
            with contextlib.suppress(OSError):
                one.sendall(beginning)
                while not _is_hung_up(one) and time.monotonic() - began < 20:
                    one.sendall(b"x")
            return time.monotonic() - began

    # at once, after an answer on the same connection, and after an answer that did not wait for what is asked
    for before in (b"", HALF_A_HEAD + b"x\r\n\r\n", HALF_A_HEAD + b"x\r\nContent-Length: 1000000\r\n\r\n"):
        assert await asyncio.to_thread(drip, before) < 10


def _is_hung_up(one: socket.socket) -> bool:
    return bool(select.select([one], [], [], 0.02)[0]) and not one.recv(1 << 16)


async def test_the_one_that_has_not_asked_for_longest_makes_room(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)
    site = Site(await start_server(http_listen="127.0.0.1:0"), None)

    def come_in() -> tuple[int, int, int]:
        with connected(site.address, 3) as idle:
            first, second, third = idle
            for one in (second, third, first):  # an answer says that the server knows it, as connecting does not
                one.sendall(HALF_A_HEAD + b"x\r\n\r\n")
                while not one.recv(1 << 16).endswith(b"ok\n"):
                    pass
            with connected(site.address):
                gone = hostile.hung_up([second], seconds=5)
                return gone, hostile.hung_up([first], seconds=0.2), hostile.hung_up([third], seconds=0.2)

    assert await asyncio.to_thread(come_in) == (1, 0, 0)


async def test_those_that_are_slow_with_what_they_send_make_room(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 5)
    site = Site(await start_server(http_listen="127.0.0.1:0"), None)

    def come_in(kind: bytes) -> tuple[int, int]:
        with connected(site.address, 5) as slow:
            for one in slow:
                one.sendall(b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + kind)
                assert one.recv(1 << 16).startswith(b"HTTP/1.1 100 ")  # it is being read
            return site.ask(), hostile.hung_up(slow, seconds=0.2)

    for kind in (b"Content-Length: 100", b"Transfer-Encoding: chunked"):
        assert await asyncio.to_thread(come_in, kind + b"\r\nExpect: 100-continue\r\n\r\n") == (200, 1)


async def test_a_request_that_is_under_way_makes_room_for_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 5)
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)  # nor is it cut off while it is answered

    def come_in() -> int:
        with connected(site.address, 20) as idle:
            return hostile.hung_up(idle, seconds=10)

    with held(monkeypatch) as metrics:
        asked = asyncio.create_task(asyncio.to_thread(site.ask, "/metrics"))
        await asyncio.to_thread(metrics.arrived.wait, 20)
        assert await asyncio.to_thread(come_in) == 20
        metrics.go_on.set()
        assert await soon(asked) == 200


async def test_where_all_wait_for_answers_one_more_is_hung_up_on_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 1)

    def come_in() -> int:
        with connected(site.address) as one:
            return hostile.hung_up(one, seconds=5)

    with held(monkeypatch) as metrics:
        asked = asyncio.create_task(asyncio.to_thread(site.ask, "/metrics"))
        await asyncio.to_thread(metrics.arrived.wait, 20)
        assert await asyncio.to_thread(come_in) == 1
        metrics.go_on.set()
        assert await soon(asked) == 200
    assert await asyncio.to_thread(site.ask) == 200


async def test_those_who_have_not_shaken_hands_do_not_hold_up_the_stop(site: Site) -> None:
    def come_in() -> None:
        with connected(site.address, 20) as idle:
            assert site.ask() == 200  # they are all there
            asyncio.run_coroutine_threadsafe(site.server.stop(), loop).result(server.STOP_SECONDS + 3)
            assert hostile.hung_up(idle, seconds=2) == 20

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(come_in)


async def test_whoever_sends_nonsense_cannot_write_into_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def talk_nonsense() -> None:
        for nonsense in (
            b"\x00\xff" * 50 + b"\r\n\r\n",
            HALF_A_HEAD + b"x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        ):
            with connected(site.address) as one:
                one[0].sendall(nonsense)
                one[0].shutdown(socket.SHUT_WR)
                assert hostile.hung_up(one, seconds=20) == 1

    with caplog.at_level(logging.WARNING):
        await asyncio.to_thread(talk_nonsense)
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]
