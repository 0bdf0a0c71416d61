"""What whoever runs the server asks it: does it live, should calls come here."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from taskq_server.core.errors import CannotListen, StorageUnavailable
from taskq_server.http.server import STOP_SECONDS
from taskq_server.readiness import Readiness
from taskq_server.rpc.server import READINESS
from taskq_server.store.store import Store
from tests.conftest import StartServer
from tests.http.conftest import Site, fetch
from tests.http.given import SlowLooks
from tests.rpc.support import soon

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ("SchedulerService", "ProcessorService", "ScheduleService", "AdminService")
NAMES = ["", READINESS, *(f"taskq.v1.{service}" for service in SERVICES)]


async def statuses(health: health_pb2_grpc.HealthStub) -> dict[str, int]:
    response = await soon(health.List(health_pb2.HealthListRequest()))
    return {name: one.status for name, one in response.statuses.items()}


async def test_a_server_that_serves_lives_and_is_ready(site: Site) -> None:
    assert (await site.fetch("/livez")).status == 200
    assert (await site.fetch("/readyz")).status == 200
    assert (await site.fetch("/nothing")).status == 404
    refused = await asyncio.to_thread(fetch, f"http://{site.server.http_address}/metrics", "POST")
    assert refused.status == 405
    health = health_pb2_grpc.HealthStub(site.channel())
    assert await statuses(health) == dict.fromkeys(NAMES, SERVING)


async def test_while_the_database_is_away_calls_should_not_come_here_and_then_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = health_pb2_grpc.HealthStub(site.channel())
    watch = health.Watch(health_pb2.HealthCheckRequest(service=READINESS))
    assert (await soon(watch.read())).status == SERVING

    # when nothing has been answered for a while, and a question is not answered either
    async def away(self: Store) -> None:
        raise StorageUnavailable("cut off")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "ping", away)
        patched.setattr(Readiness, "heard", lambda self, seconds: None)
        site.server.readiness._answered_at = -1e9
        await site.server.readiness.tick()
        assert (await soon(watch.read())).status == NOT_SERVING
        assert await statuses(health) == dict.fromkeys(NAMES, NOT_SERVING)
        ready = await site.fetch("/readyz")
        assert (ready.status, ready.text) == (503, "the database does not answer\n")
        assert (await site.fetch("/livez")).status == 200
        assert (await site.values()).of("taskq_database_up") == 0

    # then it is back
    await site.server.readiness.tick()
    assert (await soon(watch.read())).status == SERVING
    assert (await site.fetch("/readyz")).status == 200
    assert (await site.values()).of("taskq_database_up") == 1
    watch.cancel()


async def test_a_database_that_takes_too_long_is_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: Store) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Store, "ping", never)
    monkeypatch.setattr(Readiness, "heard", lambda self, seconds: None)
    monkeypatch.setattr("taskq_server.readiness.PATIENCE_SECONDS", 0.01)
    site.server.readiness._answered_at = -1e9
    await site.server.readiness.tick()
    assert (await site.fetch("/readyz")).status == 503


async def test_the_database_is_not_asked_while_it_answers_others(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unwanted(self: Store) -> None:
        raise AssertionError("nobody needs to ask")

    monkeypatch.setattr(Store, "ping", unwanted)
    await site.scheduler.enqueue()
    await site.server.readiness.tick()
    assert (await site.fetch("/readyz")).status == 200


async def test_a_server_that_stops_says_over_http_that_it_is_not_ready_until_its_calls_have_ended(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.restart(stop_grace=10.0, http_listen="127.0.0.1:0")
    task_id = await site.scheduler.enqueue()
    looks = SlowLooks(monkeypatch)
    call = asyncio.ensure_future(site.scheduler.get(task_id))
    await soon(looks.begun.wait())
    stop = asyncio.create_task(site.server.stop())
    while (page := await site.fetch("/readyz")).status == 200:
        pass
    assert (page.status, page.text) == (503, "the server is stopping\n")
    looks.may_go_on.set()
    assert (await soon(call)).task_id == task_id
    await soon(stop)


async def test_health_does_not_come_back_once_the_server_stops(site: Site) -> None:
    await site.server.readiness.stop()
    await site.server.readiness.tick()
    assert (await site.fetch("/readyz")).status == 503
    request = health_pb2.HealthCheckRequest()
    assert (await soon(health_pb2_grpc.HealthStub(site.channel()).Check(request))).status == NOT_SERVING


async def test_a_service_that_nobody_knows_has_no_health(site: Site) -> None:
    health = health_pb2_grpc.HealthStub(site.channel())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await soon(health.Check(health_pb2.HealthCheckRequest(service="kitchen")))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_an_http_address_that_another_has_is_refused_and_the_database_let_go(
    site: Site, start_server: StartServer, database_url: str
) -> None:
    if not database_url.startswith("sqlite"):
        pytest.skip("one server at a time shows that the first has let go")
    taken = site.server.http_address
    await site.server.stop()
    with socket.create_server(("127.0.0.1", int(taken.rpartition(":")[2]))), pytest.raises(CannotListen) as refused:
        await start_server(http_listen=taken)
    assert taken in str(refused.value) and "TASKQ_HTTP_LISTEN" in str(refused.value)
    await start_server(http_listen=taken)


async def test_a_scraper_that_keeps_its_connection_and_one_that_never_ends_its_question_do_not_hold_up_the_stop(
    site: Site,
) -> None:
    host, _, port = site.server.http_address.rpartition(":")

    def scrape_and_stay() -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        connection.request("GET", "/metrics")
        assert connection.getresponse().read()
        return connection

    scraper = await asyncio.to_thread(scrape_and_stay)
    slow = socket.create_connection((host, int(port)))
    slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
    async with asyncio.timeout(STOP_SECONDS + 3):
        await site.server.stop()
    scraper.close()
    slow.close()


async def test_garbage_over_http_is_refused_and_the_next_question_answered(site: Site) -> None:
    host, _, port = site.server.http_address.rpartition(":")

    def send(garbage: bytes) -> bytes:
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(100)

    for garbage in (b"\x00\xff" * 50 + b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        assert not (await asyncio.to_thread(send, garbage)).startswith(b"HTTP/1.1 2")
    long = b"GET /livez HTTP/1.1\r\nHost: x\r\nLong: " + b"x" * 1_000_000 + b"\r\n\r\n"
    with contextlib.suppress(OSError):  # it may be cut off in the middle
        assert not (await asyncio.to_thread(send, long)).startswith(b"HTTP/1.1 2")
    assert (await site.fetch("/readyz")).status == 200
