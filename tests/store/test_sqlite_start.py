"""What must hold before a server may use a file: alone, sound, known, on a disk that keeps what it is told."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from taskq_server.clock import ManualClock
from taskq_server.core.errors import StorageUnavailable, StoreRefused, TaskqError
from taskq_server.store import migrate
from taskq_server.store.sqlite import start as sqlite_start
from taskq_server.store.sqlite.store import SQLite
from tests.store.conftest import RULES, SQLiteFile
from tests.store.given import a_processor, a_task, added, lease, rows, tamper

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def database(tmp_path: Path) -> SQLiteFile:
    """No file yet."""
    return SQLiteFile(tmp_path / "new" / "folder" / "taskq.db")


@pytest.fixture(autouse=True)
async def closed(database: SQLiteFile) -> None:
    yield  # type: ignore[misc]
    await database.close()


async def refused(database: SQLiteFile, path: Path | None = None) -> StoreRefused:
    with pytest.raises(StoreRefused) as caught:
        await SQLite.open(path or database.path, ManualClock(), RULES, database.fatal.append)
    return caught.value


async def test_a_new_file_is_made_with_its_folder_and_only_its_owner_can_look_into_it(
    database: SQLiteFile, clock: ManualClock
) -> None:
    await added(await database.open(clock), a_task())

    assert database.path.exists()
    assert database.path.parent.stat().st_mode & 0o077 == 0


async def test_what_makes_commits_durable_is_in_force_on_every_connection(
    database: SQLiteFile, clock: ManualClock
) -> None:
    store = await database.open(clock)
    names = ("journal_mode", "synchronous", "foreign_keys", "trusted_schema", "cell_size_check", "mmap_size")
    writer: list[object] = []

    def look(tx, items):  # type: ignore[no-untyped-def]
        names_of_writer = (*names, "busy_timeout", "wal_autocheckpoint", "query_only")
        writer.extend(tx.connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names_of_writer)
        return items

    await store.write(look, [None])
    reader = [(await rows(store, f"PRAGMA {name}") or [{}])[0] for name in (*names, "wal_autocheckpoint", "query_only")]

    assert writer == ["wal", 2, 1, 0, 1, 0, 5000, 1000, 0]
    assert [next(iter(row.values())) for row in reader] == ["wal", 2, 1, 0, 1, 0, 0, 1]


async def test_readers_cannot_write(database: SQLiteFile, clock: ManualClock) -> None:
    store = await database.open(clock)

    with pytest.raises(StorageUnavailable) as caught:
        await rows(store, "DELETE FROM task RETURNING 1")
    assert "readonly" in caught.value.detail
    await added(store, a_task())


# ── alone ────────────────────────────────────────────────────────────────────────────────────────────────────────────

HOLD = """
import asyncio, sys
from pathlib import Path
from taskq_server.clock import ManualClock
from taskq_server.store.sqlite.store import SQLite
from taskq_server.store.verbs.end_batch import Rules

