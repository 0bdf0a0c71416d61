"""What must hold before a server may use a PostgreSQL database, and what it only warns about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog

from taskq_server.core.errors import StoreRefused
from taskq_server.store import migrate
from taskq_server.store.postgres import admin as postgres_admin
from taskq_server.store.postgres import start as postgres_start
from taskq_server.store.postgres.engine import engine_of
from taskq_server.store.postgres.start import Facts
from tests.support.console import Console
from tests.support.databases import Databases

SOUND = Facts(160_004, "16.4", "UTF8", False, "on", "on", "on", 0)


@pytest.fixture
def database(postgres_url: str) -> Iterator[Console]:
    with Console(postgres_url) as console:
        yield console


def check(database: Console, url: str | None = None) -> list[dict[str, Any]]:
    """As a server does; answers what it logs."""

    def work() -> None:
        with engine_of(url or database.url).sync_engine.connect() as connection:
            postgres_start.check(connection)

    with structlog.testing.capture_logs() as logs:
        postgres_admin.run(work)
    return [dict(entry) for entry in logs]


def refused(database: Console, url: str | None = None) -> StoreRefused:
    with pytest.raises(StoreRefused) as caught:
        check(database, url)
    assert caught.value.exit_code == 78
    return caught.value


def test_a_database_at_head_is_accepted_and_what_makes_it_unsafe_is_warned_about(database: Console) -> None:
    database.run("SET client_min_messages = error")
    warned = [entry["setting"] for entry in check(database)]

    assert warned == [name for name in ("fsync", "full_page_writes") if database.value(f"SHOW {name}") != "on"]


def test_a_database_without_tables_is_refused_and_the_command_is_told(database: Console) -> None:
    database.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    refusal = refused(database)
    assert "no tables yet" in refusal.why and "taskq db upgrade" in refusal.hint


def test_an_older_schema_is_refused_and_not_upgraded(database: Console) -> None:
    database.run("UPDATE alembic_version SET version_num = '0001'")

    refusal = refused(database)
    assert "schema 0001" in refusal.why and "taskq db upgrade" in refusal.hint
    assert database.value("SELECT version_num FROM alembic_version") == "0001"


def test_a_newer_schema_is_refused_unless_it_serves_this_server_too(database: Console) -> None:
    database.run("UPDATE alembic_version SET version_num = '9999'")
    database.run("UPDATE meta SET value = $1 WHERE key = 'serves_from'", migrate.HEAD)
    assert "newer than this server" in check(database)[0]["event"]

    database.run("UPDATE meta SET value = '9998' WHERE key = 'serves_from'")
    assert "does not know" in refused(database).why
    database.run("DELETE FROM meta")
    assert "does not know" in refused(database).why


def test_a_database_with_another_encoding_is_refused(database: Console, databases: Databases) -> None:
    database.run("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    try:
        refusal = refused(database, databases.url("latin"))
    finally:
        database.run("DROP DATABASE latin WITH (FORCE)")

    assert "LATIN1" in refusal.why and "UTF8" in refusal.hint


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (replace(SOUND, version_number=120_022, version="12.22"), "the database is PostgreSQL 12.22"),
        (replace(SOUND, encoding="SQL_ASCII"), "encoding SQL_ASCII"),
        (replace(SOUND, in_recovery=True), "standby"),
    ],
)
def test_an_old_version_another_encoding_and_a_standby_are_refused(facts: Facts, why: str) -> None:
    with pytest.raises(StoreRefused) as caught:
        postgres_start.refuse(facts)
    assert why in caught.value.why
    assert caught.value.exit_code == 78


def test_what_is_sound_is_neither_refused_nor_warned_about() -> None:
    for facts in (SOUND, replace(SOUND, version_number=130_000), replace(SOUND, clock_ahead_us=-1_000_000)):
        postgres_start.refuse(facts)
        assert postgres_start.warnings(facts) == []


@pytest.mark.parametrize(("ahead_us", "seconds"), [(1_000_001, 1.0), (-90_000_000, -90.0)])
def test_a_clock_that_differs_is_warned_about(ahead_us: int, seconds: float) -> None:
    ((warning, details),) = postgres_start.warnings(replace(SOUND, clock_ahead_us=ahead_us))
    assert "clock" in warning
    assert details == {"database_ahead_seconds": seconds}


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_what_a_power_failure_would_corrupt_is_warned_about(setting: str) -> None:
    ((warning, _),) = postgres_start.warnings(replace(SOUND, **{setting: "off"}))
    assert warning.startswith(f"{setting} is off")


def test_the_clocks_of_this_machine_do_not_differ(database: Console) -> None:
    def look() -> Facts:
        with engine_of(database.url).sync_engine.connect() as connection:
            return postgres_start.facts(connection)

    assert abs(postgres_admin.run(look).clock_ahead_us) < 500_000
