"""What is copied, and where to, must be whole, fit, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskq_server.core.errors import StoreRefused
from taskq_server.store import migrate
from taskq_server.store.postgres import admin as postgres_admin
from taskq_server.store.postgres import start as postgres_start
from taskq_server.store.sqlite import start as sqlite_start
from tests.store.admin.conftest import NewFile
from tests.store.admin.copies import (
    contents,
    copied,
    found,
    mark_of,
    opened,
    refused,
    run_sql,
)
from tests.support.databases import Databases

ROW_OF = {
    "task": "INSERT INTO task (seq, task_id, content_hash, route_id, state, priority, due_time_us, enqueue_time_us) "
    "VALUES (1, '', '', 1, 1, 0, 0, 0)",
    "attempt": "INSERT INTO attempt VALUES (1, 1, 1, '', 0, 0, 1, NULL)",
    "session": "INSERT INTO session VALUES (1, '', '', '{}', '{}', 1, '', '', 0, 0, NULL, 1)",
    "dedup": "INSERT INTO dedup VALUES ('', '', '', 1, NULL)",
    "route": "INSERT INTO route VALUES (1, '', '[]')",
}


@pytest.mark.parametrize("table", sorted(ROW_OF))
def test_a_target_with_a_row_in_it_is_refused_and_left_as_it_is(queue: str, postgres: str, table: str) -> None:
    run_sql(postgres, ROW_OF[table])

    refusal = refused(queue, postgres)

    assert refusal.exit_code == 78
    assert f"it has rows in {table}" in refusal.why
    assert sum(len(rows) for rows in contents(postgres).values()) == 1
    assert mark_of(postgres) == []


def test_a_file_in_use_is_neither_copied_from_nor_to(queue: str, postgres: str) -> None:
    lock = sqlite_start.take(Path(queue.removeprefix("sqlite:///")))
    try:
        assert refused(queue, postgres).exit_code == 75
        assert refused(postgres, queue).exit_code == 75
    finally:
        lock.release()
    copied(queue, postgres)


def test_a_postgresql_database_in_use_is_neither_copied_from_nor_to(
    queue: str, postgres: str, new_file: NewFile
) -> None:
    run_sql(postgres, "INSERT INTO server VALUES (1, 'kitchen:7', 0, 9000000000000000), (2, 'long dead', 0, 1)")

    for refusal in (refused(queue, postgres), refused(postgres, new_file())):
        assert refusal.exit_code == 75
        assert "in use by the server kitchen:7;" in str(refusal)
    run_sql(postgres, "UPDATE server SET alive_until_us = 1")
    copied(queue, postgres)
    copied(postgres, new_file())


@pytest.mark.parametrize("side", ["source", "target"])
def test_while_it_is_copied_no_server_can_start_on_either_side(
    queue: str, postgres: str, another_postgres: str, side: str
) -> None:
    copied(queue, postgres)
    url = postgres if side == "source" else another_postgres
    refusals = []

    def start_a_server(*_: object) -> None:
        try:
            run_sql(url, "SET lock_timeout = '10ms'; INSERT INTO server VALUES (1, 'x', 0, 0)")
        except Exception as error:  # noqa: BLE001
            refusals.append(type(error).__name__)
        with pytest.raises(StoreRefused) as caught, opened(url).looking() as connection:
            postgres_start.check(connection)
        refusals.append(str(caught.value.exit_code))

    copied(postgres, another_postgres, start_a_server)
    assert set(refusals) == {"LockNotAvailableError", "75"}


def test_two_copies_at_once_are_one(
    queue: str, postgres: str, new_file: NewFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_admin, "LOCK_SERVERS_SECONDS", 0.05)
    copied(queue, postgres)
    refusals: list[StoreRefused] = []

    def another() -> None:
        with opened(postgres).source() as one:
            one.generation()
            with pytest.raises(StoreRefused) as caught, opened(postgres).source():
                pass
            refusals.append(caught.value)

    postgres_admin.run(another)
    assert [refusal.exit_code for refusal in refusals] == [75]
    assert "in use by another copy" in refusals[0].why


def test_a_source_with_another_schema_is_refused(queue: str, postgres: str, new_file: NewFile) -> None:
    run_sql(queue, "UPDATE alembic_version SET version_num = '0001'")
    refusal = refused(queue, postgres)
    assert "schema 0001" in refusal.why and "taskq db upgrade" in refusal.hint

    run_sql(queue, "UPDATE alembic_version SET version_num = '9999'")
    refusal = refused(queue, postgres)
    assert "schema 9999" in refusal.why and "upgrade this program" in refusal.hint

    assert "does not exist" in refused(new_file(), postgres).why
    run_sql(postgres, "DROP TABLE alembic_version")
    assert "no tables yet" in refused(postgres, new_file()).why


def test_a_target_is_upgraded_first(queue: str, new_file: NewFile, databases: Databases) -> None:
    with databases.fresh() as url:
        run_sql(url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        copied(queue, url)
        assert found(url, "SELECT version_num FROM alembic_version") == [(migrate.HEAD,)]
