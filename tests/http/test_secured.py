"""HTTP where callers must show who they are, and by TLS."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import socket
import ssl
import urllib.error
import urllib.request
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from taskq_server.settings import WrongSettings, load
from tests.conftest import StartServer
from tests.http.conftest import Site, fetch
from tests.rpc.callers import granted
from tests.support.authority import HOUR, Authority, Pair


async def test_metrics_are_for_those_who_may_read_and_probes_for_all(start_server: StartServer) -> None:
    site = Site(start_server)
    await site.begin(http_listen="127.0.0.1:0", auth="required")
    shown = {right: await granted(site.server, "somebody", right) for right in ("read", "admin", "enqueue:*")}

    async def status(path: str, **headers: str) -> int:
        return (await site.fetch(path, **headers)).status

    assert await status("/livez") == await status("/readyz") == 200
    assert await status("/metrics") == 401
    assert await status("/metrics", authorization="Bearer tq_nonsense") == 401
    assert await status("/metrics", authorization=f"Basic {shown['read']}") == 401
    assert await status("/metrics", authorization=f"Bearer {shown['enqueue:*']}") == 403
    assert await status("/metrics", authorization=f"Bearer {shown['read']}") == 200
    assert await status("/metrics", authorization=f"bearer {shown['admin']}") == 200
    assert "read" in (await site.fetch("/metrics", authorization=f"Bearer {shown['enqueue:*']}")).text
    await site.end()


async def test_who_fails_too_often_is_no_longer_told_why(start_server: StartServer) -> None:
    site = Site(start_server)
    await site.begin(http_listen="127.0.0.1:0", auth="required")
    statuses = [(await site.fetch("/metrics")).status for _ in range(62)]
    assert (statuses[0], statuses[-1]) == (401, 429)
    read = await granted(site.server, "somebody", "read")
    assert (await site.fetch("/metrics", authorization=f"Bearer {read}")).status == 200
    await site.end()


@dataclass(frozen=True)
class Secured:
    """What was answered over TLS, and the certificate that was shown."""

    status: int
    text: str
    shown: bytes


def https(address: str, path: str, authority: Authority) -> Secured:
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=authority.ca)
    with contextlib.closing(http.client.HTTPSConnection(host, int(port), context=context, timeout=20)) as connection:
        connection.request("GET", path)
        assert isinstance(connection.sock, ssl.SSLSocket)
        shown = hashlib.sha256(connection.sock.getpeercert(binary_form=True) or b"").digest()
        answer = connection.getresponse()
        return Secured(answer.status, answer.read().decode(), shown)


def end_of(pair: Pair) -> float:
    return x509.load_pem_x509_certificate(Path(pair.cert).read_bytes()).not_valid_after_utc.timestamp()


async def test_http_shows_the_certificate_of_grpc_and_follows_its_files(
    start_server: StartServer, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    pair = authority.signs("server")
    server = await start_server(http_listen="127.0.0.1:0", tls_cert=pair.cert, tls_key=pair.key)

    async def fetch_safely(path: str) -> Secured:
        return await asyncio.to_thread(https, server.http_address, path, authority)

    first = await fetch_safely("/livez")
    assert (first.status, first.shown) == (200, pair.fingerprint)

    # when the files are exchanged, who connects next is shown the new one
    new = authority.signs("new", ends_in=48 * HOUR)
    new.put_in_place_of(pair)
    second = await fetch_safely("/metrics")
    assert (second.status, second.shown) == (200, new.fingerprint)
    ends = end_of(new)
    metric = next(line for line in second.text.splitlines() if line.startswith("taskq_tls_certificate_expiry"))
    assert float(metric.split()[1]) == ends

    # and one that cannot be used leaves it in use
    await asyncio.to_thread(Path(pair.key).write_text, "half a ke")
    assert (await fetch_safely("/livez")).shown == new.fingerprint


async def test_https_speaks_no_plaintext_and_no_old_tls(start_server: StartServer, tmp_path: Path) -> None:
    pair = Authority(tmp_path).signs("server")
    server = await start_server(http_listen="127.0.0.1:0", tls_cert=pair.cert, tls_key=pair.key)
    host, _, port = server.http_address.rpartition(":")

    def shake_hands() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection((host, int(port)), 20) as raw, context.wrap_socket(raw):
            pass

    with pytest.raises(OSError):
        await asyncio.to_thread(fetch, f"http://{server.http_address}/livez")
    with pytest.raises(ssl.SSLError):
        await asyncio.to_thread(shake_hands)


def test_beyond_loopback_http_needs_tls_and_then_callers_are_asked_who_they_are() -> None:
    with pytest.raises(WrongSettings, match=r"TASKQ_HTTP_LISTEN .*must be a loopback address while there is no TLS"):
        load(["--http-listen=0.0.0.0:8080"], {})

    secured = load(["--http-listen=0.0.0.0:8080", "--tls-cert=c", "--tls-key=k"], {})
    mutual = ["--http-listen=", "--tls-cert=c", "--tls-key=k", "--tls-client-ca=a", "--tls-client-auth=require"]
    assert load([*mutual, "--cert-rights=x=read"], {}).auth_required
    assert not load(mutual, {}).auth_required

    assert secured.auth_required
    assert not load(["--http-listen=", "--tls-cert=c", "--tls-key=k"], {}).auth_required


async def test_calls_are_made_by_tls_with_a_token(start_server: StartServer, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.signs("server")
    server = await start_server(http_listen="127.0.0.1:0", tls_cert=pair.cert, tls_key=pair.key, auth="required")
    token = await granted(server, "kitchen", "enqueue:kitchen.*")
    context = ssl.create_default_context(cafile=authority.ca)

    def enqueue(name: str) -> tuple[int, str]:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        body = json.dumps({"tasks": [{"name": name}]}).encode()
        request = urllib.request.Request(f"https://{server.http_address}/v1/tasks", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=20, context=context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()

    status, told = await asyncio.to_thread(enqueue, "kitchen.cook")
    assert (status, json.loads(told)["results"][0]["outcome"]) == (200, "ENQUEUE_OUTCOME_CREATED")
    status, told = await asyncio.to_thread(enqueue, "cellar.fetch")
    assert status == 403
    assert "tasks[0].name must be covered by the right: enqueue:cellar.fetch" in told
    assert token not in told


async def test_where_a_certificate_alone_lets_callers_in_http_answers_no_calls(
    start_server: StartServer, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    pair = authority.signs("server")
    mutual = {"tls_client_ca": authority.ca, "tls_client_auth": "require"}
    server = await start_server(http_listen="127.0.0.1:0", tls_cert=pair.cert, tls_key=pair.key, **mutual)

    async def status(path: str) -> int:
        return (await asyncio.to_thread(https, server.http_address, path, authority)).status

    assert [await status(path) for path in ("/livez", "/v1/serverInfo", "/openapi.json")] == [200, 404, 404]
