"""A look at tasks reads what it is bounded to: a range of the numbers, or a partial index of what is little."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import Engine, event

from taskq_server.clock import ManualClock
from taskq_server.core.filter import parse
from taskq_server.store.store import Store
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.looking import END, Look
from tests.store.conftest import PostgresDatabase, SQLiteFile
from tests.store.given import a_schedule, a_task, added, seconds
from tests.store.test_postgres_query_plans import BACKLOG, PREPARED, SCANS, explain
from tests.store.test_sqlite_query_plans import a_backlog
from tests.support.console import Console

FILTERS = [
    "",
    "state:FAILED",
    "state:CANCELLED name:cook",
    "state:RUNNING",
    "state:SCHEDULED name:cook",
    "is:due",
    "is:due name:cook",
    "is:unfinished processor:oven",
    "-state:SUCCEEDED error:burnt",
    "name:cook tag:x -error_type:Burnt finish_time<now",
    "schedule:waits",
    "id:019353a4-5b67-7cc2-9d1a-4b7e1c8f2a10",
    "rerun_of:019353a4-5b67-7cc2-9d1a-4b7e1c8f2a10",
]
OF_LITTLE = {"task_due", "task_running", "task_failed", "task_failed_seq", "task_cancelled_seq"}
"""Partial indexes that may be read whole, if they are small, which is asked first."""
TO_THE_BEGINNING = "SEARCH task USING INTEGER PRIMARY KEY (rowid<?)"
"""Through all tasks below a number: no way to what is few."""


async def an_afternoon(store: Store) -> None:
    await store.create_schedule(a_schedule("waits", every=seconds(1)))
    for text in FILTERS:
        for only_count in (False, True):
            await store.look_at_tasks(Look(parse(text), END, 50, 1_000, only_count))
    for task_id in await added(store, a_task(priority=1), a_task(key="table-7")):
        await store.history(task_id)
        await store.facts(task_id)


async def said_in(store: Store) -> dict[str, Any]:
    """Every statement of an afternoon that reads tasks, and some of its values."""
    said: dict[str, Any] = {}

    def note(connection: Any, cursor: Any, statement: str, values: Any, context: Any, many: bool) -> None:
        if statement.startswith("SELECT") and re.search(r"FROM task\b", statement):
            said.setdefault(statement, values)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        await an_afternoon(store)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert len(said) > 20
    return said


async def test_sqlite_walks_along_no_table(sqlite_database: SQLiteFile, clock: ManualClock) -> None:
    store = await sqlite_database.open(clock)
    await a_backlog(store)
    said = await said_in(store)

    def plan(tx: Transaction, statements: list[str]) -> list[list[str]]:
        return [
            [row[3] for row in tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", said[statement])]
            for statement in statements
        ]

    plans = dict(zip(said, await store.write(plan, list(said)), strict=True))

    walked = {
        statement: step
        for statement, steps in plans.items()
        for step in steps
        if (step.startswith("SCAN task") and not any(step.endswith(f"INDEX {index}") for index in OF_LITTLE))
        or (step == TO_THE_BEGINNING and " AS few" in statement)
    }
    assert walked == {}


@pytest.mark.parametrize("analyzed", ["never", "when they were empty", "just now"])
async def test_postgresql_walks_along_no_table_and_joins_by_indexes(
    analyzed: str, postgres_database: PostgresDatabase, clock: ManualClock, console: Console
) -> None:
    if analyzed == "when they were empty":
        console.run("VACUUM ANALYZE")
    console.run(BACKLOG)
    if analyzed == "just now":
        console.run("VACUUM ANALYZE")
    store = await postgres_database.open(clock)
    said = [statement for statement in await said_in(store) if statement.startswith(PREPARED)]

    plans = dict(zip(said, await store.write(explain, said), strict=True))

    walked = {
        statement: str(step)
        for statement, steps in plans.items()
        for step in steps
        if step.table == "task"
        and step.kind in SCANS
        and "Index Cond" not in step.facts
        and step.facts.get("Index Name") not in OF_LITTLE
        and step.above[:1] != ("Limit",)
    }
    compared = [
        statement
        for statement, steps in plans.items()
        if any(step.kind == "Nested Loop" and "Join Filter" in step.facts for step in steps)
    ]
    assert (walked, compared) == ({}, [])