async def main():
    store = await SQLite.open(Path(sys.argv[1]), ManualClock(), Rules(1, 3), print)
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture
def another_server(database: SQLiteFile) -> Iterator[subprocess.Popen[str]]:
    """A process that has the file open."""
    command = [sys.executable, "-c", HOLD, str(database.path)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "open\n":
            break
    yield process
    process.kill()
    process.communicate()


async def test_a_second_server_on_the_file_is_refused_and_told_who_has_it(
    database: SQLiteFile, another_server: subprocess.Popen[str]
) -> None:
    refusal = await refused(database)

    assert refusal.exit_code == 75
    assert f"in use by pid {another_server.pid} on {os.uname().nodename}" in refusal.why


async def test_a_second_server_that_comes_by_another_name_of_the_file_is_refused_too(
    database: SQLiteFile, another_server: subprocess.Popen[str], tmp_path: Path
) -> None:
    file, folder = tmp_path / "link.db", tmp_path / "link"
    file.symlink_to(database.path)
    folder.symlink_to(database.path.parent)

    assert (await refused(database, file)).exit_code == 75
    assert (await refused(database, folder / database.path.name)).exit_code == 75
    assert (await refused(database, database.path.parent / ".." / "folder" / "taskq.db")).exit_code == 75


async def test_a_killed_server_leaves_the_file_free(
    database: SQLiteFile, another_server: subprocess.Popen[str], clock: ManualClock
) -> None:
    another_server.kill()
    another_server.wait()

    await added(await database.open(clock), a_task())


async def test_a_refused_server_does_not_disturb_the_one_that_holds_the_file(
    database: SQLiteFile, clock: ManualClock
) -> None:
    store = await database.open(clock)
    for _ in range(3):
        assert (await refused(database)).exit_code == 75

    await added(store, a_task())
    await database.close()
    assert await rows(await database.open(clock), "SELECT count(*) AS n FROM task") == [{"n": 1}]


async def test_a_closed_store_leaves_the_file_free(database: SQLiteFile, clock: ManualClock) -> None:
    for _ in range(3):
        await database.open(clock)
        await database.close()


async def test_the_generation_counts_every_opening(database: SQLiteFile, clock: ManualClock) -> None:
    for generation in (1, 2, 3):
        store = await database.open(clock)
        assert await rows(store, "SELECT value FROM meta WHERE key = 'generation'") == [{"value": str(generation)}]
        await database.close()


# ── sound and known ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_folder_is_refused(database: SQLiteFile, tmp_path: Path) -> None:
    assert "is a folder" in (await refused(database, tmp_path)).why


async def test_a_path_through_a_file_is_refused(database: SQLiteFile, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    assert (await refused(database, tmp_path / "file" / "taskq.db")).exit_code == 78


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(database: SQLiteFile) -> None:
    database.path.parent.mkdir(parents=True)
    database.path.write_text("my diary " * 1_000)

    assert "not a database" in (await refused(database)).why
    assert database.path.read_text() == "my diary " * 1_000


async def test_a_newer_schema_is_refused_and_left_as_it_is(database: SQLiteFile, clock: ManualClock) -> None:
    store = await database.open(clock)
    await tamper(store, "UPDATE alembic_version SET version_num = '9999'")
    await tamper(store, "UPDATE meta SET value = '9998' WHERE key = 'serves_from'")
    await database.close()

    refusal = await refused(database)

    assert "9999" in refusal.why and "newer server" in refusal.hint
    with sqlite3.connect(database.path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
    connection.close()


async def test_a_newer_schema_that_serves_this_server_too_is_accepted(database: SQLiteFile, clock: ManualClock) -> None:
    """So that servers can be upgraded one by one after their database was."""
    store = await database.open(clock)
    await tamper(store, "UPDATE alembic_version SET version_num = '9999'")
    await tamper(store, f"UPDATE meta SET value = '{migrate.HEAD}' WHERE key = 'serves_from'")  # noqa: S608
    await database.close()

    again = await database.open(clock)

    assert await rows(again, "SELECT version_num FROM alembic_version") == [{"version_num": "9999"}]


async def with_tasks(database: SQLiteFile, clock: ManualClock) -> int:
    store = await database.open(clock)
    await added(store, *(a_task(payload=os.urandom(500)) for _ in range(300)))
    await database.close()
    return database.path.stat().st_size


async def test_a_corrupt_file_is_refused(database: SQLiteFile, clock: ManualClock) -> None:
    size = await with_tasks(database, clock)
    with database.path.open("r+b") as file:
        for offset in range(4096, size, 4096):
            file.seek(offset)
            file.write(b"\xff" * 64)

    refusal = await refused(database)

    assert refusal.exit_code == 78
    assert "backup" in refusal.hint


async def test_a_truncated_file_is_refused(database: SQLiteFile, clock: ManualClock) -> None:
    size = await with_tasks(database, clock)
    os.truncate(database.path, size // 2)

    assert (await refused(database)).exit_code == 78


async def test_a_file_with_flipped_bits_never_serves_a_wrong_payload(database: SQLiteFile, clock: ManualClock) -> None:
    """It is refused, or works with what is sound (promise P3)."""
    chosen, payloads = random.Random(11), {}
    store = await database.open(clock)
    for _ in range(60):
        task = a_task(payload=chosen.randbytes(900))
        payloads[task.task_id] = task.payload
        await added(store, task)
    await database.close()
    sound = database.path.read_bytes()
    served = refusals = 0
    for _ in range(40):
        damaged = bytearray(sound)
        damaged[chosen.randrange(100, len(sound))] ^= 1 << chosen.randrange(8)
        database.path.write_bytes(damaged)
        try:
            store = await database.open(clock)
            oven = await a_processor(store)
            for one in (await lease(store, oven)).assignments:
                assert one.task_id not in payloads or one.payload == payloads[one.task_id]
                served += 1
        except (StoreRefused, TaskqError):
            refusals += 1
        await database.close()

    assert served > 500


async def test_a_file_that_was_emptied_is_refused_and_no_new_one_is_made_over_it(
    database: SQLiteFile, clock: ManualClock
) -> None:
    await with_tasks(database, clock)
    os.truncate(database.path, 0)

    refusal = await refused(database)

    assert "empty, but was used before" in refusal.why
    assert f"{database.path}.lock" in refusal.hint


async def test_a_file_that_was_removed_is_refused(database: SQLiteFile, clock: ManualClock) -> None:
    await with_tasks(database, clock)
    database.path.unlink()

    assert "used before" in (await refused(database)).why


async def test_who_removes_the_lock_too_starts_anew(database: SQLiteFile, clock: ManualClock) -> None:
    await with_tasks(database, clock)
    database.path.unlink()
    database.path.with_name("taskq.db.lock").unlink()

    assert await rows(await database.open(clock), "SELECT count(*) AS n FROM task") == [{"n": 0}]


@pytest.mark.parametrize("rubbish", ["", "{", "[]", '{"generation": "x"}', "\x00" * 9])
async def test_a_lock_file_with_rubbish_in_it_is_no_reason_to_refuse(
    database: SQLiteFile, clock: ManualClock, rubbish: str
) -> None:
    await with_tasks(database, clock)
    database.path.with_name("taskq.db.lock").write_text(rubbish)

    assert await rows(await database.open(clock), "SELECT count(*) AS n FROM task") == [{"n": 300}]


async def test_a_deleted_wal_is_warned_about_loudly(database: SQLiteFile, clock: ManualClock, tmp_path: Path) -> None:
    await with_tasks(database, clock)
    store = await database.open(clock)
    await added(store, a_task())
    crashed = tmp_path / "crashed"
    shutil.copytree(database.path.parent, crashed)  # as kill -9 leaves it: the last commits are in the -wal file
    assert (crashed / "taskq.db-wal").stat().st_size > 0
    (crashed / "taskq.db-wal").unlink()

    with structlog.testing.capture_logs() as logs:
        again = await SQLite.open(crashed / "taskq.db", clock, RULES, database.fatal.append)
        await again.close()

    (warning,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert "-wal file deleted" in warning["event"]
    assert (warning["opened"], warning["expected"]) == (1, 2)


async def test_a_file_as_a_killed_server_leaves_it_is_recovered_without_a_word(
    database: SQLiteFile, clock: ManualClock, tmp_path: Path
) -> None:
    store = await database.open(clock)
    ids = await added(store, *(a_task() for _ in range(50)))
    crashed = tmp_path / "crashed"
    shutil.copytree(database.path.parent, crashed)

    with structlog.testing.capture_logs() as logs:
        again = await SQLite.open(crashed / "taskq.db", clock, RULES, database.fatal.append)

    assert len(await again.get(ids)) == 50
    assert [entry for entry in logs if entry["log_level"] not in ("debug", "info")] == []
    await again.close()


# ── where ────────────────────────────────────────────────────────────────────────────────────────────────────────────

MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
server:/export {folder}/shared nfs4 rw,vers=4.2 0 0
/dev/vdb {folder}/shared/local xfs rw 0 0
//nas/x {folder}/with\\040space cifs rw 0 0
tmpfs {folder}/twice tmpfs rw 0 0
host {folder}/twice 9p rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("shared", "nfs4"),
        ("shared/deep/er", "nfs4"),
        ("shared/local", "xfs"),
        ("sharedx", "ext4"),
        ("with space/x", "cifs"),
        ("twice", "9p"),
    ],
)
def test_the_file_system_is_that_of_the_innermost_mount(tmp_path: Path, folder: str, kind: str) -> None:
    mounts = MOUNTS.format(folder=tmp_path.resolve())

    assert sqlite_start.file_system_of(tmp_path / folder, mounts) == kind


def test_a_link_to_a_network_file_system_is_seen_through(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "shared")

    assert sqlite_start.file_system_of(tmp_path / "link", MOUNTS.format(folder=tmp_path.resolve())) == "nfs4"


def test_without_a_table_of_mounts_nothing_is_known(tmp_path: Path) -> None:
    assert sqlite_start.file_system_of(tmp_path, "") == ""


@pytest.mark.parametrize("kind", sorted(sqlite_start.NETWORK_FILE_SYSTEMS))
async def test_a_network_file_system_is_refused_unless_it_is_allowed(
    database: SQLiteFile, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(sqlite_start, "file_system_of", lambda folder: kind)

    refusal = await refused(database)
    assert kind in refusal.why and "TASKQ_NETWORK_FILE_SYSTEM" in refusal.hint

    store = await SQLite.open(database.path, clock, RULES, database.fatal.append, allow_network=True)
    await store.close()


# ── killed while it makes the tables ─────────────────────────────────────────────────────────────────────────────────


KILL_AT_EVERY_STATEMENT = """
import asyncio, os, signal, sys, warnings
from pathlib import Path
import alembic.command
from sqlalchemy import Engine, event
from taskq_server.clock import ManualClock
from taskq_server.store.sqlite.store import SQLite
from taskq_server.store.verbs.end_batch import Rules

async def start(path):
    store = await SQLite.open(path, ManualClock(), Rules(1, 3), print)
    await store.close()

def in_a_process(path, kill_at):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = 0
    def count(*nothing):
        nonlocal seen
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    event.listen(Engine, "before_cursor_execute", count)
    event.listen(Engine, "commit", count)
    try:
        asyncio.run(start(path))
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
    os._exit(0)

for kill_at in range(1, 1_000, 2):
    path = Path(sys.argv[1]) / f"{kill_at}.db"
    killed = in_a_process(path, kill_at) == -signal.SIGKILL
    assert in_a_process(path, 0) == 0, kill_at
    if not killed:
        break
print(kill_at)
"""


def test_a_server_killed_at_any_statement_of_its_first_start_leaves_a_file_that_the_next_completes(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", KILL_AT_EVERY_STATEMENT, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=100)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert int(ran.stdout.split()[-1]) > 30
    for path in tmp_path.glob("*.db"):
        connection = sqlite3.connect(path)
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(migrate.HEAD,)]
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
