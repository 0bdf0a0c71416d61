"""What finished and what others wait for costs nothing, whatever PostgreSQL knows of its tables: they were never
analyzed, or not since they were empty, or just now.

A plan is made once and kept, without values. So it is looked at here: prepared on a connection of the store, and
explained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import event

from taskq_server.clock import ManualClock
from taskq_server.core.recurring import Key, firing_task_id
from taskq_server.core.schedule import Overlap
from taskq_server.core.task import DedupConflict, Payload, Progress
from taskq_server.store.postgres.engine import PLANS
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.draining import NewDrain
from taskq_server.store.verbs.firing_by_hand import Backfill, Trigger
from taskq_server.store.verbs.listing import Page
from taskq_server.store.verbs.living import Advance, Grace, Sign
from taskq_server.store.verbs.pausing import NewPause
from taskq_server.store.verbs.schedules import Listed
from taskq_server.store.verbs.scheduling import Change, Deletion, SchedulePause
from tests.store.conftest import PostgresDatabase
from tests.store.given import (
    Processor,
    a_processor,
    a_retry,
    a_schedule,
    a_task,
    added,
    days,
    end,
    failed,
    lease,
    running,
    seconds,
    succeeded,
)
from tests.support.console import Console

PREPARED = ("SELECT", "UPDATE", "DELETE", "INSERT", "WITH")
PARAMETER = re.compile(r"\$(\d+)")
SCANS = ("Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan")

# ── a backlog, and a day ─────────────────────────────────────────────────────────────────────────────────────────────

BACKLOG = """
INSERT INTO route (name, requires) VALUES ('other', '[]');
INSERT INTO session (session_id, processor_name, capabilities, labels, max_in_flight, build_id, client,
  register_time_us, alive_until_us, end_time_us, server_seq)
SELECT decode(md5(n::text), 'hex'), 'old', '{}', '{}', 1, '', '', 1, 1700001800000000,
  CASE WHEN n > 50 THEN 1::bigint << 60 END, 999
FROM generate_series(1, 2000) AS n;
INSERT INTO task (seq, task_id, content_hash, route_id, state, priority, due_time_us, enqueue_time_us, dedup_key,
  expire_time_us, session_seq, processor_name, lease_time_us, run_deadline_us, finish_time_us, prune_time_us)
SELECT nextval('task_seq_seq'), decode(md5(n::text), 'hex'), '', (SELECT max(route_id) FROM route), state,
  n % 10, 1::bigint << 60, n, 'k' || n, CASE state WHEN 1 THEN 1::bigint << 60 END,
  CASE state WHEN 2 THEN n % 50 + 1 END, 'old', CASE state WHEN 2 THEN 1 END,
  CASE state WHEN 2 THEN 1::bigint << 60 END,
  CASE state WHEN 3 THEN 1 END, CASE state WHEN 3 THEN 1::bigint << 60 END
FROM generate_series(1, 20000) AS n,
  LATERAL (SELECT CASE WHEN n % 4 = 0 THEN 1 WHEN n % 20 = 1 THEN 2 ELSE 3 END) AS now (state);
INSERT INTO attempt SELECT seq, 1, 1, 'old', 1, 1, 1, NULL FROM task;
INSERT INTO schedule (schedule_seq, schedule_id, name, content_hash, version, rule, overlap, max_buffered, catch_up,
  catch_up_window_us, origin, task, create_time_us, update_time_us, next_us, next_due_us, tzdata)
SELECT nextval('schedule_schedule_seq_seq'), decode(md5(n::text), 'hex'), 'old' || n, '', 1, '{}', 1, 1, 1, 1, 'x',
  '{}', 1, 1, 1::bigint << 60, 1::bigint << 60, '2026a' FROM generate_series(1, 5000) AS n;
