"""A full disk is survived; a disk that fails is not trusted again (trust C28, C31)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc

from taskq_server.clock import ManualClock
from taskq_server.core.errors import StorageFull, StorageUnavailable
from taskq_server.core.task import EnqueueOutcome
from taskq_server.store.sqlite.store import SQLite
from taskq_server.store.transaction import Transaction
from tests.store.conftest import SQLiteFile
from tests.store.given import a_processor, a_task, added, lease, outcomes, rows, running, succeeded

BIG = b"x" * 200_000


@pytest.fixture
def database(sqlite_database: SQLiteFile) -> SQLiteFile:
    return sqlite_database


@pytest.fixture
async def store(database: SQLiteFile, clock: ManualClock) -> SQLite:
    return await database.open(clock)


async def most_pages(store: SQLite, more: int) -> None:
    """Lets the file grow by `more` pages, and no further."""

    def limit(tx: Transaction, items: list[None]) -> list[None]:
        pages = tx.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        tx.connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + more}")
        return items

    await store.write(limit, [None])


@contextlib.asynccontextmanager
async def a_full_disk(store: SQLite) -> AsyncIterator[None]:
    await most_pages(store, 10)
    yield
    await most_pages(store, 1 << 20)


async def test_a_full_disk_is_said_to_be_full_and_nothing_is_stored(store: SQLite, database: SQLiteFile) -> None:
    async with a_full_disk(store):
        with pytest.raises(StorageFull):
            await store.add([a_task(), a_task("new name", payload=BIG), a_task()])

        assert await rows(store, "SELECT count(*) AS n FROM task") == [{"n": 0}]
        assert database.fatal == []


async def test_reads_and_small_writes_go_on_while_the_disk_is_full(store: SQLite) -> None:
    oven = await a_processor(store)
    held = await running(store, oven, *(a_task() for _ in range(5)))
    async with a_full_disk(store):
        with pytest.raises(StorageFull):
            await store.add([a_task(payload=BIG)])

        ended = await store.end([succeeded(one) for one in held])

        assert {one.status.name for one in ended} == {"ACCEPTED"}
        assert len(await store.get([one.task_id for one in held])) == 5


async def test_a_full_disk_that_has_room_again_works_again_without_a_restart(store: SQLite) -> None:
    tasks = [a_task("new name", payload=BIG), a_task("newer name", requires=["a exists"], payload=BIG)]
    async with a_full_disk(store):
        for _ in range(5):
            with pytest.raises(StorageFull):
                await store.add(tasks)

    assert outcomes(await store.add(tasks)) == [EnqueueOutcome.CREATED] * 2
    assert sorted(route.name for route in store.routes.values()) == ["new name", "newer name"]
    oven = await a_processor(store, "new name")
    assert [one.task_id for one in (await lease(store, oven)).assignments] == [tasks[0].task_id]


def failing_with(name: str) -> Any:
    def fail(tx: Transaction, items: list[Any]) -> list[Any]:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = name
        raise exc.OperationalError("COMMIT", (), error)

    return fail


@pytest.mark.parametrize(
    "name", ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_WRITE", "SQLITE_CORRUPT", "SQLITE_READONLY_DBMOVED"]
)
async def test_after_a_fault_of_the_disk_nothing_is_acknowledged_and_the_server_is_told(
    store: SQLite, database: SQLiteFile, name: str
) -> None:
    with pytest.raises(StorageUnavailable):
        await store.write(failing_with(name), [None])
    for _ in range(3):
        with pytest.raises(StorageUnavailable):
            await store.add([a_task()])

    assert len(database.fatal) == 1
    assert isinstance(database.fatal[0], StorageUnavailable)
    assert await rows(store, "SELECT count(*) AS n FROM task") == [{"n": 0}]


async def test_everybody_who_waited_when_the_disk_failed_is_told_so(store: SQLite, database: SQLiteFile) -> None:
    """Those in its transaction, those tried alone after it, and those in the queue behind it."""
    waiting = [
        asyncio.create_task(one)
        for one in (
            store.add([a_task()]),
            store.write(failing_with("SQLITE_IOERR_FSYNC"), [None]),
            *(store.add([a_task() for _ in range(3_000)]) for _ in range(3)),
        )
    ]

    answers = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20)

    assert isinstance(answers[1], StorageUnavailable)
    acknowledged = [one.task_id for answer in answers if isinstance(answer, list) for one in answer]
    stored = {row["task_id"] for row in await rows(store, "SELECT task_id FROM task")}
    assert stored == set(acknowledged)
    assert all(isinstance(answer, StorageUnavailable | list) for answer in answers)
    assert len(database.fatal) == 1


async def test_those_who_were_to_be_tried_alone_are_told_when_the_first_of_them_meets_the_fault(
    store: SQLite, database: SQLiteFile
) -> None:
    calls = []

    def fail(tx: Transaction, items: list[Any]) -> list[Any]:
        calls.append(items)
        if len(calls) == 1:
            raise ZeroDivisionError
        return list(failing_with("SQLITE_IOERR_FSYNC")(tx, items))

    waiting = [asyncio.create_task(store.write(fail, [i])) for i in range(4)]

    answers = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20)

    assert all(isinstance(answer, StorageUnavailable | ZeroDivisionError) for answer in answers)
    assert len(database.fatal) == 1


@contextlib.contextmanager
def no_file_may_grow() -> Iterator[None]:
    """Every write beyond the first byte of a file fails with EFBIG, which SQLite takes for an I/O error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_disk_that_really_fails_stops_the_store_and_keeps_what_was_answered(
    store: SQLite, database: SQLiteFile, clock: ManualClock
) -> None:
    before = await added(store, *(a_task() for _ in range(10)))
    with no_file_may_grow(), pytest.raises(StorageUnavailable):
        await store.add([a_task(payload=BIG)])
    with pytest.raises(StorageUnavailable):
        await store.add([a_task()])

    assert len(database.fatal) == 1
    await database.close()
    again = await database.open(clock)
    assert {row["task_id"] for row in await rows(again, "SELECT task_id FROM task")} == set(before)
    await added(again, a_task())


