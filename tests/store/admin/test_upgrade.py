"""An upgrade while servers are at work: it waits in short turns, and does its work once."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from taskq_server.core.errors import StoreRefused
from taskq_server.store import migrate
from taskq_server.store.postgres import admin as postgres_admin
from taskq_server.store.postgres import lane
from taskq_server.store.postgres.engine import SETTINGS
from tests.store.admin.conftest import NewFile
from tests.store.admin.copies import found, opened, run_sql, silent
from tests.support import next_version
from tests.support.console import connect
from tests.support.databases import Databases


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    return tmp_path / "migrations"


@pytest.fixture
def with_next(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This program is one migration ahead of the databases."""
    shutil.copytree(migrate.SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    next_version.add_migration(scripts)
    monkeypatch.setattr(migrate, "to_head", partial(migrate.to_head, scripts=scripts, head=next_version.HEAD))


@pytest.fixture
def unmade(databases: Databases) -> Iterator[str]:
    """A PostgreSQL database without tables."""
    with databases.fresh() as url:
        run_sql(url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        yield url


class Server:
    """Short transactions, one after the other, with the patience of a server, until it is stopped."""

    INSERT = (
        "INSERT INTO task (task_id, content_hash, route_id, state, priority, due_time_us, enqueue_time_us) "
        "VALUES (decode(md5(random()::text), 'hex'), '', 1, 1, 0, 0, 0)"
    )

    def __init__(self) -> None:
        self.stopped = False
        self.done = 0
        self.longest_seconds = 0.0
        self._one_more = asyncio.Event()

    async def work(self, url: str) -> None:
        connection = await connect(url)
        await connection.execute("SET lock_timeout = '2s'; SET statement_timeout = '5s'")
        while not self.stopped:
            started = time.monotonic()
            async with connection.transaction():
                await connection.execute(self.INSERT)
                await connection.execute("UPDATE task SET priority = 1 WHERE seq = (SELECT max(seq) FROM task)")
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - started)
            self.done += 1
            self._one_more.set()
        await connection.close()

    async def to_do(self, more: int) -> None:
        """Returns when it has done as many more."""
        for _ in range(more):
            self._one_more.clear()
            await self._one_more.wait()


def test_a_new_database_is_made_and_to_upgrade_it_again_changes_nothing(unmade: str, new_file: NewFile) -> None:
    for url in (unmade, new_file()):

        def upgrade(url: str = url) -> list[tuple[str | None, str | None]]:
            return [opened(url).upgrade(silent) for _ in range(2)]

        assert postgres_admin.run(upgrade) == [(None, migrate.HEAD), (migrate.HEAD, migrate.HEAD)]
        assert found(url, "SELECT version_num FROM alembic_version") == [(migrate.HEAD,)]


async def test_it_waits_in_turns_for_one_that_holds_a_lock_and_those_at_work_go_on(
    postgres: str, with_next: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_admin, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(postgres_admin, "PAUSE_SECONDS", 0.1)
    server, loop, turns = Server(), asyncio.get_running_loop(), []
    at_work = asyncio.create_task(server.work(postgres))
    holder = await connect(postgres)
    await holder.execute("BEGIN; SELECT count(*) FROM task")
    let_go: list[asyncio.Task[str]] = []

    def say(what: str) -> None:
        turns.append(server.done)
        if len(turns) == 4:
            loop.call_soon_threadsafe(lambda: let_go.append(loop.create_task(holder.execute("ROLLBACK"))))

    answer = await asyncio.to_thread(postgres_admin.run, lambda: opened(postgres).upgrade(say))
    await server.to_do(10)
    server.stopped = True
    await at_work
    await holder.close()

    assert answer == (migrate.HEAD, next_version.HEAD)
    assert len(turns) >= 4
    assert turns == sorted(set(turns)), "between two turns work goes on"
    assert server.longest_seconds < 2
    assert found(postgres, "SELECT count(*) FROM task WHERE colour IS NULL AND priority = 1") == [(server.done,)]
    assert found(postgres, "SELECT count(*) FROM paint") == [(0,)]


async def test_it_gives_up_after_many_turns_and_has_changed_nothing(
    postgres: str, with_next: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_admin, "LOCK_SECONDS", 0.02)
    monkeypatch.setattr(postgres_admin, "PAUSE_SECONDS", 0)
    holder = await connect(postgres)
    await holder.execute("BEGIN; LOCK TABLE task IN ACCESS SHARE MODE")
    turns: list[str] = []

    with pytest.raises(StoreRefused) as caught:
        await asyncio.to_thread(postgres_admin.run, lambda: opened(postgres).upgrade(turns.append))
    await holder.close()

    assert caught.value.exit_code == 75
    assert "pg_stat_activity" in caught.value.hint
    assert len(turns) == postgres_admin.TRIES
    assert found(postgres, "SELECT version_num FROM alembic_version") == [(migrate.HEAD,)]


def test_the_turns_take_about_a_minute_and_each_ends_well_before_a_server_says_that_it_must_wait_too_long() -> None:
    assert postgres_admin.TRIES * (postgres_admin.LOCK_SECONDS + postgres_admin.PAUSE_SECONDS) == 60
    assert f"{2 * postgres_admin.LOCK_SECONDS}s" == SETTINGS["lock_timeout"]
    assert 2 * postgres_admin.LOCK_SECONDS <= lane.STALLED_SECONDS


def test_one_that_fails_on_the_way_leaves_the_version_before(postgres: str, with_next: None, scripts: Path) -> None:
    with next_version.add_migration(scripts).open("a") as script:
        script.write('    op.execute("SELECT bogus")\n')

    with pytest.raises(StoreRefused) as caught:
        postgres_admin.run(lambda: opened(postgres).upgrade(silent))

    assert caught.value.exit_code == 74 and "bogus" in caught.value.why
    assert found(postgres, "SELECT version_num FROM alembic_version") == [(migrate.HEAD,)]
    assert found(postgres, "SELECT to_regclass('paint')") == [(None,)]
