"""The same table, where each right is given to a client certificate by its subject alternative name."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import pytest_asyncio
import trustme
from cryptography import x509

from taskq_server.config import Config
from taskq_server.server import Server
from tests.rpc.callers import Certificate, certificate, granted, showing
from tests.rpc.test_auth_table import CALLS, EXPECTED, NOBODY, OK, OPEN_TO_ALL, RIGHTS, UNKNOWN, Gate, leave_operations

pytestmark = pytest.mark.asyncio(loop_scope="module")


def name_of(right: str) -> str:
    return f"spiffe://kitchen.example/{RIGHTS.index(right)}?a=b"


RIGHTS_OF_CERTIFICATES = "# those of the table\n" + "\n".join(f"{name_of(right)} = {right}" for right in RIGHTS)
OTHERS = "dns.example=read; 192.0.2.1=read; cook@mail.example=read; kitchen=process:*"


@dataclass
class Hall(Gate):
    """A gate with TLS; each right has a channel of its own, on which its certificate was shown."""

    certificates: dict[str, grpc.aio.Channel] = field(default_factory=dict)


class Authority:
    """Issues what the server and its callers show."""

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self._server = self._ca.issue_cert("localhost")

    def of_server(self) -> grpc.ServerCredentials:
        pair = self._server.private_key_pem.bytes(), self._server.cert_chain_pems[0].bytes()
        return grpc.ssl_server_credentials([pair], self._ca.cert_pem.bytes(), require_client_auth=True)

    def issue(self, *names: x509.GeneralName) -> Certificate:
        return certificate(self._ca, *names, common_name="spiffe://kitchen.example/8?a=b")

    def channel(self, address: str, *names: x509.GeneralName) -> grpc.aio.Channel:
        """Whose certificate has these names; and a common name, which is nobody's."""
        shown = self.issue(*names)
        credentials = grpc.ssl_channel_credentials(self._ca.cert_pem.bytes(), shown.key, shown.chain)
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(address.replace("127.0.0.1", "localhost"), credentials, options)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hall(module_database_url: str, authority: Authority) -> AsyncIterator[Hall]:
    rights = f"{RIGHTS_OF_CERTIFICATES}\n{OTHERS}"
    config = Config(
        listen="127.0.0.1:0",
        http_listen="",
        database_url=module_database_url,
        stop_grace=1,
        auth="required",
        cert_rights=rights,
    )
    server = Server(config)
    with pytest.MonkeyPatch.context() as patched:

        def secure(self: Any, address: str) -> int:
            return self.add_secure_port(address, authority.of_server())  # type: ignore[no-any-return]

        patched.setattr(grpc.aio._server.Server, "add_insecure_port", secure)
        await server.start()
    leave_operations(server)
    async with AsyncExitStack() as stack:

        async def channel(*names: x509.GeneralName) -> grpc.aio.Channel:
            return await stack.enter_async_context(authority.channel(server.address, *names))

        certificates = {right: await channel(x509.UniformResourceIdentifier(name_of(right))) for right in RIGHTS}
        shown = {right: showing(await granted(server, name_of("process:*"), right)) for right in ("admin", "process:*")}
        hall = Hall(server, await channel(), shown, certificates)
        hall.certificates["no name"] = hall.channel
        hall.certificates["other name"] = await channel(x509.UniformResourceIdentifier("spiffe://kitchen.example/"))
        yield hall
    await server.stop()


@pytest.fixture(autouse=True)
def _forgiving(hall: Hall) -> None:
    hall.server.access._failures._counts.clear()


OF_NO_SESSION = {"StreamTasks": UNKNOWN, "Heartbeat": OK, "ReportResult": OK, "Unregister": OK}
"""How calls end whose session is another's, or none."""


@pytest.mark.parametrize("right", RIGHTS)
@pytest.mark.parametrize("name", CALLS)
async def test_a_call_with_a_certificate_that_has_one_right(hall: Hall, name: str, right: str) -> None:
    channel = hall.certificates[right]
    request = await hall.request(name)
    if hasattr(request, "session_id"):  # each certificate is another principal: whose session it is
        capabilities_of = await hall.request("Register")
        owner = right if right in ("process:cook", "admin") else "process:*"
        _, registered = await hall.call("Register", capabilities_of, (), hall.certificates[owner])
        request.session_id = registered.session_id
    code, answer = await hall.call(name, request, (), channel)
    expected = EXPECTED[name, right]
    if right == "process:bake":  # it cannot have a session that cooks
        expected = OF_NO_SESSION.get(name, expected)
    assert code is expected, answer


@pytest.mark.parametrize("kind", ["no name", "other name"])
@pytest.mark.parametrize("name", CALLS)
async def test_a_certificate_without_rights_lets_nobody_in_whatever_its_common_name(
    hall: Hall, name: str, kind: str
) -> None:
    code, answer = await hall.call(name, await hall.request(name), (), hall.certificates[kind])
    assert code is (EXPECTED[name, "admin"] if name in OPEN_TO_ALL else NOBODY), answer


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("dns.example"),
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
        x509.RFC822Name("cook@mail.example"),
    ],
    ids=lambda name: type(name).__name__,
)
async def test_a_name_may_be_of_any_kind_and_the_first_one_with_rights_counts(
    hall: Hall, authority: Authority, name: x509.GeneralName
) -> None:
    async with authority.channel(hall.server.address, x509.DNSName("unknown.example"), name) as channel:
        code, answer = await hall.call("ListProcessors", await hall.request("ListProcessors"), (), channel)
    assert code is OK, answer


async def test_a_token_that_is_shown_decides_whatever_the_certificate(hall: Hall) -> None:
    request, admin = await hall.request("ListProcessors"), hall.certificates["admin"]
    code, _ = await hall.call("ListProcessors", request, showing("garbage"), admin)
    assert code is NOBODY
    code, _ = await hall.call("ListProcessors", request, hall.shown["admin"], hall.certificates["no name"])
    assert code is OK