ON_A_SMALL_DISK = """
import asyncio, sys
from pathlib import Path
from taskq_server.clock import ManualClock
from taskq_server.core.errors import StorageFull
from taskq_server.store.sqlite.store import SQLite
from taskq_server.store.verbs.end_batch import Rules
from tests.store.given import a_task

async def main():
    folder, fatal = Path(sys.argv[1]), []
    ballast = folder / "ballast"
    ballast.write_bytes(b"x" * 9_000_000)
    store = await SQLite.open(folder / "taskq.db", ManualClock(), Rules(1, 3), fatal.append)
    answered, full = [], 0
    for _ in range(900):
        try:
            answered += [one.task_id for one in await store.add([a_task(payload=b"y" * 50_000)])]
        except StorageFull:
            full += 1
            if full == 5:
                ballast.unlink()
                for _ in range(10):
                    answered += [one.task_id for one in await store.add([a_task(payload=b"y" * 50_000)])]
                break
    assert full == 5, full
    assert not fatal, fatal
    await store.close()
    store = await SQLite.open(folder / "taskq.db", ManualClock(), Rules(1, 3), fatal.append)
    assert set(await store.get(answered)) == set(answered)
    await store.close()
    print("held", len(answered))

asyncio.run(main())
"""


def test_on_a_disk_that_is_really_full_exactly_what_was_answered_is_there(tmp_path: Path) -> None:
    """A file system of a few megabytes, in a namespace of its own."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    script = tmp_path / "script.py"
    script.write_text(ON_A_SMALL_DISK)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=24m none {disk} && exec {sys.executable} {script} {disk}"
    command = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"]), "sh", "-c", mount]
    probe = subprocess.run([*command[:-1], f"mount -t tmpfs -o size=24m none {disk}"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("may not mount")

    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], timeout=100,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1].startswith("held ")
