"""What is read for those who look on is as much as they are shown, however much was written down."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Engine, event

from taskq_server.clock import ManualClock
from taskq_server.core.sums import OF_ALL
from taskq_server.store.store import Store
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.audit_log import Wanted
from taskq_server.store.verbs.failures import GroupPage, Resolution
from taskq_server.store.verbs.figures import Asked, Round, Span
from tests.store.conftest import PostgresDatabase, SQLiteFile
from tests.store.given import NO_RETRY, a_processor, a_task, end, failed, rows, running
from tests.store.test_figures import seen, sums
from tests.store.test_postgres_query_plans import SCANS, explain
from tests.support.console import Console

HOUR = 3600

Reading = Callable[[Store], Awaitable[Any]]
Steps = list[str]
Plans = Callable[[Reading, str], Awaitable[dict[str, Steps]]]
"""Answers, of each statement about a table, by what of the table it reads: a condition of an index, or `all of …`. What
is left off after the first row counts as nothing."""


STORED = """
INSERT INTO stat (step_seconds, name, start_us)
SELECT step, CASE n % 200 WHEN 0 THEN '' ELSE 'name-' || n % 200 END, n / 200 * 60000000::bigint
FROM generate_series(1, 20000) AS n, (VALUES (60), (3600)) AS of (step);
INSERT INTO audit (change_time_us, principal, peer, source, action, target_kind, target, reason, before, after,
  request_id)
