"""The cluster that tests stop and kill: what it keeps, and that nothing of it is left over."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.support import postgres as module
from tests.support.console import Console
from tests.support.postgres import PostgresProcess
from tests.support.process import ROOT
from tests.support.waiting import until

HOLD_ONE = """
from tests.support.postgres import PostgresProcess
with PostgresProcess(fsync=False) as postgres:
    print(postgres.folder, postgres.pid, flush=True)
    input()
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresProcess]:
    with PostgresProcess(fsync=True) as postgres:
        with Console(postgres.url()) as console:
            console.run("CREATE TABLE kept (row int)")
        yield postgres


@pytest.fixture
def console(postgres: PostgresProcess) -> Iterator[Console]:
    with Console(postgres.url()) as console:
        console.run("TRUNCATE kept")
        yield console


def test_it_is_reached_over_tcp_and_over_its_socket(postgres: PostgresProcess, console: Console) -> None:
    assert console.value("SELECT host(inet_server_addr())") == "127.0.0.1"
    with Console(postgres.socket_url()) as other:
        assert other.value("SELECT inet_server_addr()") is None
    assert postgres.socket_path.is_socket()


def test_settings_are_postgresqls_own(postgres: PostgresProcess, console: Console) -> None:
    assert console.value("SHOW fsync") == "on"
    with PostgresProcess(fsync=False, max_connections=7) as other, Console(other.url()) as console:
        assert console.rows("SELECT current_setting('fsync'), current_setting('max_connections')") == [("off", "7")]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_keeps_the_port_and_what_was_committed(
    postgres: PostgresProcess, console: Console, mode: str
) -> None:
    console.run("INSERT INTO kept VALUES (1), (2)")
    before = postgres.pid

    postgres.restart(mode)

    assert postgres.pid != before
    assert console.rows("SELECT row FROM kept ORDER BY row") == [(1,), (2,)]


def test_a_kill_leaves_no_process_and_it_starts_again_at_once(postgres: PostgresProcess, console: Console) -> None:
    for row in range(3):
        console.run("INSERT INTO kept VALUES ($1)", row)
        postgres.kill()
        assert postgres.processes() == {}
        postgres.start()
    assert console.value("SELECT count(*) FROM kept") == 3
    assert "was not properly shut down" in postgres.read_log()


def test_a_backend_can_be_killed_alone_and_all_recover(postgres: PostgresProcess, console: Console) -> None:
    console.run("INSERT INTO kept VALUES (1)")
    pid = console.value("SELECT pg_backend_pid()")
    assert postgres.backends("postgres") == [pid]
    postmaster = postgres.pid

    postgres.signal(signal.SIGKILL, pid)
    until(lambda: "reinitializing" in postgres.read_log(), "PostgreSQL recovers")

    def count() -> int:
        try:
            return console.value("SELECT count(*) FROM kept")  # type: ignore[no-any-return]
        except (OSError, asyncpg.PostgresError):
            return 0  # not yet recovered

    assert until(count, "it takes connections again") == 1
    assert postgres.pid == postmaster


def test_a_process_of_another_is_not_signalled(postgres: PostgresProcess) -> None:
    with pytest.raises(AssertionError, match="not a process of this cluster"):
        postgres.signal(signal.SIGCONT, 1)


def test_a_start_that_fails_says_why_and_leaves_nothing() -> None:
    postgres = PostgresProcess(fsync=False, shared_buffers="much")
    with pytest.raises(AssertionError, match="invalid value for parameter"), postgres:
        pass
    assert not postgres.folder.exists()


def test_it_ends_when_the_tests_are_killed() -> None:
    command = [sys.executable, "-c", HOLD_ONE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as tests:
        assert tests.stdout is not None
        folder, pid = tests.stdout.readline().split()
        tests.kill()
    until(lambda: not Path(folder).exists(), "its folder is removed")
    assert not Path(f"/proc/{pid}/cwd").exists()


def test_without_the_package_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AssertionError, match="TASKQ_TEST_PG_URL"), PostgresProcess(fsync=False):
        pass


def test_programs_that_the_other_user_cannot_come_to_are_copied(tmp_path: Path) -> None:
    installed = tmp_path / "closed" / "pginstall"
    (installed / "bin").mkdir(parents=True)
    (installed / "bin" / "postgres").touch(mode=0o700)
    tmp_path.chmod(0o700)

    assert module._reachable(installed, tmp_path, {}) == installed
    reachable = module._reachable(installed, tmp_path, {"user": -1, "group": -1})
    assert reachable != installed
    assert (reachable / "bin" / "postgres").exists()
