"""`taskq certs init`: a CA and a certificate for each role."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from admin_client import certificates
from admin_client.command import main
from client_core.access import TLS
from taskq_server.certificates import Certificates

ROLES = ["server", "scheduler", "processor", "admin", "probe"]
YEAR = timedelta(days=365)
FILES = {f"{name}.{kind}" for name in ["ca", *ROLES] for kind in ("pem", "key")}


def init(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["certs", "init", *arguments])
    return result.exit_code, result.output


def names_in(path: Path) -> list[str]:
    extensions = x509.load_pem_x509_certificate(path.read_bytes()).extensions
    return [str(name.value) for name in extensions.get_extension_for_class(x509.SubjectAlternativeName).value]


def test_it_makes_what_a_server_and_its_clients_need_and_says_how_to_use_it(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    code, said = init(str(folder), "--host", "queue.lan", "--host", "10.0.0.7")
    assert code == 0, said

    assert {path.name for path in folder.iterdir()} == FILES
    here = ["localhost", "127.0.0.1", "::1", "queue.lan", "10.0.0.7"]
    assert names_in(folder / "server.pem") == [*here, "taskq:server/dev"]
    Certificates(*(str(folder / name) for name in ("server.pem", "server.key", "ca.pem")))
    for role in ROLES[1:]:
        assert names_in(folder / f"{role}.pem") == [f"taskq:{role}/dev"]
        TLS(folder / "ca.pem", folder / f"{role}.pem", folder / f"{role}.key").context()
        assert f"{role}: TASKQ_TLS_CA={folder}/ca.pem TASKQ_TLS_CERT={folder}/{role}.pem" in said
    assert "TASKQ_TLS_CLIENT_AUTH=require" in said


def test_only_the_owner_can_read_the_keys(tmp_path: Path) -> None:
    init(str(tmp_path))
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("*.key")} == {0o600}


def test_nothing_is_overwritten_unless_asked_for(tmp_path: Path) -> None:
    init(str(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    code, said = init(str(tmp_path))
    assert code == 2 and "ca.pem" in said and "--force" in said
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    code, _ = init(str(tmp_path), "--force")
    assert code == 0
    assert all((tmp_path / name).read_bytes() != content for name, content in before.items())
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_where_a_ca_is_with_its_key_only_what_is_missing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder of a version that knew fewer roles: its certificates go on to be good."""
    init(str(tmp_path))
    for name in ("probe.pem", "probe.key", "server.pem", "server.key", "admin.key"):
        (tmp_path / name).unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(certificates, "LIFE", certificates.LIFE * 2)

    code, said = init(str(tmp_path), "--host", "queue.lan")
    assert code == 0, said
    made = "server.pem, server.key, probe.pem, probe.key"
    assert f"{made} in {tmp_path}, signed by the CA there; all else is as it was" in said
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == set(made.split(", "))
    assert "queue.lan" in names_in(tmp_path / "server.pem")
    assert check(str(tmp_path))[0] == 0
    ends = {x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc for path in tmp_path.glob("*.pem")}
    assert max(ends) == x509.load_pem_x509_certificate(before["ca.pem"]).not_valid_after_utc

    assert init(str(tmp_path))[0] == 2, "nothing is missing, but half of a pair, which is somebody's"


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("ca.pem", b"nonsense", "must be as this command makes it"),
        ("ca.key", b"nonsense", "must be as this command makes it"),
        ("ca.key", None, "ca.key is not the key of ca.pem"),
    ],
)
def test_by_a_ca_that_cannot_sign_nothing_is_made(tmp_path: Path, name: str, content: bytes | None, rule: str) -> None:
    init(str(tmp_path))
    (tmp_path / name).write_bytes(content or (tmp_path / "server.key").read_bytes())
    (tmp_path / "probe.pem").unlink(), (tmp_path / "probe.key").unlink()
    code, said = init(str(tmp_path))
    assert code == 2 and rule in said and "--force" in said
    assert not (tmp_path / "probe.pem").exists()


def test_a_ca_that_has_expired_or_has_no_key_signs_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as then:
        then.setattr(certificates, "LIFE", timedelta(minutes=-1))
        init(str(tmp_path))
    (tmp_path / "probe.pem").unlink(), (tmp_path / "probe.key").unlink()
    code, said = init(str(tmp_path))
    assert code == 2 and "has expired, and can sign nothing more" in said

    (tmp_path / "ca.key").unlink()
    code, said = init(str(tmp_path))
    assert code == 2 and f"{tmp_path} has ca.pem, " in said


@pytest.mark.parametrize("host", ["", "queue:50051", "a b", "küche", "http://queue"])
def test_what_is_no_host_is_refused_and_nothing_is_written(tmp_path: Path, host: str) -> None:
    code, said = init(str(tmp_path / "certs"), "--host", host)
    assert code == 2 and "must be a host name or an IP address, without a port" in said
    assert not (tmp_path / "certs").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, said = init(str(tmp_path / "file" / "certs"))
    assert code == 1 and "file/certs" in said


