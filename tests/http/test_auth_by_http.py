"""Who may make which call by HTTP: as by gRPC, line for line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from taskq_server.config import Config
from taskq_server.http.errors import STATUS
from taskq_server.server import Server
from tests.http.asking import JSON, PROTO, Answered, Asked, ask, ask_now, by_connect, by_rest
from tests.rpc.test_auth_table import EXPECTED, NO_CREDENTIALS, RIGHTS, Gate, _shown, leave_operations
from tests.rpc.wire import METHODS

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNARY = [name for name, method in METHODS.items() if not method.server_streaming]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gate]:
    url = f"sqlite:///{tmp_path_factory.mktemp('gate')}/taskq.db"
    config = Config(listen="127.0.0.1:0", http_listen="127.0.0.1:0", database_url=url, stop_grace=1, auth="required")
    server = Server(config)
    await server.start()
    leave_operations(server)
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield Gate(server, channel, await _shown(server))
    await server.stop()


@pytest.fixture(autouse=True)
def _forgiving(gate: Gate) -> None:
    """What others have failed at is not held against a test."""
    gate.server.access._failures._counts.clear()


async def sent(gate: Gate, asked: Asked, shown: str) -> Answered:
    with_token = Asked(asked.verb, asked.path, asked.body, asked.kind, dict(gate.shown[shown]))
    return await asyncio.to_thread(ask_now, gate.server.http_address, with_token)


def forms(name: str, request: Any) -> list[Asked]:
    return [by_connect(name, request), by_connect(name, request, PROTO), *by_rest(name, request)]


@pytest.mark.parametrize("right", RIGHTS)
@pytest.mark.parametrize("name", UNARY)
async def test_a_call_with_one_right(gate: Gate, name: str, right: str) -> None:
    for i in range(len(forms(name, await gate.request(name)))):
        asked = forms(name, await gate.request(name))[i]
        answered = await sent(gate, asked, right)
        assert answered.status == STATUS[EXPECTED[name, right].value[0]], answered.body  # type: ignore[index]


@pytest.mark.parametrize("kind", NO_CREDENTIALS)
async def test_a_call_without_a_credential_that_holds(gate: Gate, kind: str) -> None:
    for name in UNARY:
        gate.server.access._failures._counts.clear()
        for asked in (by_connect(name, await gate.request(name)), *by_rest(name, await gate.request(name))):
            answered = await sent(gate, asked, kind)
            assert (answered.status, answered.reason) == (401, "UNAUTHENTICATED"), asked
            assert answered.headers["www-authenticate"] == "Bearer"


async def test_who_may_not_make_a_call_has_nothing_read(gate: Gate) -> None:
    def ask_with_half_a_body(shown: str) -> bytes:
        import socket

        host, port = gate.server.http_address.split(":")
        with socket.create_connection((host, int(port)), 20) as raw:
            raw.sendall(f"POST /v1/tasks HTTP/1.1\r\nHost: {host}\r\nContent-Type: {JSON}\r\n".encode())
            for key, value in gate.shown[shown]:
                raw.sendall(f"{key}: {value}\r\n".encode())
            raw.sendall(b"Content-Length: 4000000\r\n\r\n{")
            return raw.recv(65_536)

    assert (await asyncio.to_thread(ask_with_half_a_body, "nothing")).startswith(b"HTTP/1.1 401 ")
    assert (await asyncio.to_thread(ask_with_half_a_body, "read")).startswith(b"HTTP/1.1 403 ")


async def test_who_fails_too_often_is_told_to_wait(gate: Gate) -> None:
    for _ in range(61):
        answered = await ask(gate.server.http_address, "GET", "/v1/serverInfo")
    assert (answered.status, answered.reason, answered.headers["retry-after"]) == (429, "TOO_MANY_FAILURES", "1")
    assert (await sent(gate, Asked("GET", "/v1/serverInfo"), "read")).status == 200


async def test_what_the_api_is_is_told_to_whoever_has_a_credential(gate: Gate) -> None:
    assert (await sent(gate, Asked("GET", "/openapi.json"), "nothing")).status == 401
    described = (await sent(gate, Asked("GET", "/openapi.json"), "process:bake")).json
    assert described["security"] == [{"token": []}]
    assert "401" in described["paths"]["/v1/tasks"]["post"]["responses"]
