"""Whoever waits in a lane shares its next transaction; lanes do not wait for each other, nor for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.util import await_only

from taskq_server.clock import ManualClock
from taskq_server.core.errors import StorageUnavailable
from taskq_server.core.task import EndStatus, EnqueueOutcome, Progress, TaskState
from taskq_server.store.postgres import lane
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.living import Advance, Grace, Sign
from tests.store.conftest import PostgresDatabase
from tests.store.given import (
    Gate,
    Processor,
    a_processor,
    a_task,
    added,
    leased_ids,
    outcomes,
    replace_verb,
    rows,
    running,
    seconds,
    statuses,
    succeeded,
    the_task,
)
from tests.store.rivals import LOCK_TASK, each_run, holding, somebody_waits
from tests.support.console import Console


@pytest.fixture
def database(postgres_database: PostgresDatabase) -> PostgresDatabase:
    return postgres_database


@pytest.fixture
async def store(database: PostgresDatabase, clock: ManualClock) -> Postgres:
    return await database.open(clock)


# ── what shares a transaction ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_transaction_runs_one_verb_for_all_who_have_asked_for_it(store: Postgres) -> None:
    """So locks are taken in one order: two verbs in one transaction could wait for another two in a circle."""
    ran: list[tuple[str, list[int], Transaction]] = []

    def a_verb(name: str) -> Callable[[Transaction, list[int]], list[int]]:
        def note(tx: Transaction, items: list[int]) -> list[int]:
            ran.append((name, items, tx))
            return items

        return note

    one, other = a_verb("one"), a_verb("other")
    gate = Gate()
    held = await gate.hold(store, "_reclaim")
    waiting = [
        asyncio.create_task(store.write(verb, [number]))
        for number, verb in enumerate((one, one, other, one, other, one))
    ]
    await asyncio.sleep(0)

    gate.open()
    answers = await asyncio.gather(*waiting)
    await held

    assert answers == [[number] for number in range(6)]
    assert [(name, items) for name, items, _ in ran] == [("one", [0, 1, 3, 5]), ("other", [2, 4])]
    assert ran[0][2] is not ran[1][2]


async def test_those_who_share_a_verb_do_not_pass_over_those_who_came_before_them(store: Postgres) -> None:
    order: list[str] = []
    latecomers: list[asyncio.Task[list[None]]] = []

    def many(tx: Transaction, items: list[None]) -> list[None]:
        order.append("many")
        if not latecomers:
            latecomers.append(asyncio.create_task(store.write(many, [None])))
            await_only(asyncio.sleep(0))  # it waits in the queue now
        return items

    def single(tx: Transaction, items: list[None]) -> list[None]:
        order.append("single")
        return items

    await asyncio.gather(store.write(many, [None]), store.write(single, [None]), store.write(many, [None]))
    await latecomers[0]

    assert order == ["many", "single", "many"]


# ── lanes do not wait for each other ─────────────────────────────────────────────────────────────────────────────────


async def a_day(store: Postgres, oven: Processor) -> dict[str, Callable[[], Any]]:
    """A use of each lane that needs none of the others."""
    one, two = await running(store, oven, a_task(), a_task())
    await added(store, a_task())
    return {
        "_add": lambda: store.add([a_task("other")]),
        "_lease": lambda: leased_ids(store, oven),
        "_end": lambda: store.end([succeeded(one)]),
        "_take_over": lambda: store.keep_alive(Sign(oven.seq, seconds(30))),
        "_reclaim": lambda: store.reclaim(),
        "_advance": lambda: store.note_trouble(0, "an operation that has ended"),
        "_get": lambda: store.get([two.task_id]),
        "look_around": lambda: store.look_around(),
    }


WRITING = ["_add", "_lease", "_end", "_take_over", "_reclaim", "_advance"]


@pytest.mark.parametrize("held_lane", WRITING)
async def test_a_held_lane_holds_up_no_other(store: Postgres, held_lane: str) -> None:
    day = await a_day(store, await a_processor(store))
    gate = Gate()
    held = await gate.hold(store, held_lane)

    for name, work in day.items():
        if name != held_lane:
            await work()

    in_vain = asyncio.create_task(day[held_lane]())
    await store.get([])
    assert not in_vain.done()
    gate.open()
    await asyncio.gather(held, in_vain)


async def test_a_server_has_a_connection_for_bulk_operations_once_it_has_worked_on_one(
    store: Postgres, console: Console
) -> None:
    for work in (day := await a_day(store, await a_processor(store))).values():
        if work is not day["_advance"]:
            await work()
    mine = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    before = console.value(mine)

    await day["_advance"]()

    assert console.value(mine) == before + 1


async def test_an_enqueue_that_has_written_and_not_committed_holds_up_nothing_that_drains_work(store: Postgres) -> None:
    add, gate = store._add, Gate()
    oven = await a_processor(store)
    (one,) = await running(store, oven, a_task(key="k"))
    (waits,) = await added(store, a_task())

    def add_slowly(tx: Transaction, items: list[Any]) -> list[Any]:
        answers = add(tx, items)
        gate.pass_by(tx.connection)
        return answers

    replace_verb(store, "_add", add_slowly)
    adding = asyncio.create_task(store.add([a_task(), a_task("new route"), a_task(key="other")]))
    await gate.reached.wait()

    assert await store.keep_alive(Sign(oven.seq, seconds(30))) == store.server_seq
    await store.save_progress([Advance(oven.seq, one.task_id, 1, Progress(0.5), None)])
    assert statuses(await store.end([succeeded(one)])) == [EndStatus.ACCEPTED]
    assert await leased_ids(store, oven) == [waits]
    await store.reclaim()
    await store.spare(Grace(1))
    await store.prune(0)
    await store.unregister(oven.seq)
    assert not adding.done()
    gate.open()
    assert outcomes(await adding) == [EnqueueOutcome.CREATED] * 3


# ── a transaction that stalls ────────────────────────────────────────────────────────────────────────────────────────


async def test_who_comes_while_a_transaction_stalls_is_refused_at_once_and_the_others_are_answered(
    store: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, in_time, late = Gate(), a_task(), a_task()
    held = await gate.hold(store)
    came_in_time = asyncio.create_task(store.add([in_time]))
    await asyncio.sleep(0)
    monkeypatch.setattr(lane, "STALLED_SECONDS", 0.0)

    with pytest.raises(StorageUnavailable):
        await store.add([late])
    monkeypatch.undo()

    assert not came_in_time.done()
    gate.open()
    await held
    assert outcomes(await came_in_time) == [EnqueueOutcome.CREATED]
    assert list(await store.get([in_time.task_id, late.task_id])) == [in_time.task_id]
    await added(store, late)


async def test_a_stalled_lane_makes_no_other_refuse(store: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    day = await a_day(store, await a_processor(store))
    await day["_advance"]()  # its connection is opened by the first who needs it
    gate = Gate()
    held = await gate.hold(store, "_end")
    monkeypatch.setattr(lane, "STALLED_SECONDS", 0.0)

    for name, work in day.items():
        if name != "_end":
            await work()

    with pytest.raises(StorageUnavailable):
        await day["_end"]()
    gate.open()
    await held


async def test_a_transaction_is_not_taken_for_stalled_before_its_time(
    store: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    held = await gate.hold(store)
    began = store._enqueuing._busy_since
    assert began is not None
    loop = store._enqueuing._loop
    now = [began + lane.STALLED_SECONDS]
    monkeypatch.setattr(loop, "time", lambda: now[0])

    waits = asyncio.create_task(store.add([a_task()]))
    await asyncio.sleep(0)
    assert not waits.done()
    now[0] += 0.001
    with pytest.raises(StorageUnavailable):
        await store.add([a_task()])
    monkeypatch.undo()

    gate.open()
    await asyncio.gather(held, waits)


# ── what is run again ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_transaction_that_was_chosen_to_end_a_deadlock_is_run_again_and_answered_once(
    store: Postgres, console: Console
) -> None:
    oven = await a_processor(store)
    one, two = await running(store, oven, a_task(), a_task())
    runs, told = each_run("_end", store), []
    store.on_change = told.extend

    with Console(console.url) as watcher, holding(console, LOCK_TASK, two.task_id):
        reporting = asyncio.create_task(store.end([succeeded(one), succeeded(two)]))
        await somebody_waits(watcher)  # it has the one and waits for the other
        console.rows(LOCK_TASK, one.task_id)  # a circle, in which it has waited for longer

    assert statuses(await reporting) == [EndStatus.ACCEPTED] * 2
    assert len(runs) == 2
    assert sorted(told) == sorted([one.task_id, two.task_id])
    assert (await the_task(store, one.task_id)).state is TaskState.SUCCEEDED


def fails_first(store: Postgres, name: str, sqlstate: str, times: int) -> list[Transaction]:
    """The verb does its work, and then PostgreSQL undoes it, so many times."""
    verb, seen = getattr(store, name), []

    def fail_first(tx: Transaction, items: list[Any]) -> Any:
        seen.append(tx)
        answers = verb(tx, items)
        if len(seen) <= times:
            tx.connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'undone' USING ERRCODE = '{sqlstate}'; END $$"))
        return answers

    replace_verb(store, name, fail_first)
    return seen


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
async def test_what_others_came_between_is_run_again_and_done_once(store: Postgres, sqlstate: str) -> None:
    told: list[bytes] = []
    store.on_change = told.extend
    runs = fails_first(store, "_add", sqlstate, times=lane.MOST_TRIES - 1)
    tasks = [a_task("new route"), a_task(key="k")]

    answers = await asyncio.gather(store.add(tasks[:1]), store.add(tasks[1:]))

    assert [outcomes(answer) for answer in answers] == [[EnqueueOutcome.CREATED]] * 2
    assert len(runs) == lane.MOST_TRIES
    assert sorted(told) == sorted(task.task_id for task in tasks)
    assert await rows(store, "SELECT count(*) AS n FROM task") == [{"n": 2}]
    assert sorted(route.name for route in store.routes.values()) == ["cook", "new route"]
    assert await leased_ids(store, await a_processor(store, "new route")) == [tasks[0].task_id]


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
async def test_what_others_always_come_between_is_unavailable_and_leaves_nothing(
    store: Postgres, clock: ManualClock, sqlstate: str
) -> None:
    runs = fails_first(store, "_add", sqlstate, times=lane.MOST_TRIES)
    task = a_task("new route")

    with pytest.raises(StorageUnavailable):
        await store.add([task])

    assert len(runs) == lane.MOST_TRIES
    assert (await store.get([task.task_id]), store.routes, store.next_due_us(range(9))) == ({}, {}, None)
    await added(store, task)
