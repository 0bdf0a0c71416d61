"""A copy that differs is told, and what the other database cannot hold is named."""

from __future__ import annotations

import math

import pytest

from taskq_server.store.copying.ends import PostgresEnd
from taskq_server.store.copying.rows import ROWS, Row, Rows, Sums
from tests.store.admin.conftest import NewFile
from tests.store.admin.copies import (
    contents,
    copied,
    mark_of,
    refused,
    run_sql,
)


@pytest.mark.parametrize(
    ("bug", "told"),
    [
        ("UPDATE task SET payload = payload || '\\x00' WHERE seq = 7", "task SUCCEEDED"),
        ("UPDATE task SET state = 5 WHERE seq = 7", "task CANCELLED"),
        ("UPDATE task SET headers = NULL WHERE seq = 7", "task SUCCEEDED"),
        ("UPDATE task SET progress_fraction = 0.3 WHERE progress_fraction IS NOT NULL", "task RUNNING"),
        ("UPDATE task SET tags = '' WHERE seq = 7", "task SUCCEEDED"),
        ("DELETE FROM attempt", "attempt"),
        ("UPDATE dedup SET key = upper(key) WHERE key = 'a3'", "dedup"),
        ("UPDATE session SET labels = labels || ' '", "session"),
        ("INSERT INTO route (route_id, name, requires) VALUES (99, 'more', '[]')", "route"),
    ],
)
def test_a_copy_that_differs_in_anything_is_told_and_stays_marked(
    queue: str, postgres: str, monkeypatch: pytest.MonkeyPatch, bug: str, told: str
) -> None:
    monkeypatch.setattr(PostgresEnd, "number_after", lambda end, last: end.connection.exec_driver_sql(bug))

    refusal = refused(queue, postgres)

    assert refusal.exit_code == 65
    assert f"in the target {told}" in refusal.why or f"in the source {told}" in refusal.why
    assert mark_of(postgres) != []
    monkeypatch.undo()
    assert refused(queue, postgres).exit_code == 65, "to run it again mends nothing, and says so"


def of(table: str) -> Rows:
    return next(rows for rows in ROWS if rows.name == table)


A_TASK: Row = (*range(1, 20), *[None] * (len(of("task").columns) - 19))


def test_a_checksum_tells_every_value_in_every_column_from_every_other() -> None:
    values = [None, 0, 1, -1, 1 << 40, "", "0", "é", "e\u0301", "None", b"", b"\0", b"0", 0.5, 1.5, 1e300, math.inf]
    rows = of("task")
    at_server = of("session").columns.index("server_seq")
    digests = {rows.digest((*A_TASK[:i], value, *A_TASK[i + 1 :])) for i in range(20, 30) for value in values}
    session = (*range(at_server), 0)

    assert len(digests) == 10 * (len(values) - 1) + 1  # all that are None are one
    assert of("session").digest(session) == of("session").digest((*session[:-1], 7))
    assert of("session").digest(session) != of("session").digest((*session[:-2], 7, 0))


def test_a_checksum_does_not_know_what_one_of_the_databases_cannot_keep() -> None:
    rows, at = of("task"), of("task").columns.index("progress_fraction")

    def with_progress(value: object) -> int:
        return rows.digest((*A_TASK[:at], value, *A_TASK[at + 1 :]))

    assert with_progress(0.0) == with_progress(-0.0) != with_progress(5e-324)


def test_a_sum_does_not_depend_on_the_order_but_on_how_often() -> None:
    a, b = A_TASK, (2, *A_TASK[1:])

    def total(*chunk: Row) -> object:
        sums = Sums()
        for row in chunk:
            sums.add(of("task"), [row])
        return sums.found

    assert total(a, b) == total(b, a)
    assert len({str(total(*chunk)) for chunk in ([a], [b], [a, a], [a, b], [b, b], [a, a, a])}) == 6


@pytest.mark.parametrize(
    ("table", "where", "change", "column", "why"),
    [
        ("task", "seq = 7", "dedup_key = 'a' || char(0) || 'b'", "dedup_key", "holds U+0000"),
        ("task", "seq = 8", "headers = CAST(x'ff' AS TEXT)", "headers", "is not UTF-8"),
        ("task", "seq = 9", "priority = 70000", "priority", "is too large a number"),
        ("task", "seq = 9", "attempt = 'many'", "attempt", "is str, not int"),
        ("task", "seq = 9", "payload = 'text'", "payload", "is str, not bytes"),
        ("task", "seq = 9", "progress_fraction = 'half'", "progress_fraction", "is str, not float"),
        ("attempt", "task_seq = 31, attempt = 1", "failure = x'00'", "failure", "is not UTF-8"),
        ("dedup", "scope = 'cook', key = 'k'", "hold_until_us = 0.5", "hold_until_us", "is float, not int"),
    ],
)
def test_a_row_that_postgresql_cannot_hold_is_named_and_not_changed(
    queue: str, postgres: str, table: str, where: str, change: str, column: str, why: str
) -> None:
    run_sql(queue, f"UPDATE {table} SET {change} WHERE {where.replace(',', ' AND')}")  # noqa: S608

    refusal = refused(queue, postgres)

    assert refusal.exit_code == 65
    assert refusal.why.startswith(f"{column} of the row of {table} with {where} {why}")
    assert mark_of(postgres) != []


def test_a_state_that_does_not_exist_is_copied_as_it_is(queue: str, postgres: str) -> None:
    run_sql(queue, "UPDATE task SET state = 77 WHERE seq = 7")

    assert [(line.state, line.rows) for line in copied(queue, postgres) if line.state == "77"] == [("77", 1)]


def test_when_that_row_is_mended_the_copy_goes_on(queue: str, postgres: str) -> None:
    run_sql(queue, "UPDATE task SET tags = char(0) WHERE seq = 7")
    refused(queue, postgres)
    run_sql(queue, "UPDATE task SET tags = NULL WHERE seq = 7")

    copied(queue, postgres)


def test_a_row_that_sqlite_cannot_hold_is_named(queue: str, postgres: str, new_file: NewFile) -> None:
    copied(queue, postgres)
    run_sql(postgres, "UPDATE task SET progress_fraction = 'NaN' WHERE seq = 7")

    refusal = refused(postgres, new_file())

    assert refusal.exit_code == 65
    assert "progress_fraction of the row of task with seq = 7 is not a number" in refusal.why


def test_numbers_at_their_ends_are_the_same(queue: str, postgres: str, new_file: NewFile) -> None:
    back = new_file()
    copied(queue, postgres)
    run_sql(
        postgres,
        "UPDATE task SET due_time_us = 9223372036854775807, expire_time_us = -9223372036854775808, priority = -32768, "
        "attempt = 2147483647, progress_fraction = -0.0, payload_crc = 4294967295, headers = '' WHERE seq = 7",
    )
    copied(postgres, back)

    assert contents(postgres) == contents(back)
