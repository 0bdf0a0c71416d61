"""`taskq db sql`: what an upgrade does, for whoever alone may change the tables."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

import asyncpg
import pytest

from taskq_server.core.errors import StoreRefused
from taskq_server.store import migrate
from taskq_server.store.postgres import admin as postgres_admin
from taskq_server.store.postgres.admin import PostgresDatabase
from tests.store.admin.copies import found, run_sql
from tests.support.console import Console, connect
from tests.support.process import taskq_db
from tests.support.waiting import until_async

SHAPE = (
    "SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name, ordinal_position "
    "FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 7",
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    "SELECT relname, reloptions FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace "
    "WHERE nspname = 'public' ORDER BY 1",
    "SELECT attrelid::regclass::text, attname, attstorage FROM pg_attribute WHERE attrelid IN "
    "(SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'public') ORDER BY 1, 2",
    "SELECT version_num FROM alembic_version",
    "SELECT value FROM meta WHERE key = 'serves_from'",
)
WAITING = (
    "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database "
    "WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted"
)
EMPTY = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"


def shape(url: str) -> list[Any]:
    """Tables, columns, indexes, settings and version."""

    def look() -> list[Any]:
        with PostgresDatabase(url).looking() as connection:
            return [connection.exec_driver_sql(query).all() for query in SHAPE]

    return postgres_admin.run(look)


def tables(url: str) -> list[Any]:
    """The same without what only a database with our tables can tell."""
    return [found(url, query) for query in SHAPE[:4]]


def printed(*arguments: str) -> str:
    process = taskq_db("sql", *arguments)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def test_what_is_printed_makes_the_tables_that_an_upgrade_makes(postgres: str) -> None:
    made = shape(postgres)
    run_sql(postgres, EMPTY)
    run_sql(postgres, printed(f"--database-url={postgres}"))
    assert shape(postgres) == made


def test_it_goes_on_from_every_version(postgres: str) -> None:
    made = shape(postgres)
    for version in range(1, int(migrate.HEAD)):
        before = f"{version:04}"
        whole = migrate.sql(None)
        first = whole[: whole.index(f"-- Running upgrade {before} -> ")] + "COMMIT;"
        run_sql(postgres, EMPTY)
        run_sql(postgres, first)
        run_sql(postgres, printed(f"--since={before}"))
        assert shape(postgres) == made, before


@pytest.mark.parametrize("since", ["none", "0003", "0005"])
@pytest.mark.parametrize("has", ["none", "0003", migrate.HEAD])
def test_on_another_version_it_fails_and_changes_nothing(postgres: str, since: str, has: str) -> None:
    # given
    if has != migrate.HEAD:
        run_sql(postgres, EMPTY)
    if has == "0003":
        whole = migrate.sql(None)
        run_sql(postgres, whole[: whole.index("-- Running upgrade 0003 -> ")] + "COMMIT;")
    before = tables(postgres)

    # when
    with pytest.raises(asyncpg.RaiseError) if since != has else nullcontext() as raised:
        run_sql(postgres, migrate.sql(None if since == "none" else since))

    # then
    if since == has:
        assert tables(postgres) != before
    else:
        assert raised.value.args[0] == f"this is for schema {since}; the database has {has}"
        assert tables(postgres) == before


async def test_of_two_at_once_the_second_waits_for_the_first_and_then_finds_it_done(postgres: str) -> None:
    # given
    whole = migrate.sql(None)
    await asyncio.to_thread(run_sql, postgres, EMPTY, whole[: whole.index("-- Running upgrade 0005 -> ")] + "COMMIT;")
    rest = migrate.sql("0005")
    one, other = await connect(postgres), await connect(postgres)

    # when
    await one.execute(rest.removesuffix("COMMIT;\n"))
    patient = rest.replace("lock_timeout = '1s'", "lock_timeout = '30s'")
    second = asyncio.create_task(other.execute(patient))
    with Console(postgres) as console:
        await until_async(lambda: console.value(WAITING), "the second waits")
    await one.execute("COMMIT")

    # then
    with pytest.raises(asyncpg.RaiseError, match=f"the database has {migrate.HEAD}"):
        await second
    for connection in (one, other):
        await connection.close()


def test_there_is_nothing_to_do_for_one_that_has_all(postgres: str) -> None:
    assert printed(f"--database-url={postgres}") == ""
    assert printed("--since=none").startswith("BEGIN;\n") and printed("--since=none").endswith("COMMIT;\n")


def test_it_is_of_known_versions_and_of_postgresql_alone() -> None:
    with pytest.raises(StoreRefused, match="'0999' is no version; must be none, or of 0001, "):
        migrate.sql("0999")
    process = taskq_db("sql", "--database-url=sqlite:////nowhere.db")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "name a PostgreSQL database" in err