SELECT n, 'p' || n % 3, '', 1, '', 'k' || n % 7, 't' || n, '', '', '', '' FROM generate_series(1, 20000) AS n;
"""


@pytest.fixture
async def sqlite_plans(sqlite_database: SQLiteFile, clock: ManualClock) -> Plans:
    store = await sqlite_database.open(clock)

    async def plans(reading: Reading, table: str) -> dict[str, Steps]:
        said = await said_in(store, reading, table)

        def plan(tx: Transaction, statements: list[str]) -> list[Steps]:
            return [
                [
                    row[3]
                    for row in tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", said[statement])
                    if re.match(rf"(SCAN|SEARCH) {table}\b", row[3]) or "TEMP B-TREE FOR ORDER" in row[3]
                ]
                for statement in statements
            ]

        return dict(zip(said, await store.write(plan, list(said)), strict=True))

    return plans


@pytest.fixture(params=["never", "when they were empty", "just now"])
async def postgres_plans(
    request: pytest.FixtureRequest, postgres_database: PostgresDatabase, clock: ManualClock, console: Console
) -> Plans:
    """Over tables that were analyzed then."""
    if request.param == "when they were empty":
        console.run("VACUUM ANALYZE")
    console.run(STORED)
    if request.param == "just now":
        console.run("VACUUM ANALYZE")
    store = await postgres_database.open(clock)

    async def plans(reading: Reading, table: str) -> dict[str, Steps]:
        said = list(await said_in(store, reading, table))
        found = {}
        for statement, nodes in zip(said, await store.write(explain, said), strict=True):
            steps = [node for node in nodes if node.kind in SCANS and node.table == table]
            sorts = [str(node) for node in nodes if "Sort" in node.kind]
            found[statement] = [f"{'Limit ' * (node.above[:1] == ('Limit',))}{node}" for node in steps] + sorts
        return found

    return plans


async def said_in(store: Store, reading: Reading, table: str) -> dict[str, Any]:
    """Every statement that reads a table, and some of its values."""
    said: dict[str, Any] = {}

    def note(connection: Any, cursor: Any, statement: str, values: Any, context: Any, many: bool) -> None:
        if statement.startswith(("SELECT", "WITH", "DELETE")) and re.search(rf"FROM {table}\b", statement):
            said.setdefault(statement, values[0] if many else values)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        await reading(store)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    return said


# ── sums ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def histories(store: Store) -> None:
    at = store._clock.now_us()
    await store.keep_figures(Round({Span(HOUR, at, name): sums() for name in ("cook", "bake", OF_ALL)}, prunes=True))
    for name in (OF_ALL, None):
        await store.sums(Asked(HOUR, at, at + 1, name, 50))
    await store.keep_figures(Round(prunes=True))


async def test_sqlite_reads_of_a_history_what_is_of_its_names_and_its_time(sqlite_plans: Plans) -> None:
    plans = await sqlite_plans(histories, "stat")

    names = plans.pop(next(statement for statement in plans if statement.startswith("WITH")))
    assert [step[-len("AND name>?)") :] for step in names[1:]] == ["AND name>?)"]
    read = [step for steps in plans.values() for step in steps if step.startswith(("SCAN", "SEARCH"))]
    assert len(read) >= 4
    assert [step for step in read if "(step_seconds=? AND name=? AND start_us" not in step] == []


async def test_postgresql_reads_of_a_history_what_is_of_its_names_and_its_time(postgres_plans: Plans) -> None:
    plans = await postgres_plans(histories, "stat")

    names = plans.pop(next(statement for statement in plans if statement.startswith("WITH")))
    assert names and all(step.startswith("Limit Index Only Scan stat stat_pkey") for step in names)
    read = [step for steps in plans.values() for step in steps if "Scan" in step]
    assert len(read) >= 4
    by_key = re.compile(r"stat_pkey \(\(step_seconds = .*\) AND \(name = .*\) AND \(start_us ")
    assert [step for step in read if not by_key.search(step)] == []


# ── who did what ─────────────────────────────────────────────────────────────────────────────────────────────────────

PAGES = {
    "audit_time": Wanted(50, (7, 7), start_us=3, end_us=9),
    "audit_principal": Wanted(50, principal="p"),
    "audit_kind": Wanted(50, target_kind="k"),
    "audit_target": Wanted(50, target="t"),
}
"""A page of the audit, by the index along which it is read. All pages are bounded by times, if only by the last."""


async def pages(store: Store) -> None:
    for wanted in PAGES.values():
        await store.list_audit(wanted)


async def pages_of_several(store: Store) -> None:
    await store.list_audit(Wanted(50, principal="p", target_kind="k"))
    await store.list_audit(Wanted(50, principal="p", target_kind="k", target="t"))


async def test_sqlite_reads_the_audit_along_an_index_within_the_times_asked_for(sqlite_plans: Plans) -> None:
    for index, (step,) in zip(PAGES, (await sqlite_plans(pages, "audit")).values(), strict=True):
        assert re.search(rf"INDEX {index} .*change_time_us\)?>.*change_time_us\)?<", step), (index, step)
    (of_principal,), (of_target,) = (await sqlite_plans(pages_of_several, "audit")).values()
    assert "INDEX audit_principal " in of_principal and "INDEX audit_target " in of_target


async def test_postgresql_reads_the_audit_along_an_index_within_the_times_asked_for(postgres_plans: Plans) -> None:
    for index, (step,) in zip(PAGES, (await postgres_plans(pages, "audit")).values(), strict=True):
        bounds = r"change_time_us, audit_seq\) < ROW.*change_time_us, audit_seq\) >= ROW"
        assert re.search(rf"^Limit Index Scan audit {index} .*{bounds}", step), (index, step)


async def test_postgresql_reads_of_a_target_or_a_principal_only_that(postgres_plans: Plans) -> None:
    """What is also of a kind is so little that it may be put in order."""
    of_principal, of_target = (await postgres_plans(pages_of_several, "audit")).values()
    assert " audit_principal ((ROW(principal, change_time_us" in of_principal[0]
    assert " audit_target ((ROW(target, change_time_us" in of_target[0]


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def failures_of_a_name(store: Store) -> None:
    alike = [seen(f"{i:016x}", i + 1) for i in range(5)]
    await store.keep_figures(Round(failures=alike))
    await store.failure_groups(GroupPage(1 << 60, "", 3, "cook"))


OF_FAILED_TASKS = "SELECT count(*) FROM (SELECT 1 FROM task"


async def test_sqlite_counts_the_failed_tasks_of_a_page_of_groups_in_one_statement(sqlite_plans: Plans) -> None:
    ((statement, steps),) = (await sqlite_plans(failures_of_a_name, "task")).items()

    assert statement.count(OF_FAILED_TASKS) == 1 and "LIMIT" in statement.partition("FROM failure_group")[2]
    assert steps == ["SEARCH task USING INDEX task_failed (failure_group=?)"]


async def test_postgresql_counts_the_failed_tasks_of_a_page_of_groups_in_one_statement(postgres_plans: Plans) -> None:
    ((statement, steps),) = (await postgres_plans(failures_of_a_name, "task")).items()

    assert statement.count(OF_FAILED_TASKS) == 1
    assert "task_failed (failure_group = failure_group.fingerprint)" in steps[0]
    assert [step for step in steps[1:] if "Scan" in step] == []


async def test_of_a_group_are_counted_the_tasks_that_have_failed_so(store: Store) -> None:
    processor = await a_processor(store)
    for message, many in (("burnt", 2), ("raw", 1)):
        for one in await running(store, processor, *(a_task(retry=NO_RETRY) for _ in range(many))):
            await end(store, failed(one, message=message))
    kept = {row["failure_group"] for row in await rows(store, "SELECT * FROM task")} | {"f" * 16}
    await store.keep_figures(Round(failures=[seen(fingerprint, 1) for fingerprint in sorted(kept)]))

    found = await store.failure_groups(GroupPage(1 << 60, "", 10))
    resolved = await store.resolve_failures(Resolution(found[1].fingerprint, ""))

    assert sorted(group.failed_tasks for group in found) == [0, 1, 2]
    assert resolved is not None and resolved.failed_tasks == found[1].failed_tasks
