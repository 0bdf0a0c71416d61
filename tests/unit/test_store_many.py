"""One statement for many rows, as SQLite is given it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine, event

from taskq_server.store import schema
from taskq_server.store.many import Many

PUT = Many.insert(schema.meta, ("key", "value"), order_by=("key",), end="ON CONFLICT (key) DO NOTHING")
SET = Many(schema.meta, "UPDATE meta SET value = {value} {from rows} WHERE meta.key = {key}")
DROP = Many(schema.meta, "DELETE FROM meta {using rows} WHERE meta.key = {key}")


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        schema.metadata.create_all(connection)
        yield connection
    engine.dispose()


def kept(connection: Connection) -> dict[str, str]:
    return {row.key: row.value for row in connection.exec_driver_sql("SELECT key, value FROM meta")}


@pytest.mark.parametrize("many", [1, 2, 7, 8, 9, 31, 513, 1_000])
def test_as_many_rows_as_there_are_are_written(connection: Connection, many: int) -> None:
    assert PUT.run(connection, [(f"k{i}", f"v{i}") for i in range(many)]) == many
    assert SET.run(connection, [(f"w{i}", f"k{i}") for i in range(0, many, 2)]) == (many + 1) // 2

    assert kept(connection) == {f"k{i}": f"v{i}" if i % 2 else f"w{i}" for i in range(many)}
    assert DROP.run(connection, [(f"k{i}",) for i in range(many)]) == many
    assert kept(connection) == {}


def test_only_rows_that_were_touched_are_counted(connection: Connection) -> None:
    PUT.run(connection, [("a", "1")])

    assert PUT.run(connection, [("a", "2"), ("b", "2")]) == 1
    assert SET.run(connection, [("3", "b"), ("3", "c")]) == 1
    assert kept(connection) == {"a": "1", "b": "3"}


def test_a_thousand_rows_are_a_few_statements_of_a_few_shapes(connection: Connection) -> None:
    said: list[str] = []
    event.listen(connection, "before_cursor_execute", lambda _c, _u, statement, *_: said.append(statement))

    for many in range(1, 1_001, 37):
        PUT.run(connection, [(f"{many}/{i}", "v") for i in range(many)])
    shapes = len(set(said))
    said.clear()
    PUT.run(connection, [(f"k{i}", "v") for i in range(1_000)])

    assert len(said) <= 10
    assert shapes <= 5


def test_a_column_that_nobody_has_becomes_null_and_costs_no_variable(connection: Connection) -> None:
    task = {"seq": 1, "task_id": b"1", "content_hash": b"", "route_id": 1, "state": 2, "priority": 0}
    connection.execute(
        schema.task.insert(), [{**task, "due_time_us": 0, "enqueue_time_us": 0, "result": b"x", "result_type": "y"}]
    )
    finish = Many(
        schema.task,
        "UPDATE task SET result = {result}, result_type = {result_type}, finish_time_us = {now_us} + {now_us} "
        "{from rows} WHERE task.seq = {seq}",
        shared=("now_us",),
    )
    sent: list[tuple[object, ...]] = []
    event.listen(connection, "before_cursor_execute", lambda _c, _u, _s, values, *_: sent.append(values))

    finish.run(connection, [(None, "t", 1)], 21)

    assert sent == [(21, "t", 1)]
    found = connection.exec_driver_sql("SELECT result, result_type, finish_time_us FROM task").one()
    assert tuple(found) == (None, "t", 42)
