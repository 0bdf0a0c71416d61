"""What sentences about copies need: a queue with something of everything, and databases of both kinds, by their URL."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.bulk_operation import Action, ActionKind, NewOperation
from taskq_server.core.errors import StoreRefused
from taskq_server.core.recurring import Key
from taskq_server.core.schedule import Overlap
from taskq_server.core.sums import Sums
from taskq_server.core.task import DedupHold, Payload, Progress
from taskq_server.store import schema
from taskq_server.store.copying import copy as copying
from taskq_server.store.copying.copy import Copied, Tell
from taskq_server.store.postgres import admin as postgres_admin
from taskq_server.store.postgres.admin import PostgresDatabase
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.sqlite.admin import SQLiteFile
from taskq_server.store.sqlite.store import SQLite
from taskq_server.store.store import Store
from taskq_server.store.verbs import tokens
from taskq_server.store.verbs.draining import NewDrain
from taskq_server.store.verbs.failures import Failures, Resolution
from taskq_server.store.verbs.figures import Round, Span
from taskq_server.store.verbs.living import Advance
from taskq_server.store.verbs.pausing import NewPause
from taskq_server.store.verbs.scheduling import SchedulePause
from taskq_server.store.verbs.tokens import Revocation, Use
from tests.store.conftest import RULES
from tests.store.given import (
    NO_RETRY,
    a_processor,
    a_retry,
    a_schedule,
    a_task,
    a_token,
    added,
    end,
    failed,
    hours,
    lease,
    minutes,
    running,
    succeeded,
    tamper,
)  # fmt: skip
from tests.support.console import Console

NOT_COPIED = "server", "signal", "event", "meta"
TABLES = [table.name for table in schema.metadata.tables.values() if table.name not in NOT_COPIED]


COLUMNS = {
    name: [f'"{column.name}"' for column in schema.metadata.tables[name].columns if column.name != "server_seq"]
    for name in TABLES
}


async def _make_queue(path: Path) -> None:
    clock = ManualClock()
    store = await SQLite.open(path, clock, RULES, print)
    oven = await a_processor(store, "cook", "bake", labels={"floor": "1"})
    other = await a_processor(store, name="ähre 🌾", limits={"cook": 3})
    cooked = await running(store, oven, *(a_task(payload=os.urandom(i), headers={"a": "ü"}) for i in range(40)))
    for assignment in cooked[:30]:
        await end(store, succeeded(assignment, b"\x00\xff" * assignment.attempt))
    whole = Payload(b"whole", "x/y", {"k": "v"})
    await store.end([dataclasses.replace(succeeded(cooked[35]), result=whole)])
    for assignment in cooked[30:35]:
        await end(store, failed(assignment, message="it burnt\n" * 20))
    burnt = await running(store, oven, a_task("bake", retry=NO_RETRY, tags=("x", "y")))
    await end(store, failed(burnt[0]))
    advance = Advance(oven.seq, cooked[39].task_id, 1, Progress(0.1 + 0.2, "é"), Payload(b"half", "x/y", {"k": "v"}))
    await store.save_progress([advance])
    await running(store, oven, a_task("bake", run_timeout=minutes(5)))
    await store.cancel(await added(store, a_task(key="gone"), a_task()))
    await added(
        store,
        *(a_task("bake", requires=[f"floor={i}"], due_in=hours(i), priority=i % 10) for i in range(1, 30)),
        *(a_task(key=f"{letter}{i}", scope="s" * i) for i in range(1, 20) for letter in "aBäßZ"),
        a_task(payload=b"", key="k", hold=DedupHold.TTL, ttl=hours(1), retention=0, retry=a_retry(max_attempts=9)),
        a_task(payload=Payload(os.urandom(300_000), "video/x", {"m": "n"}), run_timeout=minutes(5)),
        a_task(due_at=clock.now_us() + minutes(1), expires_at=clock.now_us() + minutes(2)),
    )
    await tamper(store, "UPDATE task SET rerun_of = :old WHERE seq = 3", old=cooked[0].task_id)
    await lease(store, other, slots=3)
    await store.unregister((await a_processor(store, "sweep", name="short")).seq)
    await store.drain_processor(NewDrain(other.session_id, "it leaks"))
    await store.pause(NewPause("sweep", "ü"))
    await store.pause(NewPause("aB", ""))
    await _make_schedules(store, clock)
    await _make_operations(store, [burnt[0].task_id])
    await store.write(tokens.apply, [a_token("kitchen", "enqueue:kitchen.*", expires_in=hours(1)), a_token("root")])
    await store.use_tokens([Use(1, clock.now_us())])
    await store.write(tokens.apply, [Revocation((a_token("root").token_id,))])
    await _make_figures(store, clock)
    last = await a_processor(store, "sweep", name="forgotten")
    await tamper(store, "DELETE FROM session WHERE session_seq = :seq", seq=last.seq)
    await store.close()


async def _make_operations(store: SQLite, failed_ids: list[bytes]) -> None:
    """One that has ended, one that goes on, and one that was cancelled."""
    again = Action(ActionKind.RERUN, Payload(b"\x00\xff", "x/y", {"k": "ü"}))
    named = NewOperation(os.urandom(16), b"h" * 16, again, task_ids=tuple(failed_ids), place=1, max_tasks=5)
    await store.start_operation(named)
    (turn,) = await store.turns()
    for step in await store.next_steps(turn.operation_seq):
        await store.advance(step)
    await store.start_operation(NewOperation(os.urandom(16), b"h" * 16, again, "state:FAILED", place=1_000))
    moved = Action(ActionKind.RESCHEDULE, None, 1, 2, 3)
    cancelled = NewOperation(os.urandom(16), b"h" * 16, moved, "name:cook", (), "ü", matched_is_partial=True, place=1)
    await store.cancel_operation((await store.start_operation(cancelled)).operation_id)


async def _make_schedules(store: SQLite, clock: ManualClock) -> None:
    """One that fires and buffers, one that is paused, and what of a firing has been forgotten."""
    busy = a_schedule("busy", every=minutes(1), overlap=Overlap.BUFFER_ALL, payload=b"\x00\xff", origin="ü", most=9)
    await store.create_schedule(busy)
    await store.create_schedule(a_schedule("Paused", crons=("0 3 * * *",), zone="Europe/Berlin"))
    await store.pause_schedule(SchedulePause(Key(None, "Paused"), "ü"))
    for _ in range(3):
        clock.advance(us=minutes(1))
        await store.fire(0)
    await tamper(store, "UPDATE schedule SET pruned_until_us = 1 WHERE name = 'busy'")


async def _make_figures(store: SQLite, clock: ManualClock) -> None:
    """Sums of a minute and of an hour, and failures of which some are resolved."""
    counts = Sums(1, 2, 3, 4, 5, 6, list(range(schema.LATENESS_BUCKETS)), list(range(schema.RUN_BUCKETS)))
    spans = {Span(step, 0, name): counts for step in (60, 3600) for name in ("", "cook")}
    what = "cook", "Burnt", "<n> ü", "7 ü", "oven.py:1 in bake", 7, 1, clock.now_us(), b"0" * 16, ["oven"], ["build"]
    await store.keep_figures(Round(spans, [Failures(letter * 16, *what) for letter in "ab"]))
    await store.resolve_failures(Resolution("a" * 16, "ü"))


def make_queue(path: Path) -> None:
    """Tasks in every state, with histories, keys, text of all kinds; sessions that live, that ended, that are gone."""
    asyncio.run(_make_queue(path))


def opened(url: str) -> SQLiteFile | PostgresDatabase:
    return SQLiteFile(Path(url.removeprefix("sqlite:///"))) if url.startswith("sqlite") else PostgresDatabase(url)


def silent(*_: object) -> None: ...


def copied(source: str, target: str, tell: Tell = silent) -> list[Copied]:
    def work() -> list[Copied]:
        with opened(source).source() as one, opened(target).target(silent) as other:
            return copying.copy(one, other, tell)

    return postgres_admin.run(work)


def refused(source: str, target: str) -> StoreRefused:
    with pytest.raises(StoreRefused) as caught:
        copied(source, target)
    return caught.value


def run_sql(url: str, *statements: str) -> None:
    """Each in a transaction of its own."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)
        return
    with Console(url) as console:
        for statement in statements:
            console.run(statement)