INSERT INTO firing SELECT schedule_seq, n, 1, schedule_id, 1 FROM schedule, generate_series(1, 4) AS n;
UPDATE task SET schedule_seq = seq % 5000 + 1, nominal_us = 1 WHERE state = 3 AND seq % 7 = 1;
INSERT INTO dedup SELECT 'other', dedup_key, task_id, 3, 1::bigint << 60 FROM task WHERE seq % 2 = 0;
"""
"""Far more that is finished, waiting, running and held than what is due: twenty thousand tasks of a route that nobody
may run, and two thousand sessions of another server."""


async def a_busy_day(store: Postgres, other: Postgres, clock: ManualClock) -> None:
    """Every statement that a server sends."""
    oven = await a_processor(store, alive_until=clock.now_us() + seconds(30))
    await store.end([succeeded(plain) for plain in await running(store, oven, a_task())])
    retry = a_retry(initial_delay_us=0)
    keyed = (a_task(retry=retry, key=f"k{i}", run_timeout=seconds(20)) for i in range(4))
    one, two, three, _four = await running(store, oven, *keyed)
    await added(store, a_task(key="w", due_in=5), a_task(requires=["a exists"], expires_at=clock.now_us() + 5))
    await added(store, a_task(key="t", ttl=seconds(1), due_in=5))
    for policy in (DedupConflict.REPLACE, DedupConflict.DEBOUNCE):
        await store.add([*(a_task(key=key, on_conflict=policy) for key in ("w", "k0")), a_task(task_id=one.task_id)])
    await store.keep_alive(Sign(oven.seq, seconds(31)))
    await store.save_progress([Advance(oven.seq, one.task_id, 1, Progress(0.1), Payload(b"so far"))])
    await end(store, succeeded(one))
    await store.end([failed(two), failed(two), succeeded(one), failed(one)])
    await store.cancel([three.task_id])
    clock.advance(5)
    await added(store, a_task(key="t"))
    await lease(store, oven)
    await schedules_that_fire(store, clock)
    await another_server(store, other, oven, one.task_id)
    await an_administrator(store, oven)
    clock.advance(20)
    await store.reclaim()
    await store.spare(Grace(1))
    await store.spare(Grace(1, everybody=True))
    clock.advance(20)
    await store.reclaim()
    await store.unregister(oven.seq)
    clock.advance(us=days(8))
    await store.prune(0)


async def schedules_that_fire(store: Postgres, clock: ManualClock) -> None:
    waits = await store.create_schedule(a_schedule("waits", every=seconds(1), overlap=Overlap.BUFFER_ALL, retention=1))
    await store.create_schedule(a_schedule("cancels", every=seconds(1), overlap=Overlap.CANCEL_OTHER))
    key = Key(waits.schedule_id)
    for _ in range(3):
        clock.advance(1)
        await store.fire(0)
    await store.cancel([firing_task_id(waits.schedule_id, waits.next_us or 0)])
    await store.fire(0)
    await store.fire(seconds(1))
    await store.pause_schedule(SchedulePause(key, ""))
    await store.resume_schedule(key)
    await store.trigger_schedule(Trigger(key, b"t" * 16))
    await store.backfill_schedule(Backfill(key, clock.now_us() - seconds(9), clock.now_us()))
    await store.list_schedules(Listed(Page("", 50), "w", "o"))
    changed = await store.get_schedule(Key(None, "waits"))
    assert changed is not None
    await store.change_schedule(Change(key, waits.definition, changed.etag))
    await store.to_fire()
    await store.delete_schedule(Deletion(Key(None, "cancels")))


async def another_server(store: Postgres, other: Postgres, oven: Processor, task_id: bytes) -> None:
    await other.take_over(oven.session_id)
    await store.cancel(list(await store.get([task_id])))
    await store.find_session(oven.session_id)
    await store.session_seq(oven.session_id)
    news = await store.look_around()
    await store.forget([signal.signal_seq for signal in news.signals])
    await store.versions([task_id])
    await store.renew()
    await store.take_over(oven.session_id)


async def an_administrator(store: Postgres, oven: Processor) -> None:
    await store.pause(NewPause("cook", ""))
    await store.resume("cook")
    await store.list_capabilities(Page("", 50))
    await store.list_sessions(Page(0, 50))
    await store.list_sessions(Page(0, 1, oven.session_id))
    await store.drain_processor(NewDrain(oven.session_id, ""))
    await store.disconnect((await a_processor(store)).seq)


# ── plans ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Node:
    """A step of a plan, and the steps that it is a part of, the innermost first."""

    facts: dict[str, Any]
    above: tuple[str, ...]

    def __str__(self) -> str:
        shown = ("Node Type", "Relation Name", "Index Name", "Index Cond", "Filter", "Join Filter", "Sort Key")
        return " ".join(str(self.facts[name]) for name in shown if name in self.facts)

    @property
    def kind(self) -> str:
        return str(self.facts["Node Type"])

    @property
    def table(self) -> str:
        """Also of a step that reads only its index, which is named after its table."""
        return str(self.facts.get("Relation Name") or str(self.facts.get("Index Name", "")).partition("_")[0])


Plans = dict[str, list[Node]]


def nodes(plan: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[Node]:
    yield Node(plan, above)
    for part in plan.get("Plans", ()):
        yield from nodes(part, (plan["Node Type"], *above))


def explain(tx: Transaction, statements: list[str]) -> list[list[Node]]:
    connection = tx.connection
    for name, value in PLANS.items():
        assert connection.exec_driver_sql(f"SHOW {name}").scalar() == value, "as the store's connections are"
    found = []
    for i, statement in enumerate(statements):
        connection.exec_driver_sql(f"PREPARE plan_{i} AS {statement}")
        many = max((int(number) for number in PARAMETER.findall(statement)), default=0)
        values = f"({', '.join(['NULL'] * many)})" if many else ""
        plan: Any = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) EXECUTE plan_{i}{values}").scalar()
        plan = json.loads(plan) if isinstance(plan, str) else plan
        found.append(list(nodes(plan[0]["Plan"])))
    return found


@pytest.fixture(params=["never", "when they were empty", "just now"])
async def plans(
    request: pytest.FixtureRequest, postgres_database: PostgresDatabase, clock: ManualClock, console: Console
) -> Plans:
    """The plan of every statement of a busy day, over tables that were analyzed then."""
    if request.param == "when they were empty":
        console.run("VACUUM ANALYZE")
    console.run(BACKLOG)
    if request.param == "just now":
        console.run("VACUUM ANALYZE")
    store, other = [await postgres_database.open(clock) for _ in range(2)]
    statements: dict[str, None] = {}

    @event.listens_for(store._engine.sync_engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, values: Any, context: Any, many: bool) -> None:
        if statement.lstrip().startswith(PREPARED):
            statements.setdefault(statement)

    await a_busy_day(store, other, clock)
    event.remove(store._engine.sync_engine, "before_cursor_execute", note)
    return dict(zip(statements, await store.write(explain, list(statements)), strict=True))


WALKED = {
    "session_alive": "those who live, are few",
    "server": "servers are few",
    "signal": "and so is what they have not heard yet",
    "pause": "and what is paused",
    "route": "names are fewer than tasks",
    "firing_buffered": "and what waits in buffers",
    "pg_stat_bgwriter": "one row",
}
FIRST = ("Limit",)
"""A step that is walked only to its first row, by whoever stands above it."""


def walks(node: Node) -> bool:
    """Whether all of a table is read, or all of an index."""
    whole = node.kind in SCANS and "Index Cond" not in node.facts
    meant = node.facts.get("Index Name") in WALKED or node.table in WALKED
    return whole and not meant and node.above[:1] != FIRST


async def test_no_statement_reads_all_of_a_table_or_of_an_index(plans: Plans) -> None:
    assert len(plans) > 50
    assert {statement: str(node) for statement, steps in plans.items() for node in steps if walks(node)} == {}


SORTED = [
    "schedule.origin <",
    "ORDER BY schedule.schedule_seq",
    "GROUP BY firing.schedule_seq ORDER BY firing.schedule_seq",
    "ORDER BY new.",
    "ORDER BY seq FOR NO KEY UPDATE",
    "ORDER BY task.seq FOR NO KEY UPDATE",
    "ORDER BY session.session_seq",
    "ORDER BY session_seq FOR KEY SHARE",
    "ORDER BY signal.signal_seq",
    "OVER (PARTITION BY task.session_seq",
    "GROUP BY running.session_seq",
]
"""What is put in order before it is locked or written, of a batch; signals, which are few; what sessions hold; and what
of the schedules begins with something, which the planner takes for few."""


async def test_no_statement_sorts_what_an_index_could_give_in_order(plans: Plans) -> None:
    assert [
        statement
        for statement, steps in plans.items()
        if any(node.kind in ("Sort", "Incremental Sort") for node in steps)
        and not any(words in statement for words in SORTED)
    ] == []


async def test_joins_go_from_what_is_given_to_what_is_stored(plans: Plans) -> None:
    joins = {node.kind for steps in plans.values() for node in steps if "Join" in node.kind}
    filters = {
        statement: str(node)
        for statement, steps in plans.items()
        for node in steps
        if node.kind == "Nested Loop" and "Join Filter" in node.facts
    }

    assert (joins, filters) == (set(), {})


HOT = [
    (("WITH asked AS",), "task_due", "(due_time_us >= asked.known_us) AND (due_time_us <= $6)"),
    (("WITH asked AS",), "task_due", "(due_time_us > $6)"),
    (("UPDATE task SET state = 2",), "task_pkey", "(seq = taken.seq)"),
    (("UPDATE task SET state = 2",), "session_", "(session_seq = ANY ($4))"),
    (("UPDATE task SET state = 3",), "task_pkey", "(seq = new.seq)"),
    (("UPDATE task SET state = 1",), "task_pkey", "(seq = new.seq)"),
    (("UPDATE task SET state = new.state",), "task_pkey", "(seq = new.seq)"),
    (("UPDATE task SET due_time_us = new.due_time_us FROM",), "task_id", "(task_id = new.task_id)"),
    (("UPDATE task SET due_time_us = new.due_time_us, payload",), "task_id", "(task_id = new.task_id)"),
    (("UPDATE task SET progress_fraction",), "task_id", "(task_id = new.task_id)"),
    (("UPDATE task SET checkpoint",), "task_id", "(task_id = new.task_id)"),
    (("FROM task WHERE task_id = ANY", "FOR NO KEY UPDATE"), "task_id", "(task_id = ANY ($1))"),
    (
        ("SELECT task.seq FROM task\nWHERE task.task_id IN",),
        "dedup_pkey",
        "(scope = asked.scope) AND (key = asked.key)",
    ),
    (("SELECT task.seq FROM task\nWHERE task.task_id IN",), "task_id", "(task_id = dedup.task_id)"),
    (("FROM dedup LEFT OUTER JOIN task",), "dedup_pkey", "(scope = ($1)::text)"),
    (("FROM dedup LEFT OUTER JOIN task",), "task_id", "(task_id = dedup.task_id)"),
    (("DELETE FROM dedup USING",), "dedup_pkey", "(scope = new.scope) AND (key = new.key)"),
    (("DELETE FROM dedup", "dedup.task_id = ANY"), "dedup_task", "(task_id = ANY ($1))"),
    (("DELETE FROM dedup", "hold_until_us <=", "LIMIT"), "dedup_ending", "(hold_until_us <= $1)"),
    (("DELETE FROM dedup", "hold_until_us <=", "LIMIT"), "task_id", "(task_id = dedup_1.task_id)"),
    (("task.expire_time_us <=", "LIMIT"), "task_expiring", "(expire_time_us <= $1)"),
    (("SELECT task.expire_time_us",), "task_expiring", ""),
    (("task.run_deadline_us <=", "LIMIT"), "task_run_deadline", "(run_deadline_us <= $1)"),
    (("SELECT task.run_deadline_us",), "task_run_deadline", ""),
    (("SELECT task.seq", "task.prune_time_us <="), "task_prunable", "(prune_time_us <= $1)"),
    (("SELECT task.prune_time_us",), "task_prunable", ""),
    (("state = 2", "task.session_seq = ANY"), "task_running", "(session_seq = ANY ($1))"),
    (("FROM attempt", "attempt.attempt = ANY"), "attempt_pkey", "(task_seq = ANY ($1))"),
    (("DELETE FROM attempt",), "attempt_pkey", "(task_seq = ANY ($1))"),
    (("UPDATE session SET alive_until_us=CASE",), "session_", "(session_seq = ANY ($3))"),
    (("FROM session", "session.session_id = ANY", "FOR UPDATE"), "session_session_id_key", "(session_id = ANY ($1))"),
    (("FROM session", "server_lives"), "session_session_id_key", "(session_id = ANY ($2))"),
    (("DELETE FROM session", "end_time_us <"), "session_ended", "(end_time_us < $1)"),
    (("WITH own AS", "state = 3"), "task_pkey", "(seq = new.seq)"),
    (("WITH own AS", "state = 3"), "session_pkey", "(session_seq = ANY ($8))"),
    (("INSERT INTO signal",), "session_pkey", "(session_seq = new.session_seq)"),
    (("FROM signal", "ORDER BY"), "signal_server", "(server_seq = $1)"),
    (("WITH RECURSIVE place",), "task_due", "ROW(route_id, priority) > ROW(place_1.route_id, place_1.priority)"),
]
"""Words of a statement, and an index by which it must go, with its condition."""


async def test_each_hot_statement_uses_its_index(plans: Plans) -> None:
    misses = []
    for words, index, condition in HOT:
        matching = {statement: steps for statement, steps in plans.items() if all(word in statement for word in words)}
        assert matching, f"no statement with {words}"
        for steps in matching.values():
            used = [node for node in steps if str(node.facts.get("Index Name", "")).startswith(index)]
            if not any(condition in str(node.facts.get("Index Cond", "")) for node in used):
                misses.append((words, index, condition, [str(node) for node in steps if node.kind in SCANS]))
    assert misses == []
