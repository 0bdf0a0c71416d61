"""`taskq db backup`: a whole copy of a SQLite file, also while a server is at work on it."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest
import structlog

from scheduler_client import Scheduler, new_task
from taskq_server import database, logs
from taskq_server.clock import ManualClock
from taskq_server.core.errors import StoreRefused
from taskq_server.store.sqlite import backup as backups
from taskq_server.store.sqlite.admin import SQLiteFile
from taskq_server.store.sqlite.store import SQLite
from tests.store.admin.copies import contents, opened, silent
from tests.store.conftest import RULES
from tests.support.process import ServerProcess, taskq_db

OLDER = "the database is older than when it was last used"


def backup(url: str, target: Path) -> None:
    opened(url).backup(target)


def test_a_backup_has_all_that_the_queue_has(queue: str, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    backup(queue, target)

    assert contents(f"sqlite:///{target}") == contents(queue)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} <= {"backup.db", "queue.db", "queue.db-wal", "queue.db-shm"}


async def test_beside_a_server_it_has_what_was_promised_before(server_process: ServerProcess, tmp_path: Path) -> None:
    # given
    async with Scheduler(server_process.address) as scheduler:
        promised = {(await scheduler.enqueue("cook", delay=3600)).task_id for _ in range(3)}

    # when
    target = tmp_path / "backup.db"
    process = taskq_db("backup", str(target), f"--database-url={server_process.database_url}")
    out, err = process.communicate(timeout=60)

    # then
    assert (process.returncode, out) == (0, f"{target} {target.stat().st_size} bytes\n"), err
    assert opened(f"sqlite:///{target}").upgrade(lambda said: None)[0] is not None, "it is a database of its own"
    assert task_ids(target) == promised


async def test_while_tasks_come_in_it_has_all_that_was_promised_before_it_began(
    server_process: ServerProcess, tmp_path: Path
) -> None:
    # given
    promised: list[str] = []
    more, ended = asyncio.Event(), asyncio.Event()

    async def enqueue_on() -> None:
        async with Scheduler(server_process.address) as scheduler:
            while not ended.is_set():
                handles = await scheduler.enqueue_many(new_task("cook", delay=3600) for _ in range(20))
                promised.extend(handle.task_id for handle in handles)
                more.set()

    async def let_some_come() -> None:
        for _ in range(5):
            more.clear()
            await asyncio.wait_for(more.wait(), 60)

    flood = asyncio.create_task(enqueue_on())
    await let_some_come()

    # when
    before = set(promised)
    await asyncio.to_thread(backup, server_process.database_url, tmp_path / "backup.db")
    await let_some_come()
    ended.set()
    await flood

    # then
    kept = task_ids(tmp_path / "backup.db")
    assert before <= kept < set(promised)
    with closing(sqlite3.connect(tmp_path / "backup.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def task_ids(file: Path) -> set[str]:
    with closing(sqlite3.connect(file)) as connection:
        return {str(UUID(bytes=row[0])) for row in connection.execute("SELECT task_id FROM task")}


def test_of_a_damaged_file_there_is_no_backup(queue: str, tmp_path: Path) -> None:
    # given
    file = Path(queue.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(file)) as connection:
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'attempt'").fetchone()
    with file.open("r+b") as opened_file:
        opened_file.seek((root - 1) * page_bytes + 8)
        opened_file.write(b"\xff" * 64)

    # when
    with pytest.raises(StoreRefused, match="the copy is not sound") as refused:
        backup(queue, tmp_path / "backup.db")

    # then
    assert refused.value.exit_code == 78 and "restore" in refused.value.hint
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == []


async def test_who_goes_back_to_one_is_told_so_also_of_one_from_the_servers_last_run(
    server_process: ServerProcess, tmp_path: Path
) -> None:
    # given
    async with Scheduler(server_process.address) as scheduler:
        await scheduler.enqueue("cook", delay=3600)
    file = Path(server_process.database_url.removeprefix("sqlite:///"))
    target = tmp_path / "backup.db"
    process = taskq_db("backup", str(target), f"--database-url={server_process.database_url}")
    process.communicate(timeout=60)
    assert process.returncode == 0
    server_process.stop()
    assert OLDER not in server_process.read_log()

    # when
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    shutil.copyfile(target, file)
    server_process.start()
    server_process.stop()
    server_process.start()

    # then
    assert server_process.read_log().count(OLDER) == 1, "and once is enough"


async def test_elsewhere_it_is_a_file_like_others(queue: str, tmp_path: Path) -> None:
    backup(queue, tmp_path / "backup.db")
    with structlog.testing.capture_logs() as logs:
        store = await SQLite.open(tmp_path / "backup.db", ManualClock(), RULES, print)
        await store.close()
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


def test_a_file_that_is_there_is_never_overwritten(queue: str, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    target.write_text("precious")
    with pytest.raises(StoreRefused, match="is there already") as refused:
        backup(queue, target)
    assert refused.value.exit_code == 2
    assert target.read_text() == "precious"


@pytest.mark.parametrize("place", ["nowhere/backup.db", "queue.db/backup.db"])
def test_where_nothing_can_be_written_the_disk_fails(queue: str, tmp_path: Path, place: str) -> None:
    with pytest.raises(StoreRefused, match="cannot be written") as refused:
        backup(queue, tmp_path / place)
    assert refused.value.exit_code == 74


def test_what_is_no_queue_is_not_backed_up(tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="has no tables"):
        backup(f"sqlite:///{tmp_path}/nothing.db", tmp_path / "backup.db")
    assert list(tmp_path.iterdir()) == []


def test_half_a_backup_is_none(queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(backups, "_to_disk", break_off)
    with pytest.raises(KeyboardInterrupt):
        backup(queue, tmp_path / "backup.db")
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == []


def test_of_two_to_one_name_at_once_one_is_there_whole_and_the_other_is_refused(
    queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, both = tmp_path / "backup.db", threading.Barrier(2)
    to_disk = backups._to_disk

    def wait_for_the_other(path: Path) -> None:
        if path != target.parent:
            both.wait(30)
        to_disk(path)

    def one_of_two(_: int) -> StoreRefused | None:
        try:
            backup(queue, target)
        except StoreRefused as refused:
            return refused
        return None

    monkeypatch.setattr(backups, "_to_disk", wait_for_the_other)
    with ThreadPoolExecutor(2) as threads:
        ends = list(threads.map(one_of_two, range(2)))

    (refusal,) = [end for end in ends if end is not None]
    assert refusal.exit_code == 2 and "is there already" in refusal.why
    assert contents(f"sqlite:///{target}") == contents(queue)
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == ["backup.db"]


@pytest.mark.parametrize("why", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_will_do(
    queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: int
) -> None:
    target = tmp_path / "backup.db"

    def link(half: Path, name: Path) -> None:
        raise OSError(why, os.strerror(why))

    monkeypatch.setattr(os, "link", link)
    backup(queue, target)
    assert contents(f"sqlite:///{target}") == contents(queue)
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == ["backup.db"]

    def link_late(half: Path, name: Path) -> None:
        name.write_text("precious")
        link(half, name)

    monkeypatch.setattr(os, "link", link_late)
    with pytest.raises(StoreRefused, match="is there already"):
        backup(queue, tmp_path / "another.db")
    assert (tmp_path / "another.db").read_text() == "precious"


def test_a_disk_that_is_full_is_no_file_system_without_hard_links(
    queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(half: Path, name: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StoreRefused, match="No space left") as refused:
        backup(queue, tmp_path / "backup.db")
    assert refused.value.exit_code == 74
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["backup", "{folder}/backup.db"], "interrupted; if FILE is there, it is whole\n"),
        (["upgrade"], "interrupted; the same command goes on\n"),
    ],
)
def test_who_interrupts_it_is_told_what_it_left(
    queue: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(logs, "configure", silent)
    monkeypatch.setattr(SQLiteFile, arguments[0], interrupted)
    asked = [argument.format(folder=tmp_path) for argument in arguments]
    assert database.main([*asked, f"--database-url={queue}"]) == database.INTERRUPTED
    assert capsys.readouterr().err.endswith(said)


def test_postgresql_has_its_own_means(postgres: str, tmp_path: Path) -> None:
    process = taskq_db("backup", str(tmp_path / "backup.db"), f"--database-url={postgres}")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "pg_dump" in err