@contextmanager
def asking(url: str) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            yield lambda query: connection.execute(query).fetchall()
    else:
        with Console(url) as console:
            yield console.rows


def found(url: str, query: str) -> list[tuple[Any, ...]]:
    with asking(url) as ask:
        return ask(query)


def contents(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table that is copied, without what belongs to a server."""
    with asking(url) as ask:
        return {
            name: sorted(ask(f"SELECT {', '.join(columns)} FROM {name}"), key=repr)  # noqa: S608
            for name, columns in COLUMNS.items()
        }


def mark_of(url: str) -> list[tuple[Any, ...]]:
    return found(url, "SELECT value FROM meta WHERE key = 'copying'")


def run_all(url: str) -> tuple[int, int]:
    """Starts a server and runs what is due in an hour: how many runs there were, and of how many tasks."""

    async def work() -> tuple[int, int]:
        clock = ManualClock()
        clock.advance(3600)
        store: Store
        if url.startswith("sqlite"):
            store = await SQLite.open(Path(url.removeprefix("sqlite:///")), clock, RULES, print)
        else:
            store = await Postgres.open(url, clock, RULES)
        await added(store, a_task("new", requires=["a=b"]), a_task())
        cook = await a_processor(store, "cook", "bake", "new", slots=10_000, labels={"a": "b", "floor": "1"})
        ids = []
        while assignments := (await lease(store, cook)).assignments:
            ids += [one.task_id for one in assignments]
            await store.end([succeeded(one) for one in assignments])
        await store.close()
        return len(ids), len(set(ids))

    return asyncio.run(work())
