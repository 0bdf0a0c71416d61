"""`taskq token`: what it prints where, and what its exit codes say, without a server and beside one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from taskq_server import logs, tokens
from taskq_server.core import token as api_token
from taskq_server.store.postgres import admin as postgres_admin
from taskq_server.store.sqlite import box as sqlite_box
from tests.store.admin.conftest import NewFile
from tests.store.admin.copies import found, run_sql, silent
from tests.support.process import ROOT, ServerProcess

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str) -> Run:
    """Runs the command in this process, on the database of the test: exit code, stdout, stderr."""
    monkeypatch.setattr(logs, "configure", silent)
    monkeypatch.setenv("TASKQ_DATABASE_URL", url)

    def run(*arguments: str) -> tuple[int, str, str]:
        with structlog.testing.capture_logs():
            capsys.readouterr()
            code = tokens.main(arguments)
        return code, *capsys.readouterr()

    return run


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, new_file: NewFile) -> str:
    if request.param == "sqlite":
        return new_file()
    return request.getfixturevalue("postgres")  # type: ignore[no-any-return]


def create(run: Run, *arguments: str) -> str:
    code, out, _ = run("create", *arguments)
    assert code == 0
    assert out.endswith("\n") and api_token.id_of(out[:-1]), "the token alone"
    return out[:-1]


def listed(run: Run, *arguments: str) -> list[list[str]]:
    """The words of each line, without the head."""
    code, out, _ = run("list", *arguments)
    assert code == 0
    return [line.split() for line in out.splitlines()[1:]]


def test_a_token_is_made_listed_and_revoked_without_a_server(run: Run, url: str) -> None:
    assert listed(run) == [], "also in a file that is not there"
    admin = create(run, "root", "--right", "admin")
    kitchen = create(run, "kitchen", "--right", "enqueue:kitchen.*", "--right=read", "--expire-after=90d")

    (root, other) = listed(run)
    assert (root[0], root[1], root[3:]) == (admin[:15], "root", ["-", "-", "admin"])
    assert (other[0], other[1], other[-1]) == (kitchen[:15], "kitchen", "enqueue:kitchen.*,read")
    lasts = time.mktime(time.strptime(other[3], "%Y-%m-%dT%H:%M:%SZ")) - time.mktime(
        time.strptime(other[2], "%Y-%m-%dT%H:%M:%SZ")
    )
    assert lasts == 90 * 86_400

    code, out, err = run("revoke", admin[:15], kitchen[:15])
    assert (code, out) == (0, "") and admin[:15] in err
    assert listed(run) == []
    assert [line[-2] for line in listed(run, "--all")] == ["revoked", "revoked"]


def test_who_has_made_and_revoked_a_token_stands_in_the_audit(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "anna")
    token = create(run, "root", "--right", "admin")
    for _ in range(2):
        run("revoke", token[:15])

    entries = found(
        url, "SELECT source, principal, action, target_kind, target, before, after FROM audit ORDER BY 1, 3"
    )

    made = '{"principal":"root","rights":["admin"],"expire_time":null}'
    assert [tuple(entry) for entry in entries] == [
        (5, "anna", "taskq token create", "token", token[:15], "", made),
        (5, "anna", "taskq token revoke", "token", token[:15], '{"principal":"root"}', ""),
    ]


def test_nothing_but_a_hash_of_a_token_is_kept_and_it_is_shown_once(run: Run, url: str, tmp_path: Path) -> None:
    code, out, err = run("create", "root", "--right", "admin")
    secret = out[16:59]
    assert code == 0 and secret not in err
    assert secret not in run("list", "--all")[1]
    run("revoke", out[:15])
    assert secret not in repr(found(url, "SELECT * FROM token"))
    if url.startswith("sqlite"):
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_of_one_principal_there_may_be_several(run: Run) -> None:
    assert create(run, "kitchen", "--right=read") != create(run, "kitchen", "--right=read")
    assert [line[1] for line in listed(run)] == ["kitchen", "kitchen"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["create"], "PRINCIPAL"),
        (["create", "two words", "--right=read"], "PRINCIPAL must be 1 to 256"),
        (["create", "kitchen"], "--right must be enqueue:NAMES"),
        (["create", "kitchen", "--right=cook"], "--right must be enqueue:NAMES"),
        (["create", "kitchen", "--right=read", "--expire-after=90"], "--expire-after must be a number and a unit"),
        (["create", "kitchen", "--right=read", "--expire-after=0s"], "--expire-after must be more than nothing"),
        (["create", "kitchen", "--right=read", "--expire-after=3651d"], "3650d at most"),
        (["revoke"], "TOKEN"),
        (["revoke", "kitchen"], "TOKEN must be the id"),
        (["remove"], "invalid choice"),
    ],
)
def test_wrong_usage_exits_2_and_names_what_is_wrong(run: Run, arguments: list[str], told: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and told in err
    assert listed(run, "--all") == []


@pytest.mark.parametrize("verb", ["create", "list", "revoke", "--"])
def test_a_token_that_stands_where_it_does_not_belong_is_not_repeated(run: Run, verb: str) -> None:
    text = api_token.new()
    code, out, err = run(verb, text, text)
    assert code == 2 and text[16:] not in out + err


def test_of_several_tokens_none_is_revoked_when_one_does_not_exist(run: Run) -> None:
    text = create(run, "root", "--right=admin")
    code, _, err = run("revoke", text[:15], "tq_000000000000")
    assert code == 65 and "there is no token tq_000000000000" in err
    assert len(listed(run)) == 1


def test_of_several_with_wrong_ids_the_database_is_not_asked(run: Run, postgres: str) -> None:
    code, _, err = run("list", "--database-url=mysql://x")
    assert code == 2 and "must be sqlite:///path" in err


def test_a_database_of_an_older_version_is_upgraded_first(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create(run, "root", "--right=admin")
    run_sql(url, "UPDATE alembic_version SET version_num = '0001'")
    code, _, err = run("list")
    assert code == 78 and "taskq db upgrade" in err


def test_beside_a_server_it_is_the_server_that_writes_and_knows_when_the_command_returns(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ServerProcess(url, auth="required")
    with server.log:
        server.start()
        try:
            text = create(run, "root", "--right=admin")
            assert [line[0] for line in listed(run)] == [text[:15]]
            assert run("revoke", text[:15])[0] == 0
            assert listed(run) == []
            assert server.stop() == 0
        finally:
            server.kill()


def test_a_server_that_hangs_is_not_waited_for_for_ever(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if not url.startswith("sqlite"):
        return  # where the command writes by itself
    monkeypatch.setattr(sqlite_box, "WAIT_SECONDS", 0.2)
    server = ServerProcess(url)
    with server.log:
        server.start()
        try:
            import signal

            server.signal(signal.SIGSTOP)
            code, out, err = run("create", "root", "--right=admin")
            assert (code, out) == (75, "") and "does not do what it is asked" in err
        finally:
            server.kill()


def test_taskq_token_is_this_program() -> None:
    command = [str(Path(sys.executable).with_name("taskq")), "token", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert all(verb in shown for verb in tokens.VERBS)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server has to hear of a change, but in the test that starts one."""
    monkeypatch.setattr(postgres_admin, "HEARD_SECONDS", 0.1)
