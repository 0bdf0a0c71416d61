"""The server's certificates: what is refused at the start, and what a change of the files does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from structlog.testing import capture_logs

from taskq_server.certificates import Certificates
from taskq_server.core.errors import CertificateRefused
from tests.support.authority import HOUR, Authority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.signs("server")


def refusal_of(cert: str, key: str, client_ca: str | None = None) -> str:
    with pytest.raises(CertificateRefused) as caught:
        Certificates(cert, key, client_ca)
    assert str(caught.value).startswith(f"{caught.value.setting} must ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_can_be_used_is_in_use_until_its_first_certificate_ends(authority: Authority) -> None:
    short, long = authority.signs("short", ends_in=HOUR), authority.signs("long", ends_in=2 * HOUR)
    chain = Path(long.cert)
    chain.write_bytes(chain.read_bytes() + Path(short.cert).read_bytes())
    certificates = Certificates(long.cert, long.key, authority.ca)
    assert certificates.current.chain == chain.read_bytes()
    assert certificates.current.key == Path(long.key).read_bytes()
    assert certificates.current.client_ca == Path(authority.ca).read_bytes()
    assert certificates.expire_time == Certificates(short.cert, short.key).expire_time
    assert certificates.fault is None


@pytest.mark.parametrize("make", [
    lambda: ec.generate_private_key(ec.SECP384R1()),
    lambda: rsa.generate_private_key(65537, 2048),
])  # fmt: skip
def test_keys_of_the_usual_kinds_can_be_used(authority: Authority, make: Callable[[], object]) -> None:
    pair = authority.signs("server", key=make())
    assert Certificates(pair.cert, pair.key).fault is None


@pytest.mark.parametrize("make", [
    ed25519.Ed25519PrivateKey.generate,
    lambda: ec.generate_private_key(ec.SECP521R1()),
    lambda: rsa.generate_private_key(65537, 1024),
])  # fmt: skip
def test_a_key_with_which_every_handshake_would_fail_is_refused(
    authority: Authority, make: Callable[[], object]
) -> None:
    pair = authority.signs("server", key=make())
    rule = "TASKQ_TLS_KEY must be an RSA key of at least 2,048 bits, or an EC key on P-256 or P-384"
    assert rule in refusal_of(pair.cert, pair.key)


def test_a_file_that_cannot_be_read_is_named_with_its_setting(pair: Pair, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    rule = f"must be a readable file; No such file or directory at {nowhere}"
    assert refusal_of(nowhere, pair.key) == f"TASKQ_TLS_CERT {rule}"
    assert refusal_of(pair.cert, nowhere) == f"TASKQ_TLS_KEY {rule}"
    assert refusal_of(pair.cert, pair.key, nowhere) == f"TASKQ_TLS_CLIENT_CA {rule}"


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_file_that_does_not_hold_what_it_should_is_refused(pair: Pair, tmp_path: Path, content: bytes) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(content)
    wrong.chmod(0o600)
    assert refusal_of(str(wrong), pair.key).startswith("TASKQ_TLS_CERT must hold PEM certificates")
    assert refusal_of(pair.cert, str(wrong)).startswith("TASKQ_TLS_KEY must hold one PEM private key")
    assert refusal_of(pair.cert, pair.key, str(wrong)).startswith("TASKQ_TLS_CLIENT_CA must hold PEM certificates")


def test_a_key_with_a_passphrase_or_of_another_certificate_is_refused(authority: Authority, pair: Pair) -> None:
    locked = authority.signs("locked", password=b"open sesame")
    assert "without a passphrase" in refusal_of(locked.cert, locked.key)
    assert "must be the key of the certificate in TASKQ_TLS_CERT" in refusal_of(pair.cert, authority.signs("b").key)


def test_a_certificate_out_of_its_time_is_refused(authority: Authority) -> None:
    old = authority.signs("old", begins_in=-2 * HOUR, ends_in=-timedelta(minutes=1))
    early = authority.signs("early", begins_in=HOUR, ends_in=2 * HOUR)
    assert "TASKQ_TLS_CERT must not have expired" in refusal_of(old.cert, old.key)
    assert "TASKQ_TLS_CERT must be valid already" in refusal_of(early.cert, early.key)


def test_a_key_that_everybody_can_read_is_warned_of(pair: Pair) -> None:
    with capture_logs() as logs:
        Certificates(pair.cert, pair.key)
    assert not logs
    Path(pair.key).chmod(0o604)
    with capture_logs() as logs:
        Certificates(pair.cert, pair.key)
    assert [(each["log_level"], each["path"]) for each in logs] == [("warning", pair.key)]


def test_new_files_are_taken_over_at_the_next_look(authority: Authority, pair: Pair) -> None:
    certificates = Certificates(pair.cert, pair.key)
    before = certificates.current
    assert certificates.look() is before

    authority.signs("new", ends_in=3 * HOUR).put_in_place_of(pair)
    after = certificates.look()

    assert after is certificates.current is not before
    assert after.chain == Path(pair.cert).read_bytes()
    assert certificates.look() is after


@pytest.mark.parametrize("break_it", [
    lambda pair: Path(pair.cert).unlink(),
    lambda pair: Path(pair.cert).write_text("half a certifi"),
    lambda pair: Path(pair.key).write_text(""),
])  # fmt: skip
def test_a_broken_new_file_keeps_the_old_one_and_is_reported_once(
    authority: Authority, pair: Pair, break_it: Callable[[Pair], None]
) -> None:
    certificates = Certificates(pair.cert, pair.key)
    before = certificates.current

    break_it(pair)
    with capture_logs() as logs:
        for _ in range(4):
            certificates.tick()

    assert certificates.current is before
    assert certificates.fault is not None and certificates.fault.startswith("TASKQ_TLS_")
    assert [each["log_level"] for each in logs] == ["error"]
    assert logs[0]["fault"] == certificates.fault

    # once mended it is in use, and a next fault is reported again
    authority.signs("new").put_in_place_of(pair)
    certificates.tick()
    assert certificates.fault is None and certificates.current is not before
    break_it(pair)
    with capture_logs() as logs:
        certificates.tick()
        certificates.tick()
    assert [each["log_level"] for each in logs] == ["error"]


def test_whatever_stands_in_new_files_the_old_ones_stay_in_use(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates = Certificates(pair.cert, pair.key)
    before = certificates.current

    def fail(*_: object, **__: object) -> None:
        raise UnsupportedAlgorithm("a key of a kind that nobody knows")

    monkeypatch.setattr("taskq_server.certificates.load_pem_private_key", fail)
    Path(pair.key).write_text("of another kind")
    certificates.tick()
    assert certificates.current is before
    assert certificates.fault is not None and "TASKQ_TLS_KEY" in certificates.fault

    monkeypatch.setattr("taskq_server.certificates._certificates", lambda pem: 1 / 0)
    Path(pair.cert).write_text("and what nobody has thought of")
    certificates.tick()
    assert certificates.current is before
    assert certificates.fault is not None


def test_between_the_two_files_of_a_rotation_nothing_is_reported(authority: Authority, pair: Pair) -> None:
    certificates = Certificates(pair.cert, pair.key)
    new = authority.signs("new")
    with capture_logs() as logs:
        Path(pair.cert).write_bytes(Path(new.cert).read_bytes())
        certificates.tick()
        assert certificates.fault is not None
        Path(pair.key).write_bytes(Path(new.key).read_bytes())
        certificates.tick()
    assert [each["event"] for each in logs] == ["new certificates are in use"]
