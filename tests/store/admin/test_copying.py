"""A copy is the same queue in another database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from taskq_server.clock import ManualClock
from taskq_server.store import schema
from taskq_server.store.copying import ends as copy_ends
from taskq_server.store.copying.rows import OF_A_DATABASE, ROWS
from taskq_server.store.sqlite.store import SQLite
from tests.store.admin.conftest import NewFile
from tests.store.admin.copies import (
    TABLES,
    contents,
    copied,
    found,
    mark_of,
    opened,
    run_all,
    run_sql,
    silent,
)
from tests.store.conftest import RULES


def test_every_table_is_copied_but_those_that_are_about_a_database() -> None:
    """Who adds a table decides here whether it is of a queue or of its database."""
    assert {rows.name for rows in ROWS} == set(schema.metadata.tables) - OF_A_DATABASE
    of_a_queue = {"route", "task", "attempt", "session", "dedup", "pause", "schedule", "firing", "token"}
    assert set(TABLES) == of_a_queue | {"bulk_operation", "audit", "stat", "failure_group"}


def test_the_queue_of_these_tests_has_something_of_everything(queue: str) -> None:
    rows = contents(queue)

    assert all(len(rows[table]) > 1 for table in TABLES)
    assert {state for (state,) in found(queue, "SELECT DISTINCT state FROM task")} == {1, 2, 3, 4, 5}
    for table in TABLES:
        for column in schema.metadata.tables[table].columns:
            assert found(queue, f'SELECT count("{column.name}") FROM {table}') > [(0,)], column  # noqa: S608


def test_from_sqlite_to_postgresql_and_back_every_row_is_the_same(queue: str, postgres: str, new_file: NewFile) -> None:
    back = new_file()
    there = copied(queue, postgres)
    here_again = copied(postgres, back)

    assert contents(queue) == contents(postgres) == contents(back)
    assert there == here_again
    assert [(line.table, line.state) for line in there] == [
        ("attempt", ""), ("audit", ""), ("bulk_operation", ""), ("dedup", ""), ("failure_group", ""), ("firing", ""),
        ("pause", ""), ("route", ""), ("schedule", ""), ("session", ""), ("stat", ""),
        ("task", "SCHEDULED"), ("task", "RUNNING"), ("task", "SUCCEEDED"), ("task", "FAILED"), ("task", "CANCELLED"),
        ("token", ""),
    ]  # fmt: skip
    assert sum(line.rows for line in there) == sum(len(rows) for rows in contents(queue).values())
    assert mark_of(postgres) == mark_of(back) == []


def test_between_two_of_a_kind_every_row_is_the_same_too(
    queue: str,
    postgres: str,
    another_postgres: str,
    new_file: NewFile,
) -> None:
    other_file = new_file()
    assert copied(queue, other_file) == copied(queue, postgres) == copied(postgres, another_postgres)
    assert contents(other_file) == contents(another_postgres) == contents(queue)


def test_a_copied_session_belongs_to_no_server_of_the_other_database(
    queue: str, postgres: str, new_file: NewFile
) -> None:
    back = new_file()
    copied(queue, postgres)
    copied(postgres, back)

    assert found(postgres, "SELECT DISTINCT server_seq FROM session") == [(0,)]
    assert found(back, "SELECT DISTINCT server_seq FROM session") == [(1,)]


def test_afterwards_the_tasks_run_each_once_and_new_ones_too(queue: str, postgres: str, new_file: NewFile) -> None:
    back = new_file()
    copied(queue, postgres)
    copied(postgres, back)

    runs, tasks = run_all(queue)
    assert runs == tasks > 95
    assert run_all(postgres) == run_all(back) == (runs, tasks)


def test_numbers_that_were_given_are_not_given_again_though_their_rows_are_gone(
    queue: str,
    postgres: str,
    another_postgres: str,
    new_file: NewFile,
) -> None:
    ((last,),) = found(queue, "SELECT seq FROM sqlite_sequence WHERE name = 'session'")
    ((newest,),) = found(queue, "SELECT max(session_seq) FROM session")
    assert last > newest
    file, other_file = new_file(), new_file()
    copied(queue, postgres)
    copied(postgres, another_postgres)
    copied(another_postgres, file)
    copied(file, other_file)

    for url in (postgres, another_postgres):
        for table, column in (("task", "seq"), ("route", "route_id")):
            ((highest,),) = found(url, f"SELECT max({column}) FROM {table}")  # noqa: S608
            assert found(url, f"SELECT nextval('{table}_{column}_seq')") == [(highest + 1,)]
        assert found(url, "SELECT nextval('session_session_seq_seq')") == [(last + 1,)]
    for url in (file, other_file):
        assert found(url, "SELECT seq FROM sqlite_sequence WHERE name = 'session'") == [(last,)]


def test_an_empty_queue_can_be_copied(postgres: str, another_postgres: str, new_file: NewFile) -> None:
    assert copied(postgres, another_postgres) == copied(another_postgres, new_file()) == []
    assert found(another_postgres, "SELECT nextval('task_seq_seq')") == [(1,)]


def test_a_target_that_a_server_has_used_and_left_empty_is_as_good_as_a_new_one(queue: str, tmp_path: Path) -> None:
    async def use() -> None:
        await (await SQLite.open(tmp_path / "used.db", ManualClock(), RULES, silent)).close()

    asyncio.run(use())
    copied(queue, f"sqlite:///{tmp_path}/used.db")
    asyncio.run(use())


def test_the_planner_of_the_target_is_told_what_is_there(
    queue: str, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    copied(queue, postgres)

    ((tuples,),) = found(postgres, "SELECT reltuples FROM pg_class WHERE relname = 'task'")
    assert tuples == len(contents(queue)["task"])


# ── chunks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def large(tmp_path: Path) -> str:
    """Twenty tasks of a megabyte."""
    url = f"sqlite:///{tmp_path}/large.db"
    opened(url).upgrade(silent)
    run_sql(
        url,
        "INSERT INTO task (seq, task_id, content_hash, route_id, state, priority, due_time_us, enqueue_time_us, "
        "payload) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) "
        "SELECT i, randomblob(16), x'00', 1, 1, 0, 0, 0, randomblob(1 << 20) FROM n",
    )
    return url


def test_a_chunk_is_bounded_by_its_bytes_as_well(large: str, postgres: str, new_file: NewFile) -> None:
    back = new_file()
    sizes: dict[str, list[int]] = {"sqlite": [], "postgres": []}

    def steps(kind: str) -> Callable[[str, int, int], None]:
        return lambda doing, done, total: sizes[kind].append(done) if doing == "copied" else None

    copied(large, postgres, steps("sqlite"))
    copied(postgres, back, steps("postgres"))

    assert sizes["sqlite"] == sizes["postgres"] == [8, 16, 20]
    assert contents(large) == contents(back)


def test_a_row_larger_than_a_chunk_is_a_chunk(
    large: str, postgres: str, another_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_ends, "CHUNK_BYTES", 1000)
    copied(large, postgres)
    assert copied(postgres, another_postgres)[0].rows == 20