# ── check ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def check(*arguments: str) -> tuple[int, dict[str, list[str]], str]:
    """The exit code, the faults of each file, and what is said."""
    result = CliRunner().invoke(main, ["certs", "check", "-o", "jsonl", *arguments])
    told = [json.loads(line) for line in result.stdout.splitlines()]
    return result.exit_code, {Path(one["file"]).name: one["faults"] for one in told}, result.stderr


def test_what_was_made_is_well(tmp_path: Path) -> None:
    init(str(tmp_path))
    assert check(str(tmp_path)) == (0, {f"{name}.pem": [] for name in ["ca", *ROLES]}, "")


def test_it_tells_to_whom_and_until_when(tmp_path: Path) -> None:
    init(str(tmp_path), "--host", "queue.lan")
    result = CliRunner().invoke(main, ["certs", "check", str(tmp_path / "server.pem"), "-o", "table"])
    until = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes()).not_valid_after_utc
    title, line = result.stdout.splitlines()
    assert title.split() == ["FILE", "UNTIL", "MADE", "OUT", "TO"]
    assert f"{until:%Y-%m-%dT%H:%M:%SZ}" in line and "queue.lan" in line


def test_what_ends_soon_or_has_ended_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init(str(tmp_path))
    code, faults, said = check(str(tmp_path / "server.pem"), "--within", "400d")
    assert (code, faults) == (1, {"server.pem": ["expires in 396 days"]})
    assert "server.pem expires in 396 days" in json.loads(said)["message"]

    monkeypatch.setattr(certificates, "LIFE", timedelta(minutes=-1))
    init(str(tmp_path), "--force")
    assert check(str(tmp_path / "server.pem"))[1] == {"server.pem": ["has expired"]}


def test_what_begins_later_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "EARLIER", timedelta(hours=-1))
    init(str(tmp_path))
    assert check(str(tmp_path / "admin.pem"))[1] == {"admin.pem": ["is not valid yet"]}


def test_a_key_must_be_its_own_usable_and_nobody_elses_to_read(tmp_path: Path) -> None:
    init(str(tmp_path))
    (tmp_path / "server.key").write_bytes((tmp_path / "admin.key").read_bytes())
    (tmp_path / "admin.key").chmod(0o644)
    (tmp_path / "processor.key").write_text("nonsense")
    code, faults, _ = check(str(tmp_path))
    assert code == 1
    assert faults == {
        "ca.pem": [],
        "probe.pem": [],
        "scheduler.pem": [],
        "server.pem": ["server.key is the key of another certificate"],
        "admin.pem": ["others can read admin.key"],
        "processor.pem": ["processor.key cannot be used; must be a PEM key without a passphrase"],
    }


def test_it_must_be_signed_by_the_authority_that_is_beside_it_or_named(tmp_path: Path) -> None:
    init(str(tmp_path / "one"))
    init(str(tmp_path / "other"))
    wanted = str(tmp_path / "other" / "ca.pem")
    assert check(str(tmp_path / "one" / "server.pem"), "--ca", wanted)[1] == {"server.pem": ["is not signed by ca.pem"]}

    (tmp_path / "one" / "ca.pem").write_bytes(Path(wanted).read_bytes())
    assert check(str(tmp_path / "one" / "admin.pem"))[:2] == (1, {"admin.pem": ["is not signed by ca.pem"]})


@pytest.mark.parametrize("order", [("old", "new"), ("new", "old")])
def test_while_an_authority_is_exchanged_each_of_both_has_signed_what_is_well(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    init(str(tmp_path / "old"))
    init(str(tmp_path / "new"))
    init(str(tmp_path / "other"))
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join((tmp_path / name / "ca.pem").read_bytes() for name in order))
    for name in ("old", "new"):
        assert check(str(tmp_path / name), "--ca", str(both)) == (0, {f"{one}.pem": [] for one in ["ca", *ROLES]}, "")
    assert check(str(tmp_path / "other" / "admin.pem"), "--ca", str(both))[1] == {
        "admin.pem": ["is not signed by both.pem"]
    }


def test_a_server_that_has_signed_itself_is_no_authority(tmp_path: Path) -> None:
    init(str(tmp_path))
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "queue")])
    own = x509.CertificateBuilder(name, name, key.public_key(), 1, datetime.now(UTC), datetime.now(UTC) + YEAR)
    file = tmp_path / "own.pem"
    file.write_bytes(own.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    assert check(str(file))[1] == {"own.pem": ["is not signed by ca.pem"]}


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("nothing.pem", "cannot be read: No such file"),
        ("server.key", "holds no certificate; must be PEM"),
        ("empty", "must have .pem files"),
    ],
)
def test_what_is_no_certificate_is_wrong_use(tmp_path: Path, name: str, rule: str) -> None:
    init(str(tmp_path))
    (tmp_path / "empty").mkdir()
    code, faults, said = check(str(tmp_path / name))
    assert (code, faults) == (2, {}) and name in said and rule in said
