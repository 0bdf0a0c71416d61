"""`taskq db`: what it prints where, and what its exit codes say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from taskq_server import database, logs
from taskq_server.store import migrate
from tests.store.admin.conftest import NewFile
from tests.store.admin.copies import contents, copied, found, mark_of, opened, run_sql, silent
from tests.support.databases import Databases
from tests.support.pooler import Pooler
from tests.support.process import ROOT, ServerProcess, taskq_db
from tests.support.waiting import until

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(logs, "configure", silent)  # the other tests' logs stay as they are

    def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patched, structlog.testing.capture_logs():
            for name, value in environment.items():
                patched.setenv(name, value)
            capsys.readouterr()
            code = database.main(arguments)
        return code, *capsys.readouterr()

    return run


# ── upgrade, current, check ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_database_from_nothing_to_head(run: Run, postgres: str, new_file: NewFile, kind: str) -> None:
    url = new_file()
    if kind == "postgres":
        url = postgres
        run_sql(url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    def line(verb: str) -> tuple[int, str]:
        code, out, _ = run(verb, f"--database-url={url}")
        return code, out.splitlines()[0]

    assert line("current") == (0, "none empty")
    assert line("check") == (1, "schema              none empty")
    assert line("upgrade") == (0, f"none -> {migrate.HEAD}")
    assert line("upgrade") == (0, f"{migrate.HEAD} -> {migrate.HEAD}")
    assert line("current") == (0, f"{migrate.HEAD} head")
    assert line("check") == (0, f"schema              {migrate.HEAD} head")

    run_sql(url, "UPDATE alembic_version SET version_num = '0001'")
    assert line("current") == (0, "0001 older")
    assert line("check")[0] == 1

    run_sql(url, "UPDATE alembic_version SET version_num = '9999'")
    assert line("current") == (0, "9999 newer")
    assert line("check")[0] == 0
    assert line("upgrade") == (0, "9999 -> 9999")
    if kind == "postgres":
        assert run("sql", f"--database-url={url}")[:2] == (0, ""), "nothing is to be done here either"

    run_sql(url, "UPDATE meta SET value = '9998' WHERE key = 'serves_from'")
    assert line("current") == (0, "9999 unknown")
    assert run("check", f"--database-url={url}")[0] == 78
    assert run("upgrade", f"--database-url={url}")[0] == 78
    if kind == "postgres":
        assert run("sql", f"--database-url={url}")[0] == 78


def test_to_look_at_a_file_that_is_not_there_does_not_make_it(run: Run, tmp_path: Path) -> None:
    url = f"--database-url=sqlite:///{tmp_path}/folder/taskq.db"
    assert run("current", url)[0] == 0
    assert run("check", url)[0] == 1
    assert list(tmp_path.iterdir()) == []


def test_check_tells_all_that_a_server_would_look_at(run: Run, postgres: str) -> None:
    code, out, err = run("check", TASKQ_DATABASE_URL=postgres)

    assert code == 0
    told = {line[:20].strip(): line[20:] for line in out.splitlines()}
    assert list(told) == [
        "schema", "database", "PostgreSQL", "encoding", "standby", "fsync", "full_page_writes", "synchronous_commit",
        "clock",
    ]  # fmt: skip
    assert told["encoding"] == "UTF8" and told["standby"] == "no" and told["clock"].endswith(" s")
    assert ("fsync is off: a power failure" in err) == (told["fsync"] == "off")


def test_the_database_is_found_as_the_server_finds_it(run: Run, new_file: NewFile, tmp_path: Path) -> None:
    one, other = new_file(), new_file()
    opened(one).upgrade(silent)
    (tmp_path / "secret").write_text(one + "\n")

    assert run("current", TASKQ_DATABASE_URL=one, TASKQ_LISTEN="nonsense")[1] == f"{migrate.HEAD} head\n"
    assert run("current", TASKQ_DATABASE_URL_FILE=str(tmp_path / "secret"))[1] == f"{migrate.HEAD} head\n"
    assert run("current", f"--database-url={other}", TASKQ_DATABASE_URL=one)[1] == "none empty\n"
    assert run("current", XDG_STATE_HOME=str(tmp_path))[1] == "none empty\n"


def test_beside_a_server_one_may_look_but_not_touch(
    run: Run, server_process: ServerProcess, queue: str, new_file: NewFile
) -> None:
    url = server_process.database_url
    for _ in range(3):
        assert run("current", f"--database-url={url}")[1] == f"{migrate.HEAD} head\n"
        assert run("check", f"--database-url={url}")[0] == 0
    for arguments in (["upgrade", f"--database-url={url}"], ["copy", url, new_file()], ["copy", queue, url]):
        code, out, err = run(*arguments)
        assert (code, out) == (75, "")
        assert f"in use by pid {server_process.pid}" in err
    server_process.kill()
    assert run("current", f"--database-url={url}")[1] == f"{migrate.HEAD} head\n", "as a killed server leaves it"
    server_process.start()
    assert server_process.stop() == 0


def test_what_a_server_on_postgresql_has_is_not_copied(run: Run, queue: str, postgres: str, new_file: NewFile) -> None:
    server = ServerProcess(postgres)
    with server.log:
        server.start()
        try:
            for arguments in (["copy", queue, postgres], ["copy", postgres, new_file()]):
                code, _, err = run(*arguments)
                assert code == 75 and f":{server.pid}" in err
            assert run("check", f"--database-url={postgres}")[0] == 0
            assert server.stop() == 0
            assert run("copy", queue, postgres)[0] == 0
            server.start()
            assert server.stop() == 0
        finally:
            server.kill()
    assert run("copy", postgres, new_file())[0] == 0


def test_by_way_of_a_pooler_all_of_it_works_too(run: Run, databases: Databases, queue: str, new_file: NewFile) -> None:
    with databases.bare() as url, Pooler(url) as pooler:
        database_url = f"--database-url={pooler.url}"
        assert run("check", database_url)[0] == 75, "it lets no settings through"
        assert run("check", database_url, "--pgbouncer")[0] == 1
        assert run("upgrade", database_url, TASKQ_PGBOUNCER="true")[1] == f"none -> {migrate.HEAD}\n"
        assert run("check", database_url, "--pgbouncer")[0] == 0
        assert run("copy", queue, pooler.url, "--pgbouncer")[0] == 0
        assert run("copy", pooler.url, new_file(), "--pgbouncer")[0] == 0
        assert contents(queue) == contents(url)


def test_of_several_upgrades_at_once_one_does_it(postgres: str) -> None:
    run_sql(postgres, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    processes = [taskq_db("upgrade", f"--database-url={postgres}") for _ in range(3)]
    answers = [(*one.communicate(timeout=60), one.returncode) for one in processes]

    assert sorted(out for out, _, _ in answers) == [f"{migrate.HEAD} -> {migrate.HEAD}\n"] * 2 + [
        f"none -> {migrate.HEAD}\n"
    ]
    assert [code for _, _, code in answers] == [0] * 3


# ── copy ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_copy_prints_what_is_in_both_and_says_that_the_source_is_over(run: Run, queue: str, postgres: str) -> None:
    code, out, err = run("copy", queue, postgres)

    assert code == 0
    title, *lines = out.splitlines()
    assert title.split()[:3] == ["table", "state", "rows"]
    assert {tuple(line.split()[:2]) for line in lines} >= {("task", "RUNNING"), ("task", "SUCCEEDED")}
    assert sum(int(line.split()[-2]) for line in lines) == sum(len(rows) for rows in contents(queue).values())
    assert f"Start no server on {queue} again" in err
    assert "\r" not in err, "progress is for terminals"


def test_a_copy_tells_how_far_it_is_on_a_terminal(
    run: Run, queue: str, new_file: NewFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    _, _, err = run("copy", queue, new_file())

    assert "\rcopied: " in err and "\rread back from the target: " in err


def test_half_a_copy_fails_the_check(run: Run, queue: str, new_file: NewFile) -> None:
    def break_off(*_: object) -> None:
        raise KeyError

    target = new_file()
    with pytest.raises(KeyError):
        copied(queue, target, break_off)

    code, _, err = run("check", f"--database-url={target}")
    assert code == 78 and "half a copy" in err
    assert run("copy", queue, target)[0] == 0
    assert run("check", f"--database-url={target}")[0] == 0


def test_a_process_that_is_killed_with_9_is_no_reason_to_begin_anew(queue: str, postgres: str) -> None:
    run_sql(
        queue,
        "INSERT INTO route (name, requires) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
        "WHERE i < 30000) SELECT 'r' || i, '[]' FROM n",
    )
    copying = taskq_db("copy", queue, postgres)
    until(lambda: found(postgres, "SELECT 1 FROM route LIMIT 1"), "the copy has begun", 30)
    copying.kill()
    copying.communicate()
    assert len(mark_of(postgres)) == 1
    ((already,),) = found(postgres, "SELECT count(*) FROM route")

    again = taskq_db("copy", queue, postgres)
    _, err = again.communicate(timeout=60)

    assert again.returncode == 0, err
    assert already > 0
    assert contents(queue) == contents(postgres)


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "upgrade | current | check | sql | backup | copy"),
        (["destroy"], "destroy"),
        (["upgrade", "--bogus"], "--bogus"),
        (["upgrade", "--database-url=mysql://ann:s3cret@h/d"], "TASKQ_DATABASE_URL"),
        (["upgrade", "postgres://ann:s3cret@h/d"], "unrecognized"),
        (["backup"], "FILE"),
        (["copy", "sqlite:///x"], "TARGET"),
        (["copy", "x", "mysql://ann:s3cret@h"], "SOURCE must be"),
        (["copy", "sqlite:///x", "sqlite:///x"], "two databases"),
        (["copy", "sqlite:///x", "postgres://h/d", "postgres://ann:s3cret@h/d"], "unrecognized"),
    ],
)
def test_wrong_usage_exits_2(run: Run, arguments: list[str], told: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert told in err and "s3cret" not in err


def test_no_password_is_ever_printed(run: Run, databases: Databases, queue: str, new_file: NewFile) -> None:
    with databases.fresh() as url:
        good = url.replace("postgres@", "postgres:s3cret@")
        urls = {
            good: (0, 0),
            good + "_gone": (78, 78),
            good.replace("postgres:s3cret@", "nobody:s3cret@"): (78, 78),
            "postgresql://ann:s3cret@127.0.0.1:1/d": (75, 75),
            "postgresql://ann:s3cret#s3cret@127.0.0.1/d": (78, 78),
            "postgresql://ann:s3/cret@127.0.0.1/d?password=s3cret": (78, 78),
            "postgresql://ann:s3cret@127.0.0.1/d?sslmode=bogus": (78, 78),
            "postgresql://ann:s3cret@127.0.0.1:bad/d": (78, 78),
        }
        for url, codes in urls.items():
            code, out, err = run("check", f"--database-url={url}")
            assert (url, code) == (url, codes[0])
            told = out + err
            for arguments in (["upgrade"], ["current"]):
                told += "".join(run(*arguments, f"--database-url={url}")[1:])
            code, out, err = run("copy", queue, url)
            assert (url, code) == (url, codes[1])
            told += out + err + "".join(run("copy", url, new_file())[1:])
            assert "Traceback" not in told
            assert "s3cret" not in told


def test_a_database_that_can_only_be_read_is_to_be_tried_again(run: Run, databases: Databases) -> None:
    """As a standby is, while its primary is replaced."""
    with databases.fresh() as url:
        run_sql(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
        code, _, err = run("check", f"--database-url={url}")

    assert code == 75 and "name the primary" in err


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(run: Run, tmp_path: Path, queue: str) -> None:
    diary = tmp_path / "diary"
    diary.write_text("dear diary " * 1_000)
    url = f"sqlite:///{diary}"
    for arguments in (["upgrade", f"--database-url={url}"], ["current", f"--database-url={url}"], ["copy", queue, url]):
        code, out, err = run(*arguments)
        assert (code, out) == (78, "")
        assert "not a database" in err and "Traceback" not in err
    assert diary.read_text() == "dear diary " * 1_000


def test_a_fault_of_ours_does_not_look_like_an_upgrade_that_is_needed(
    run: Run, new_file: NewFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "current", lambda connection: 1 / 0)
    code, _, err = run("check", f"--database-url={new_file()}")
    assert code == 70 and "ZeroDivisionError" in err


def test_without_the_driver_of_postgresql_it_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    for name in ("admin", "engine", "faults"):
        monkeypatch.delitem(sys.modules, f"taskq_server.store.postgres.{name}", raising=False)
        monkeypatch.delattr(f"taskq_server.store.postgres.{name}", raising=False)

    code, _, err = run("current", "--database-url=postgresql://h/d")
    assert code == 78 and "pip install 'taskq[postgres]'" in err


def test_taskq_db_is_this_program() -> None:
    command = [sys.executable, "-m", "admin_client.command", "db", "copy", "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0
    assert "SOURCE TARGET" in ran.stdout


def test_taskq_db_says_when_the_server_is_not_installed() -> None:
    hide = "import importlib.util; importlib.util.find_spec = lambda name: None"
    command = [sys.executable, "-c", f"from admin_client.command import main; {hide}; main(['db', 'check'])"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 2
    assert "pip install 'taskq[server]'" in ran.stderr
