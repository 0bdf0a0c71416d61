"""HTTP by TLS where no temporary file can be written, as in a container with --read-only and without a tmpfs."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from taskq_server.certificates import Certificates
from taskq_server.clock import ManualClock
from taskq_server.core.errors import CertificateRefused
from taskq_server.http.tls import server_context
from tests.conftest import StartServer
from tests.support.authority import Authority, Pair
from tests.support.process import ROOT

MAIN = """
import sys, tempfile
from taskq_server.__main__ import main
tempfile.tempdir = "/no/such/folder"
sys.exit(main())
"""


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Authority(tmp_path).signs("server")


@pytest.fixture
def no_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    return tmp_path / "nowhere"


def test_the_server_ends_with_one_sentence_that_names_the_remedy(pair: Pair, tmp_path: Path) -> None:
    settings = {"TASKQ_DATABASE_URL": f"sqlite:///{tmp_path}/taskq.db", "TASKQ_LISTEN": "127.0.0.1:0"}
    settings |= {"TASKQ_TLS_CERT": pair.cert, "TASKQ_TLS_KEY": pair.key, "TASKQ_HTTP_LISTEN": "127.0.0.1:0"}
    ended = subprocess.run(
        [sys.executable, "-c", MAIN],
        cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.startswith("taskq server: TMPDIR must name a folder that the server can write to")
    assert "/no/such/folder" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, "no traceback"


async def test_the_database_is_free_for_the_next_start(
    start_server: StartServer, pair: Pair, no_temporary_folder: Path
) -> None:
    with pytest.raises(CertificateRefused, match="TMPDIR"):
        await start_server(http_listen="127.0.0.1:0", tls_cert=pair.cert, tls_key=pair.key)
    no_temporary_folder.mkdir()  # noqa: ASYNC240 - nobody waits for it
    server = await start_server(http_listen="127.0.0.1:0", tls_cert=pair.cert, tls_key=pair.key)
    assert server.http_address


async def test_without_http_none_is_needed(start_server: StartServer, pair: Pair, no_temporary_folder: Path) -> None:
    assert (await start_server(tls_cert=pair.cert, tls_key=pair.key)).address


def test_a_new_certificate_that_cannot_be_handed_over_leaves_the_old_one_in_use_and_the_log_says_why(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = server_context(Certificates(pair.cert, pair.key))
    Authority(tmp_path, "another").signs("another").put_in_place_of(pair)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    connection = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    with capture_logs() as logs:
        assert context.sni_callback is not None
        context.sni_callback(connection, None, context)
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert "the old one stays in use" in line["event"] and "TMPDIR" in line["why"]


def shown_by(context: ssl.SSLContext) -> bytes:
    """The fingerprint of the certificate that a client is shown, which may not trust it."""
    at_client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    at_client.check_hostname, at_client.verify_mode = False, ssl.CERT_NONE
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = at_client.wrap_bio(down, up), context.wrap_bio(up, down, server_side=True)
    for end in (client, server, client):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return hashlib.sha256(client.getpeercert(binary_form=True) or b"").digest()


def test_a_new_certificate_that_could_not_be_handed_over_is_shown_as_soon_as_it_can_be(
    pair: Pair, tmp_path: Path, no_temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    no_temporary_folder.mkdir()
    context = server_context(Certificates(pair.cert, pair.key), clock)
    old = pair.fingerprint
    new = Authority(tmp_path, "another").signs("another")
    new.put_in_place_of(pair)
    no_temporary_folder.rmdir()
    with capture_logs() as logs:
        assert shown_by(context) == old
        clock.advance(1)
        assert shown_by(context) == old
        no_temporary_folder.mkdir()
        assert shown_by(context) == old, "it is not tried at every handshake"
        clock.advance(1)
        assert shown_by(context) == new.fingerprint
    assert len([line for line in logs if line["log_level"] == "error"]) == 1, "it is said once"


def test_what_is_no_fault_of_the_folder_is_not_blamed_on_it(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> str:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(tempfile, "mkdtemp", fails)
    with pytest.raises(CertificateRefused, match="Too many open files") as refused:
        server_context(Certificates(pair.cert, pair.key))
    assert "TMPDIR" not in str(refused.value)


def test_a_new_certificate_that_openssl_will_not_show_is_not_tried_again(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, tried = ManualClock(), 0
    context = server_context(Certificates(pair.cert, pair.key), clock)
    old = pair.fingerprint
    Authority(tmp_path, "another").signs("another").put_in_place_of(pair)

    def refuses(*_: object) -> None:
        nonlocal tried
        tried += 1
        raise ssl.SSLError(1, "too weak a key")

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", refuses)
    for _ in range(3):
        assert shown_by(context) == old
        clock.advance(2)
    assert tried == 1
