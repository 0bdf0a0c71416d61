"""`taskq certs init`: a CA and a certificate for each role."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509

from admin_client.command import main
from client_core.access import TLS
from taskq_server.certificates import Certificates

ROLES = ["server", "scheduler", "processor", "admin", "probe"]
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


@pytest.mark.parametrize("host", ["", "queue:50051", "a b", "küche", "http://queue"])
def test_what_is_no_host_is_refused_and_nothing_is_written(tmp_path: Path, host: str) -> None:
    code, said = init(str(tmp_path / "certs"), "--host", host)
    assert code == 2 and "must be a host name or an IP address, without a port" in said
    assert not (tmp_path / "certs").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, said = init(str(tmp_path / "file" / "certs"))
    assert code == 1 and "file/certs" in said
