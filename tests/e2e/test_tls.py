"""Real handshakes: who is let in, who is not, and what the client is told to do about it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from processor_client import TLS, Context, Processor
from scheduler_client import HandshakeFailed, Scheduler, Unauthenticated
from taskq_server.certificates import Certificates
from taskq_server.core.errors import CannotListen, CertificateRefused
from taskq_server.rpc.tls import server_credentials
from taskq_server.server import Server
from tests.conftest import StartServer
from tests.rpc.callers import granted
from tests.support.authority import HOUR, Authority, Pair

START_SECONDS = 5
"""A processor that cannot be let in must say so at once, not after its patience of 30 s."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """A CA that nobody here trusts."""
    return Authority(tmp_path, "stranger")


StartTls = Callable[..., Awaitable[Server]]


@pytest.fixture
def start_tls(start_server: StartServer, authority: Authority) -> StartTls:
    """A server whose certificate is for this machine; `client_ca` makes it ask for those of clients."""

    async def start(pair: Pair | None = None, client_ca: str | None = None) -> Server:
        pair = pair or authority.signs("server")
        auth = "require" if client_ca else "none"
        return await start_server(tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=client_ca, tls_client_auth=auth)

    return start


async def refusal(server: Server | StandIn, **how: Any) -> str:
    """What a scheduler and a processor are told that cannot come in: both the same, at once, and by name."""
    address = server.address
    async with asyncio.timeout(START_SECONDS):
        async with Scheduler(address, **how) as scheduler:
            with pytest.raises(HandshakeFailed) as enqueueing:
                await scheduler.enqueue("cook")
            with pytest.raises(HandshakeFailed) as looking:
                await scheduler.get("01935000-0000-7000-8000-000000000000")
            with pytest.raises(HandshakeFailed) as waiting:
                await scheduler.result("01935000-0000-7000-8000-000000000000")
        processor = Processor(address, name="oven", **how)
        processor.task("cook")(lambda: None)
        with pytest.raises(HandshakeFailed) as starting:
            await processor.start()
    assert len({each.value.message for each in (enqueueing, looking, waiting, starting)}) == 1
    return starting.value.message


async def is_served(address: str, **how: Any) -> bool:
    """Enqueues, runs and reports one task."""
    async with Scheduler(address, **how) as scheduler:
        processor = Processor(address, name="oven", **how)

        @processor.task("cook")
        async def cook(ctx: Context, dish: str) -> str:
            return f"{dish} is served"

        async with processor:
            handle = await scheduler.enqueue("cook", {"dish": "soup"})
            return await handle.result(timeout=10) == "soup is served"  # type: ignore[no-any-return]


async def test_with_the_ca_in_code_a_task_goes_all_the_way_by_tls(start_tls: StartTls, authority: Authority) -> None:
    server = await start_tls()
    assert await is_served(server.address, tls_ca=authority.ca)
    assert await is_served(server.address, tls=TLS(ca=authority.ca))
    assert await is_served(server.address.replace("127.0.0.1", "localhost"), tls_ca=authority.ca)


async def test_with_the_ca_in_the_environment_too(
    start_tls: StartTls, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start_tls()
    monkeypatch.setenv("TASKQ_ADDRESS", server.address)
    monkeypatch.setenv("TASKQ_TLS_CA", authority.ca)
    async with Scheduler() as scheduler:
        assert await scheduler.enqueue("cook")
    assert await is_served(server.address)


async def test_clients_without_certificates_have_an_address_of_their_own_where_they_show_a_token(
    start_server: StartServer, authority: Authority
) -> None:
    pair, oven = authority.signs("server"), authority.signs("oven", hosts=(), uri="taskq:processor/oven")
    server = await start_server(
        tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=authority.ca, tls_client_auth="require",
        cert_rights="taskq:processor/oven=process:cook,enqueue:cook", token_listen="127.0.0.1:0",
    )  # fmt: skip
    token = await granted(server, "kitchen", "process:cook", "enqueue:cook")
    certified = TLS(ca=authority.ca, cert=oven.cert, key=oven.key)

    assert await is_served(server.token_address, tls_ca=authority.ca, token=token)
    assert await is_served(server.address, tls=certified)

    assert "certificate" in await refusal(server, tls_ca=authority.ca, token=token)
    for shown in ({"tls_ca": authority.ca}, {"tls": certified}, {"tls_ca": authority.ca, "token": f"{token}x"}):
        async with Scheduler(server.token_address, **shown) as scheduler:
            with pytest.raises(Unauthenticated):
                await scheduler.enqueue("cook")


@pytest.mark.parametrize("which", ["listen", "token_listen"])
async def test_an_address_of_grpc_that_another_has_is_refused_by_the_name_of_its_setting(
    start_server: StartServer, authority: Authority, which: str
) -> None:
    pair = authority.signs("server")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        addresses = {"token_listen": "127.0.0.1:0", which: taken}
        with pytest.raises(CannotListen) as refused:
            await start_server(
                tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=authority.ca, tls_client_auth="require", **addresses
            )
    assert taken in str(refused.value) and f" TASKQ_{which.upper()} " in str(refused.value)


async def test_with_client_certificates_required_a_task_goes_all_the_way(
    start_tls: StartTls, authority: Authority
) -> None:
    server = await start_tls(client_ca=authority.ca)
    mine = authority.signs("processor", hosts=(), uri="taskq:processor/oven")
    assert await is_served(server.address, tls=TLS(authority.ca, mine.cert, mine.key))


async def test_a_server_that_asks_for_no_certificate_lets_in_whoever_has_one(
    start_tls: StartTls, authority: Authority, stranger: Authority
) -> None:
    server = await start_tls()
    mine = stranger.signs("mine")
    assert await is_served(server.address, tls=TLS(authority.ca, mine.cert, mine.key))


@pytest.mark.parametrize("which", ["none", "of a stranger", "expired", "of another key"])
async def test_a_client_without_a_good_certificate_is_told_what_the_server_asks_for(
    start_tls: StartTls, authority: Authority, stranger: Authority, which: str
) -> None:
    server = await start_tls(client_ca=authority.ca)
    mine = {
        "none": lambda: None,
        "of a stranger": lambda: stranger.signs("mine", common_name="admin"),
        "expired": lambda: authority.signs("mine", ends_in=-timedelta(minutes=1)),
        "of another key": lambda: Pair(authority.signs("a").cert, authority.signs("b").key),
    }[which]()
    tls = TLS(authority.ca, mine.cert, mine.key) if mine else TLS(authority.ca)
    if which == "of another key":
        async with Scheduler(server.address, tls=tls) as scheduler:
            with pytest.raises(ValueError, match="must be a PEM certificate and its key"):
                await scheduler.enqueue("cook")
        return
    said = await refusal(server, tls=tls)
    assert "it asks for a certificate" in said and "TASKQ_TLS_CERT" in said
    assert ("none is set" in said) == (mine is None)


async def test_a_server_of_another_ca_is_not_trusted(
    start_tls: StartTls, authority: Authority, stranger: Authority
) -> None:
    server = await start_tls()
    for how in ({"tls_ca": stranger.ca}, {"tls": True}):
        said = await refusal(server, **how)
        assert "is not signed by a CA that this client trusts" in said and "TASKQ_TLS_CA" in said


async def test_a_certificate_for_another_host_is_not_taken_unless_its_name_is_given(
    start_tls: StartTls, authority: Authority
) -> None:
    # only the alternative names count: the common name is the right one, and does not help
    server = await start_tls(authority.signs("elsewhere", hosts=["queue.example"], common_name="127.0.0.1"))
    said = await refusal(server, tls_ca=authority.ca)
    assert "is not made out to 127.0.0.1" in said and "TASKQ_TLS_SERVER_NAME" in said
    assert await is_served(server.address, tls=TLS(authority.ca, server_name="queue.example"))


@pytest.mark.parametrize(
    ("begins_in", "ends_in", "why"),
    [(-2 * HOUR, -timedelta(minutes=1), "has expired"), (HOUR, 2 * HOUR, "is not valid yet")],
)
async def test_a_certificate_out_of_its_time_is_refused_by_the_server_and_by_clients(
    start_server: StartServer, authority: Authority, begins_in: timedelta, ends_in: timedelta, why: str
) -> None:
    pair = authority.signs("server", begins_in=begins_in, ends_in=ends_in)
    with pytest.raises(CertificateRefused, match="TASKQ_TLS_CERT must"):
        await start_server(tls_cert=pair.cert, tls_key=pair.key)
    async with StandIn(pair) as server:
        assert why in await refusal(server, tls_ca=authority.ca)


async def test_a_plaintext_client_of_a_tls_server_and_the_reverse_are_told_so(
    start_tls: StartTls, start_server: StartServer, authority: Authority, tmp_path: Path
) -> None:
    encrypted = await start_tls()
    said = await refusal(encrypted)
    assert "speaks TLS, and this client plaintext" in said and "TASKQ_TLS_CA" in said
    plain = await start_server(database_url=f"sqlite:///{tmp_path}/plain.db")
    said = await refusal(plain, tls_ca=authority.ca)
    assert "speaks plaintext, and this client TLS" in said and "TASKQ_TLS_CERT" in said


async def test_of_several_servers_one_name_is_asked_for(start_tls: StartTls, authority: Authority) -> None:
    server = await start_tls()
    several = f"127.0.0.1:1,{server.address}"
    async with Scheduler(several, tls_ca=authority.ca) as scheduler:
        with pytest.raises(ValueError, match="TASKQ_TLS_SERVER_NAME"):
            await scheduler.enqueue("cook")
    assert await is_served(several, tls=TLS(authority.ca, server_name="localhost"))


def shake_hands(address: str, authority: Authority, newest: ssl.TLSVersion) -> tuple[str | None, str, str | None]:
    """Version, cipher and ALPN that the server agrees to with one that speaks no newer version."""
    context = ssl.create_default_context(cafile=authority.ca)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = newest
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 5) as raw, context.wrap_socket(raw, server_hostname=host) as door:
        return door.version(), door.cipher()[0], door.selected_alpn_protocol()  # type: ignore[index]


async def test_nothing_older_than_tls_1_2_is_spoken_and_no_cipher_without_forward_secrecy(
    start_tls: StartTls, authority: Authority
) -> None:
    address = (await start_tls()).address
    newest = await asyncio.to_thread(shake_hands, address, authority, ssl.TLSVersion.MAXIMUM_SUPPORTED)
    assert newest[::2] == ("TLSv1.3", "h2")
    older = await asyncio.to_thread(shake_hands, address, authority, ssl.TLSVersion.TLSv1_2)
    assert older[::2] == ("TLSv1.2", "h2")
    assert older[1].startswith("ECDHE-") and ("GCM" in older[1] or "CHACHA20" in older[1])
    with pytest.warns(DeprecationWarning), pytest.raises(ssl.SSLError):
        await asyncio.to_thread(shake_hands, address, authority, ssl.TLSVersion.TLSv1_1)


class Witness(health_pb2_grpc.HealthServicer):
    """Remembers who called."""

    def __init__(self) -> None:
        self.callers: list[Any] = []

    async def Check(self, request: Any, context: Any) -> health_pb2.HealthCheckResponse:
        self.callers.append(context.auth_context())
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


async def test_a_call_knows_the_alternative_names_of_its_callers_certificate(authority: Authority) -> None:
    pair = authority.signs("server")
    witness = Witness()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(witness, server)
    credentials = server_credentials(Certificates(pair.cert, pair.key, authority.ca))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    mine = authority.signs("mine", hosts=["oven.example"], uri="taskq:processor/oven", common_name="admin")
    tls = TLS(authority.ca, mine.cert, mine.key)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", tls.credentials()) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    await server.stop(0)
    (caller,) = witness.callers
    assert caller["x509_subject_alternative_name"] == [b"oven.example", b"taskq:processor/oven"]


class StandIn:
    """A server that shows what ours refuses to show."""

    def __init__(self, pair: Pair) -> None:
        self._server = grpc.aio.server()
        credentials = grpc.ssl_server_credentials([(read(pair.key), read(pair.cert))])
        self.address = f"127.0.0.1:{self._server.add_secure_port('127.0.0.1:0', credentials)}"

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._server.stop(0)


def read(path: str) -> bytes:
    return Path(path).read_bytes()
