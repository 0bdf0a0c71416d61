"""How a client comes in: what code says, what the environment says, and where a token goes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from admin_client import verb
from client_core.access import TLS, Access, is_loopback
from client_core.channel import check, open_blocking_channel, open_channel
from scheduler_client import Scheduler
from tests.support.authority import Authority

TOKEN = "tq_enqueue_7_c2VjcmV0"
CHECK = health_pb2.HealthCheckRequest()


@pytest.mark.parametrize(
    ("said", "environment", "tls"),
    [
        (None, {}, None),
        (None, {"CA": "ca.pem"}, TLS("ca.pem")),
        (None, {"CERT": "c", "KEY": "k"}, TLS(None, "c", "k")),
        (None, {"": "true"}, TLS()),
        (None, {"": " "}, None),
        (None, {"": "false", "CA": "ca.pem"}, None),
        (None, {"CA": "ca.pem", "SERVER_NAME": "queue"}, TLS("ca.pem", server_name="queue")),
        (True, {}, TLS()),
        (True, {"CA": "ca.pem", "": "false"}, TLS("ca.pem")),
        (False, {"CA": "ca.pem"}, None),
        (TLS("mine.pem"), {"CA": "ca.pem", "CERT": "c", "KEY": "k"}, TLS("mine.pem")),
    ],
)
def test_code_wins_over_the_environment(said: Any, environment: dict[str, str], tls: TLS | None) -> None:
    variables = {f"TASKQ_TLS_{name}".removesuffix("_"): value for name, value in environment.items()}
    assert Access(said).tls_now(variables) == tls


def test_tls_ca_is_short_for_a_ca_beside_what_the_environment_has() -> None:
    environment = {"TASKQ_TLS_CA": "ca.pem", "TASKQ_TLS_CERT": "c", "TASKQ_TLS_KEY": "k"}
    assert Access(tls_ca="mine.pem").tls_now({}) == TLS("mine.pem")
    assert Access(True, tls_ca="mine.pem").tls_now(environment) == TLS("mine.pem", "c", "k")
    for contradiction in (False, TLS()):
        with pytest.raises(ValueError, match="tls and tls_ca are both given"):
            Access(contradiction, tls_ca="mine.pem")


def test_what_contradicts_itself_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="has a cert and no key"):
        TLS(cert="c")
    with pytest.raises(ValueError, match="TASKQ_TLS_CERT and TASKQ_TLS_KEY must be set together"):
        Access().tls_now({"TASKQ_TLS_KEY": "k"})
    with pytest.raises(ValueError, match="TASKQ_TLS is 'maybe'; must be true or false"):
        Access().tls_now({"TASKQ_TLS": "maybe"})


async def test_a_file_that_cannot_be_used_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.signs("one"), authority.signs("other")
    junk = tmp_path / "junk.pem"
    junk.write_bytes(b"\xffjunk")
    for tls, rule in (
        (TLS(tmp_path / "nowhere"), "nowhere cannot be read: No such file or directory"),
        (TLS(junk), "junk.pem cannot be used; must hold the CA's PEM certificate"),
        (TLS(authority.ca, one.cert, other.key), "must be a PEM certificate and its key"),
        (TLS(authority.ca, one.cert, tmp_path / "nowhere"), "nowhere cannot be read"),
    ):
        with pytest.raises(ValueError, match=rule):
            open_channel("127.0.0.1:1", access=Access(tls))
        async with Scheduler("127.0.0.1:1", tls=tls) as scheduler:
            with pytest.raises(ValueError, match=rule):
                await scheduler.enqueue("cook")


def test_the_token_comes_from_code_from_the_environment_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}-of-the-file\n")
    environment = {"TASKQ_TOKEN_FILE": str(file)}
    assert Access().token_now({}) is None
    assert Access().token_now(environment) == f"{TOKEN}-of-the-file"
    environment["TASKQ_TOKEN"] = TOKEN
    with pytest.raises(ValueError, match="TASKQ_TOKEN and TASKQ_TOKEN_FILE are both set"):
        Access().token_now(environment)
    assert Access(token="of-the-code").token_now(environment) == "of-the-code"
    with pytest.raises(ValueError, match="cannot be read"):
        Access().token_now({"TASKQ_TOKEN_FILE": str(tmp_path / "nowhere")})


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "tüte", "\x00"])
def test_what_cannot_be_a_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ValueError, match="must be printable ASCII without a space") as caught:
        Access(token=token).token_now({})
    assert token not in str(caught.value)
    assert token not in repr(Access(token=token))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/tmp/s", "dns:///localhost:1",
                                     "127.0.0.1:1,127.0.0.2:2"])  # fmt: skip
def test_a_token_may_go_in_plaintext_where_it_stays_on_this_machine(address: str) -> None:
    assert is_loopback(address)
    assert check(address, Access(False, token=TOKEN)) == (None, TOKEN)


@pytest.mark.parametrize("address", ["10.0.0.1:1", "queue:1", "dns:///queue:1", "localhost.evil.example:1",
                                     "127.0.0.1:1,10.0.0.1:1", "[::]:1", "127.evil.example:1"])  # fmt: skip
async def test_a_token_never_goes_elsewhere_in_plaintext(address: str) -> None:
    assert not is_loopback(address)
    for opening in (open_channel, open_blocking_channel):
        with pytest.raises(ValueError, match="in plaintext; must go by TLS") as caught:
            opening(address, access=Access(False, token=TOKEN))
        assert TOKEN not in str(caught.value)
    assert check(address.partition(",")[0], Access(True, token=TOKEN)) == (TLS(), TOKEN)


class Witness(health_pb2_grpc.HealthServicer):
    """Remembers what each call carried."""

    def __init__(self) -> None:
        self.tokens: list[Any] = []

    async def Check(self, request: Any, context: Any) -> health_pb2.HealthCheckResponse:
        self.tokens.append(dict(context.invocation_metadata()).get("authorization"))
        return health_pb2.HealthCheckResponse()

    async def Watch(self, request: Any, context: Any) -> Any:
        yield await self.Check(request, context)


async def test_what_goes_in_plaintext_goes_by_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    for name in ("no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(Witness(), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()

    async with open_channel(address, access=Access(False, token=TOKEN)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert await stub.Check(health_pb2.HealthCheckRequest(), timeout=20) is not None
    await server.stop(0)


async def test_every_call_carries_the_token_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = Witness()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(witness, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    file = tmp_path / "token"
    file.write_text("first")
    monkeypatch.setenv("TASKQ_TOKEN_FILE", str(file))

    def check_blocking() -> None:
        with open_blocking_channel(address) as channel:
            health_pb2_grpc.HealthStub(channel).Check(CHECK, timeout=5)

    async with open_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        await stub.Check(CHECK, timeout=5)
        await stub.Watch(CHECK, timeout=5).read()
        await asyncio.to_thread(check_blocking)
        file.write_text("second")
        await stub.Check(CHECK, timeout=5, metadata=(("x", "y"),))
        file.unlink()  # while it is being replaced
        await stub.Check(CHECK, timeout=5)
    monkeypatch.delenv("TASKQ_TOKEN_FILE")
    await asyncio.to_thread(check_blocking)

    await server.stop(0)
    assert witness.tokens == ["Bearer first"] * 3 + ["Bearer second"] * 2 + [None]


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ({"token": "tq_flag", "token_file": None}, {"TASKQ_TOKEN": "tq_flag"}),
        ({"token": None, "token_file": "flag"}, {"TASKQ_TOKEN_FILE": "flag"}),
    ],
)
@pytest.mark.parametrize("variable", ["TASKQ_TOKEN", "TASKQ_TOKEN_FILE"])
def test_a_program_that_is_started_with_the_flag_of_a_token_is_not_told_another(
    flag: dict[str, str | None], told: dict[str, str], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "of-the-environment")
    environment = verb.environment(dict.fromkeys((str(option.name) for option in verb.CONNECTION), None) | flag)
    assert {name: value for name, value in environment.items() if name.startswith("TASKQ_TOKEN")} == told
