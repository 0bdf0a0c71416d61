"""What finished and what others wait for costs nothing: every hot statement is a range of an index of its own."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import event, select

from taskq_server.clock import ManualClock
from taskq_server.core.task import DedupConflict, Progress
from taskq_server.store import schema
from taskq_server.store.sqlite.store import SQLite
from taskq_server.store.store import Store
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.draining import NewDrain
from taskq_server.store.verbs.listing import Page
from taskq_server.store.verbs.living import Advance, Grace, Sign
from taskq_server.store.verbs.pausing import NewPause
from taskq_server.store.verbs.schedules import counts
from tests.store.conftest import SQLiteFile
from tests.store.given import (
    a_processor,
    a_retry,
    a_task,
    added,
    end,
    failed,
    lease,
    minutes,
    released,
    rows,
    running,
    seconds,
    succeeded,
    tamper,
)


@pytest.fixture
def database(sqlite_database: SQLiteFile) -> SQLiteFile:
    return sqlite_database


@pytest.fixture
async def plans(database: SQLiteFile, clock: ManualClock) -> dict[str, list[str]]:
    """The plan of every statement of a busy day, over a table with a backlog."""
    store = await database.open(clock)
    await a_backlog(store)
    clock.advance(us=minutes(61))
    statements: dict[str, Any] = {}

    def note(connection: Any, cursor: Any, statement: str, values: Any, context: Any, many: bool) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE", "INSERT", "WITH")):
            statements.setdefault(statement, values[0] if many else values)

    for engine in (store._write_engine, store._read_engine):
        event.listen(engine, "before_cursor_execute", note)
    await a_busy_day(store, clock)
    for engine in (store._write_engine, store._read_engine):
        event.remove(engine, "before_cursor_execute", note)
    found: dict[str, list[str]] = {}

    def explain(tx: Transaction, items: list[None]) -> list[None]:
        for statement, values in statements.items():
            plan = tx.connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, values)
            found[statement] = [row[3] for row in plan]
        return items

    await store.write(explain, [None])
    return found


async def a_backlog(store: Store) -> None:
    """Far more that is finished, waiting and old than what is due; and no statistics that could hide a bad plan."""
    oven = await a_processor(store, slots=900)
    held = await running(store, oven, *(a_task(key=f"old{i}", ttl=minutes(60)) for i in range(300)))
    await store.end([released(one) for one in held])
    held = (await lease(store, oven)).assignments
    await store.end([succeeded(one) for one in held])
    await added(store, *(a_task("other", due_in=minutes(60), expires_at=1 << 60) for _ in range(300)))
    for _ in range(50):
        await store.unregister((await a_processor(store)).seq)


async def a_busy_day(store: SQLite, clock: ManualClock) -> None:
    oven = await a_processor(store, alive_until=clock.now_us() + seconds(30))
    retry = a_retry(initial_delay_us=0)
    one, two, three, _four = await running(
        store, oven, *(a_task(retry=retry, key=f"k{i}", run_timeout=seconds(20)) for i in range(4))
    )
    await added(store, a_task(key="old1", due_in=5), a_task(key="old2", due_in=5))
    await added(store, a_task(key="w", due_in=5), a_task(requires=["a exists"], expires_at=clock.now_us() + 5))
    replacing = [a_task(key=key, on_conflict=DedupConflict.REPLACE) for key in ("w", "old1", "k0")]
    await store.add([*replacing, a_task(task_id=one.task_id)])
    await store.keep_alive(Sign(oven.seq, seconds(31)))
    await store.keep_alive(Sign(999, 1))
    await store.save_progress([Advance(oven.seq, one.task_id, 1, Progress(0.1), one.payload)])
    await end(store, succeeded(one))
    await store.end([failed(two), failed(two), succeeded(one), failed(one)])
    await store.cancel([three.task_id])
    clock.advance(5)
    await lease(store, oven)
    clock.advance(20)
    await store.reclaim()
    await store.pause(NewPause("cook", ""))
    await store.resume("cook")
    await store.list_capabilities(Page("", 50))
    await store.list_sessions(Page(0, 50))
    await store.drain_processor(NewDrain(oven.session_id, ""))
    await store.spare(Grace(1))
    clock.advance(20)
    await store.reclaim()
    await store.unregister(oven.seq)
    clock.advance(us=minutes(60 * 24 * 8))
    await store.prune(0)


OF_THE_REQUEST = re.compile(r"SCAN (taken|json_each|\(subquery|\d* ?CONSTANT ROW)")
OF_THE_PROCESSORS = "INDEX session_alive"
OF_WHAT_IS_HELD = "OVER (PARTITION BY task.session_seq"
OF_FEW = re.compile(r"SCAN (pause|route|server|place|counted|running|held)\b")
"""Names, and what was read of tasks by an index of theirs."""


async def test_no_statement_of_the_hot_path_scans_a_table(plans: dict[str, list[str]]) -> None:
    assert len(plans) > 25
    scans = {
        statement: step
        for statement, plan in plans.items()
        for step in plan
        if step.startswith("SCAN")
        and not OF_THE_REQUEST.match(step)
        and OF_THE_PROCESSORS not in step
        and not OF_FEW.match(step)
    }

    assert scans == {}


async def test_no_statement_of_the_hot_path_sorts_what_an_index_could_give_in_order(
    plans: dict[str, list[str]],
) -> None:
    assert [
        statement
        for statement, plan in plans.items()
        if any("TEMP B-TREE FOR ORDER" in step for step in plan) and OF_WHAT_IS_HELD not in statement
    ] == []


HOT = [
    (("SELECT seq, due_time_us", "state = 1"), "INDEX task_due (route_id=? AND priority=?"),
    (("UPDATE task SET state = 2",), "SEARCH task USING INTEGER PRIMARY KEY"),
    (("UPDATE task SET state = 3",), "SEARCH task USING INTEGER PRIMARY KEY"),
    (("UPDATE task SET state = 1",), "SEARCH task USING INTEGER PRIMARY KEY"),
    (("SELECT task.task_id", "expire_time_us <="), "INDEX task_expiring (expire_time_us>? AND expire_time_us<?)"),
    (("SELECT task.expire_time_us",), "INDEX task_expiring"),
    (("SELECT task.run_deadline_us",), "INDEX task_run_deadline"),
    (("task.run_deadline_us <=",), "INDEX task_run_deadline (run_deadline_us>? AND run_deadline_us<?)"),
    (("task.session_seq IN", "state = 2"), "USING INDEX task_running (session_seq=?)"),
    (("UPDATE session", "CASE WHEN"), "SEARCH session USING INTEGER PRIMARY KEY"),
    (("SELECT session.session_seq", "alive_until_us <="), "INDEX session_alive"),
    (("min(session.alive_until_us)",), "INDEX session_alive"),
    (("SELECT task.seq", "prune_time_us"), "INDEX task_prunable (prune_time_us>? AND prune_time_us<?)"),
    (("SELECT task.prune_time_us",), "INDEX task_prunable"),
    (("DELETE FROM dedup", "hold_until_us <=", "coalesce"), "INDEX dedup_ending (hold_until_us<?)"),
    (("FROM dedup LEFT OUTER JOIN task",), "SEARCH dedup USING PRIMARY KEY (scope=? AND key=?)"),
    (("FROM dedup LEFT OUTER JOIN task",), "SEARCH task USING INDEX task_id (task_id=?)"),
    (("DELETE FROM dedup", "dedup.scope ="), "SEARCH dedup USING PRIMARY KEY (scope=? AND key=?)"),
    (("DELETE FROM dedup", "task_id IN"), "INDEX dedup_task (task_id=?)"),
    (("DELETE FROM session",), "INDEX session_ended"),
    (("FROM attempt", "IN"), "SEARCH attempt USING PRIMARY KEY"),
]
"""Words of a statement, and what its plan must say."""


async def test_each_hot_statement_uses_its_index(plans: dict[str, list[str]]) -> None:
    for words, index in HOT:
        matching = {statement: plan for statement, plan in plans.items() if all(word in statement for word in words)}

        assert matching, f"no statement with {words}"
        for statement, plan in matching.items():
            assert any(index in step for step in plan), (statement, plan)


async def test_the_start_reads_hints_without_reading_tasks(store: Store) -> None:
    steps: list[str] = []

    def explain(tx: Transaction, items: list[None]) -> list[None]:
        for statement in (
            "SELECT due_time_us FROM task WHERE state = 1 AND route_id = 1 AND priority = 3 ORDER BY 1 LIMIT 1",
            "SELECT max(seq) FROM task",
        ):
            steps.extend(row[3] for row in tx.connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement))
        return items

    await store.write(explain, [None])

    assert "INDEX task_due (route_id=? AND priority=?)" in steps[0]
    assert steps[1].startswith("SEARCH task")


async def test_statistics_do_not_change_the_plans(store: Store, clock: ManualClock) -> None:
    """Somebody may run ANALYZE on the file; the partial indexes must still win."""
    await a_backlog(store)
    await tamper(store, "ANALYZE")

    (task_id,) = await added(store, a_task())

    assert [one.task_id for one in (await lease(store, await a_processor(store))).assignments] == [task_id]
    assert await rows(store, "SELECT count(*) AS n FROM sqlite_stat1 WHERE idx = 'task_due'") == [{"n": 1}]


@pytest.mark.parametrize(("counted", "index"), [(0, "task_of_schedule"), (1, "firing_buffered")])
async def test_what_is_unfinished_and_what_waits_is_counted_by_an_index_of_its_own(
    database: SQLiteFile, clock: ManualClock, counted: int, index: str
) -> None:
    """However much a schedule has fired before."""
    store = await database.open(clock)

    plan = await rows(store, f"EXPLAIN QUERY PLAN {select(counts(1_000)[counted]).select_from(schema.schedule)}")

    assert any(f"INDEX {index} " in row["detail"] for row in plan)
