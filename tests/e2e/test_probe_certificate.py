"""The probe's certificate lies in every container of a server: it opens nothing but health."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from click.testing import CliRunner

from admin_client import certificates
from admin_client.command import main
from client_core.access import TLS
from taskq_server.core.rights import Need
from taskq_server.rpc.auth import NEEDS
from taskq_server.server import Server
from tests.conftest import StartServer
from tests.packaging.machines import COMPOSE, DOCKER

RIGHTS = {
    "compose": COMPOSE["services"]["server"]["environment"]["TASKQ_CERT_RIGHTS"],
    "swarm and kubernetes": (DOCKER / "kubernetes" / "rights").read_text(),
}
OPEN = {method for method, need in NEEDS.items() if need is Need.NOTHING}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `taskq certs init` writes."""
    certificates.write(tmp_path / "certs", certificates.make()[0])
    return tmp_path / "certs"


@pytest_asyncio.fixture(params=RIGHTS)
async def server(request: pytest.FixtureRequest, start_server: StartServer, folder: Path) -> Server:
    """As docker/ sets it: clients must show a certificate, and these are the rights of those that there are."""
    files = {"tls_cert": "server.pem", "tls_key": "server.key", "tls_client_ca": "ca.pem"}
    return await start_server(
        **{setting: str(folder / name) for setting, name in files.items()},
        tls_client_auth="require",
        auth="required",
        cert_rights=RIGHTS[request.param],
    )


def shown(folder: Path, role: str) -> TLS:
    return TLS(folder / "ca.pem", folder / f"{role}.pem", folder / f"{role}.key")


async def test_it_is_told_whether_the_server_serves(server: Server, folder: Path) -> None:
    flags = [f"--tls-ca={folder}/ca.pem", f"--tls-cert={folder}/probe.pem", f"--tls-key={folder}/probe.key"]
    patient = ["--connect-timeout=20s", "--rpc-timeout=20s"]
    command = ["health", f"--address={server.address}", *flags, *patient]
    answer = await asyncio.to_thread(CliRunner().invoke, main, command)
    assert (answer.exit_code, answer.output) == (0, "SERVING\n")


async def code_of(channel: grpc.aio.Channel, method: str) -> grpc.StatusCode:
    """How a call with an empty request ends."""
    call = channel.unary_unary(method)(b"", timeout=20)
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_it_is_refused_whatever_else_it_asks_for(server: Server, folder: Path) -> None:
    async with grpc.aio.secure_channel(server.address, shown(folder, "probe").credentials()) as channel:
        codes = {method: await code_of(channel, method) for method in NEEDS.keys() - OPEN}
    assert codes == dict.fromkeys(NEEDS.keys() - OPEN, grpc.StatusCode.UNAUTHENTICATED)


async def test_a_certificate_with_rights_is_let_in(server: Server, folder: Path) -> None:
    async with grpc.aio.secure_channel(server.address, shown(folder, "admin").credentials()) as channel:
        assert await code_of(channel, "/taskq.v1.AdminService/GetServerInfo") is grpc.StatusCode.OK
