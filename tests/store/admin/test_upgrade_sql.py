"""`taskq db sql`: what an upgrade does, for whoever alone may change the tables."""

from __future__ import annotations

from typing import Any

import pytest

from taskq_server.core.errors import StoreRefused
from taskq_server.store import migrate
from taskq_server.store.postgres import admin as postgres_admin
from taskq_server.store.postgres.admin import PostgresDatabase
from tests.store.admin.copies import run_sql
from tests.support.process import taskq_db

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
EMPTY = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"


def shape(url: str) -> list[Any]:
    """Tables, columns, indexes, settings and version."""

    def look() -> list[Any]:
        with PostgresDatabase(url).looking() as connection:
            return [connection.exec_driver_sql(query).all() for query in SHAPE]

    return postgres_admin.run(look)


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


def test_there_is_nothing_to_do_for_one_that_has_all(postgres: str) -> None:
    assert printed(f"--database-url={postgres}") == ""
    assert printed("--since=none").startswith("BEGIN;\n") and printed("--since=none").endswith("COMMIT;\n")


def test_it_is_of_known_versions_and_of_postgresql_alone() -> None:
    with pytest.raises(StoreRefused, match="'0999' is no version; must be none, or of 0001, "):
        migrate.sql("0999")
    process = taskq_db("sql", "--database-url=sqlite:////nowhere.db")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "name a PostgreSQL database" in err
