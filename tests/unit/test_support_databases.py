"""Databases for tests: what one test leaves behind, the next does not find."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import asyncpg
import pytest

from taskq_server.store import migrate
from taskq_server.store.postgres.engine import engine_of
from tests.support.console import Console, connect
from tests.support.databases import Databases

ROUTES = "INSERT INTO route (name, requires) SELECT n, '[]' FROM generate_series(1, $1) n"


@pytest.fixture(scope="module")
def databases() -> Iterator[Databases]:
    with Databases() as databases:
        yield databases


def database_after(databases: Databases, *statements: str) -> tuple[str, str]:
    """The URLs of the database in which these were run, and of the one that is handed out next."""
    with databases.fresh() as used, Console(used) as console:
        for statement in statements:
            console.run(statement)
    with databases.fresh() as next_one:
        return used, next_one


def test_a_database_has_the_schema_at_head_and_no_rows(databases: Databases) -> None:
    with databases.fresh() as url, Console(url) as console:
        assert console.value("SELECT version_num FROM alembic_version") == migrate.HEAD
        assert console.value("SELECT count(*) FROM task") == 0
        assert console.rows("SELECT key FROM meta") == [("serves_from",)]


@pytest.mark.parametrize("routes", [3, 5000])
def test_a_used_one_is_emptied_and_counts_from_one(databases: Databases, routes: int) -> None:
    with databases.fresh() as url, Console(url) as console:
        given = console.rows("SELECT key, value FROM meta")
        console.run(ROUTES, routes)
        console.run("UPDATE meta SET value = 'x'; INSERT INTO meta VALUES ('y', 'z')")
    with databases.fresh() as same, Console(same) as console:
        assert same == url
        assert console.rows("SELECT key, value FROM meta") == given
        console.run(ROUTES, 1)
        assert console.rows("SELECT route_id FROM route") == [(1,)]


def test_two_at_a_time_are_two(databases: Databases) -> None:
    with databases.fresh() as one, databases.fresh() as other:
        assert one != other


async def test_a_bare_one_has_no_tables_and_can_be_given_them(databases: Databases) -> None:
    with databases.bare() as url:
        engine = engine_of(url)
        async with engine.begin() as connection:
            assert await connection.run_sync(migrate.current) is None
            await connection.run_sync(migrate.to_head)
        await engine.dispose()
    with pytest.raises(asyncpg.InvalidCatalogNameError), Console(url) as console:
        console.run("SELECT 1")


async def test_connections_that_a_test_leaves_behind_are_ended_with_their_locks(databases: Databases) -> None:
    with databases.fresh() as url:
        left = await connect(url)
        await left.execute("BEGIN; LOCK TABLE task; INSERT INTO meta VALUES ('half', 'done')")
    with databases.fresh() as same, Console(same) as console:
        assert same == url
        assert console.value("SELECT count(*) FROM task") == 0
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await left.execute("COMMIT")
    left.terminate()


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE task ADD COLUMN more int",
        "DROP INDEX task_due",
        "ALTER TABLE task DROP CONSTRAINT task_pkey",
        "CREATE TABLE more (n int)",
        "ANALYZE task",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET jit = off', current_database()); END $$",
    ],
)
def test_one_that_is_no_longer_like_the_others_is_not_handed_out_again(databases: Databases, statement: str) -> None:
    used, next_one = database_after(databases, statement)
    assert used != next_one
    with pytest.raises(asyncpg.InvalidCatalogNameError), Console(used) as console:
        console.run("SELECT 1")


def test_one_whose_connections_were_all_ended_is_handed_out_all_the_same(databases: Databases) -> None:
    everyone = "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
    used, next_one = database_after(
        databases, f"{everyone} WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert used == next_one


def test_a_server_of_somebody_elses_is_left_as_it_was(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    with Console(databases.url("postgres")) as console:
        names = "SELECT datname FROM pg_database ORDER BY datname"
        before = console.rows(names)
        monkeypatch.setenv("TASKQ_TEST_PG_URL", databases.url("postgres"))
        with Databases() as others:
            assert others.process is None
            with others.fresh() as url, ExitStack() as stack:
                stack.enter_context(Console(url)).run("INSERT INTO meta VALUES ('a', 'b')")
                assert len(console.rows(names)) == len(before) + 2
        assert console.rows(names) == before
