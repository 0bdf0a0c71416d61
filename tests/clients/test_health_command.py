"""`taskq health`: one line, and the exit codes of grpc_health_probe."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result

from admin_client.command import main
from taskq_server.server import Server
from tests.conftest import StartServer
from tests.support.authority import Authority

SERVING, WRONG_ARGUMENTS, NOT_CONNECTED, CALL_FAILED, NOT_SERVING = range(5)
PATIENT = ("--connect-timeout=20s", "--rpc-timeout=20s")


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner(env={f"TASKQ_{name}": value for name, value in environment.items()}).invoke(
        main, ["health", *arguments]
    )


async def health(*arguments: str, **environment: str) -> Result:
    """Of a server in this process, with patience for a busy machine."""
    return await asyncio.to_thread(run, *PATIENT, *arguments, **environment)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def silent_address() -> Iterator[str]:
    """Where somebody takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


# ── 0: it serves ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("service", ["", "taskq.readiness", "taskq.v1.SchedulerService"])
async def test_a_server_that_serves_is_0(server: Server, service: str) -> None:
    answer = await health(service, "--address", server.address)
    assert (answer.exit_code, answer.stdout, answer.stderr) == (SERVING, "SERVING\n", "")


async def test_the_address_is_found_as_clients_find_it_and_a_flag_wins(server: Server, silent_address: str) -> None:
    assert (await health(ADDRESS=server.address)).exit_code == SERVING
    assert (await health("--address", server.address, ADDRESS=silent_address)).exit_code == SERVING


async def test_a_probe_needs_no_credential_where_callers_must_show_one(start_server: StartServer) -> None:
    server = await start_server(auth="required")
    assert (await health("--address", server.address)).exit_code == SERVING


async def test_by_tls_with_the_ca_from_a_flag_or_from_the_environment(
    start_server: StartServer, authority: Authority
) -> None:
    pair = authority.signs("server")
    server = await start_server(tls_cert=pair.cert, tls_key=pair.key)
    address = ("--address", server.address)
    assert (await health(*address, "--tls-ca", authority.ca)).exit_code == SERVING
    assert (await health(*address, TLS_CA=authority.ca)).exit_code == SERVING
    assert (await health(*address, "--tls-ca", authority.ca, TLS="false", TLS_CA="nowhere.pem")).exit_code == SERVING


async def test_with_a_certificate_where_the_server_requires_one(
    start_server: StartServer, authority: Authority
) -> None:
    pair = authority.signs("server", hosts=["queue.example"])
    server = await start_server(
        tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=authority.ca, tls_client_auth="require"
    )
    mine = authority.signs("probe")
    shown = ("--tls-ca", authority.ca, "--tls-cert", mine.cert, "--tls-key", mine.key)
    answer = await health("--address", server.address, *shown, "--tls-server-name", "queue.example")
    assert (answer.exit_code, answer.stdout) == (SERVING, "SERVING\n")


# ── 1: wrong arguments ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--colour"], "No such option"),
        (["one", "two"], "unexpected extra argument"),
        (["--connect-timeout", "soon"], "must be a number and one of us, ms, s, m, h, d"),
        (["--rpc-timeout", "0s"], "must be more than nothing"),
        (["--plaintext", "--tls-ca", "ca.pem"], "--plaintext and --tls-… are both given"),
        (["--tls-ca", "nowhere.pem"], "nowhere.pem cannot be read"),
        (["--tls-cert", "mine.pem"], "TASKQ_TLS_CERT and TASKQ_TLS_KEY must be set together"),
        (["--address", "one:1,two:2"], "must be IP addresses of one version"),
    ],
)
def test_arguments_that_make_no_sense_are_1(arguments: list[str], said: str) -> None:
    answer = run(*arguments)
    assert answer.exit_code == WRONG_ARGUMENTS
    assert said in answer.stderr and answer.stdout == ""


# ── 2: no connection ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_where_nobody_listens_is_2() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{held.getsockname()[1]}"
        answer = run("--address", address, "--connect-timeout", "300ms")
    assert answer.exit_code == NOT_CONNECTED
    assert answer.stderr == f"taskq health: no connection to {address} within 0.3 s\n"


def test_a_server_that_is_silent_is_2(silent_address: str) -> None:
    answer = run("--address", silent_address, "--connect-timeout", "300ms")
    assert answer.exit_code == NOT_CONNECTED and "within 0.3 s" in answer.stderr


async def test_a_handshake_that_does_not_agree_is_2_and_says_what_to_set(
    start_server: StartServer, authority: Authority
) -> None:
    pair = authority.signs("server")
    server = await start_server(tls_cert=pair.cert, tls_key=pair.key)
    answer = await asyncio.to_thread(run, "--address", server.address, "--connect-timeout", "500ms")
    assert answer.exit_code == NOT_CONNECTED and "speaks TLS, and this client plaintext" in answer.stderr


# ── 3: the call failed ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_service_that_the_server_does_not_know_is_3(server: Server) -> None:
    answer = await health("kitchen", "--address", server.address)
    assert answer.exit_code == CALL_FAILED and answer.stderr.startswith("taskq health: NOT_FOUND: ")


async def test_a_server_without_the_health_service_is_3() -> None:
    bare = grpc.aio.server()
    port = bare.add_insecure_port("127.0.0.1:0")
    await bare.start()
    answer = await health("--address", f"127.0.0.1:{port}")
    await bare.stop(0)
    assert answer.exit_code == CALL_FAILED and "UNIMPLEMENTED" in answer.stderr


async def test_a_server_that_does_not_answer_in_time_is_3() -> None:
    async def never(request: bytes, context: object) -> bytes:
        await asyncio.Event().wait()
        return b""

    class Silent(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
            return grpc.unary_unary_rpc_method_handler(never)

    slow = grpc.aio.server()
    slow.add_generic_rpc_handlers([Silent()])
    port = slow.add_insecure_port("127.0.0.1:0")
    await slow.start()
    answer = await health("--address", f"127.0.0.1:{port}", "--rpc-timeout=300ms")
    await slow.stop(0)
    assert answer.exit_code == CALL_FAILED and "DEADLINE_EXCEEDED" in answer.stderr


# ── 4: it does not serve ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_server_that_is_there_and_not_ready_is_4(server: Server) -> None:
    await server.readiness.stop()
    for service in ("", "taskq.readiness"):
        answer = await health(service, "--address", server.address)
        assert (answer.exit_code, answer.stdout, answer.stderr) == (NOT_SERVING, "NOT_SERVING\n", "")


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_help_tells_the_exit_codes() -> None:
    answer = run("--help")
    assert answer.exit_code == 0
    for words in ("0 it serves", "1 wrong arguments", "2 it cannot be reached", "3 the call failed", "4 it does not"):
        assert words in " ".join(answer.stdout.split())


def test_it_carries_no_server_with_it() -> None:
    program = "import sys, admin_client.health; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in ended.stdout.split()}
    assert "grpc_health" in loaded
    assert not loaded & {"taskq_server", "sqlalchemy", "pydantic", "structlog", "cryptography"}
