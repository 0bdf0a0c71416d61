"""The schema's history makes exactly the schema, and makes it in one piece."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event, inspect

from taskq_server.store import migrate, schema
from taskq_server.store.store import Store
from tests.store.conftest import SQLiteFile
from tests.store.given import rows


@pytest.fixture
def database(sqlite_database: SQLiteFile) -> SQLiteFile:
    return sqlite_database


def a_file(path: Path) -> Connection:
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def connect(connection, _record):  # type: ignore[no-untyped-def]
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection):  # type: ignore[no-untyped-def]
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine.connect()


def statements_of_the_schema(connection: Connection) -> dict[str, set[str]]:
    """The parts of each statement: a column that was added later stands at the end of it."""
    found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {name: parts_of(sql) for name, sql in found if name != "alembic_version"}


def parts_of(sql: str) -> set[str]:
    start, _, rest = " ".join(sql.split()).partition("(")
    columns, _, end = rest.rpartition(")")
    return {start.strip(), end.strip(), *(part.strip() for part in columns.split(","))}


def test_alembic_finds_no_difference_between_the_history_and_the_schema(tmp_path: Path) -> None:
    with a_file(tmp_path / "taskq.db") as connection, connection.begin():
        migrate.to_head(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})

        assert compare_metadata(context, schema.metadata) == []


def test_the_history_makes_the_same_tables_and_indexes_to_the_letter(tmp_path: Path) -> None:
    """Alembic does not compare the conditions of partial indexes, nor WITHOUT ROWID."""
    with a_file(tmp_path / "history.db") as connection, connection.begin():
        migrate.to_head(connection)
        by_history = statements_of_the_schema(connection)
    with a_file(tmp_path / "schema.db") as connection, connection.begin():
        schema.metadata.create_all(connection)
        by_schema = statements_of_the_schema(connection)

    assert by_history == by_schema


def test_the_history_is_one_line_that_ends_where_the_server_says(tmp_path: Path) -> None:
    directory = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))

    assert directory.get_heads() == [migrate.HEAD]
    assert len(directory.get_bases()) == 1


def test_to_migrate_twice_is_to_migrate_once(tmp_path: Path) -> None:
    with a_file(tmp_path / "taskq.db") as connection:
        for _ in range(2):
            with connection.begin():
                migrate.to_head(connection)
        with connection.begin():
            assert migrate.current(connection) == migrate.HEAD


@pytest.mark.parametrize("after", range(0, 20))
def test_a_migration_that_breaks_off_after_any_statement_leaves_nothing(tmp_path: Path, after: int) -> None:
    class PowerLoss(Exception):
        pass

    with a_file(tmp_path / "taskq.db") as connection:
        left = iter([None] * after)

        def cut(conn, cursor, statement, values, context, many):  # type: ignore[no-untyped-def]
            if statement.lstrip().startswith(("CREATE", "INSERT", "UPDATE")) and next(left, "none") == "none":
                raise PowerLoss

        event.listen(connection, "before_cursor_execute", cut)
        whole = False
        try:
            with connection.begin():
                migrate.to_head(connection)
                whole = True
        except PowerLoss:
            pass
        event.remove(connection, "before_cursor_execute", cut)
        with connection.begin():
            tables = inspect(connection).get_table_names()
            assert tables == [] or whole
        with connection.begin():
            migrate.to_head(connection)
        with connection.begin():
            assert migrate.current(connection) == migrate.HEAD


async def test_a_store_is_at_the_head_of_the_history(store: Store) -> None:
    assert await rows(store, "SELECT version_num FROM alembic_version") == [{"version_num": migrate.HEAD}]
