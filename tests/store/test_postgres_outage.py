"""PostgreSQL goes away and comes back under a store: what was answered is there, who waits is told in time, and then
everything works as before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.errors import StorageUnavailable
from taskq_server.core.task import EndStatus, EnqueueOutcome, NewTask, TaskState
from taskq_server.store.migrate import to_head
from taskq_server.store.postgres import engine as postgres_url
from taskq_server.store.postgres import lane
from taskq_server.store.postgres.engine import engine_of
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.living import Sign
from tests.store.conftest import PostgresDatabase
from tests.store.given import (
    LEASE,
    Gate,
    a_processor,
    a_task,
    added,
    lease,
    leased_ids,
    replace_verb,
    running,
    statuses,
    succeeded,
)
from tests.store.rivals import end_connections
from tests.support.console import Console
from tests.support.postgres import PostgresProcess
from tests.support.postgres_proxy import PostgresProxy
from tests.support.waiting import until_async


@pytest.fixture
def database(postgres_database: PostgresDatabase) -> PostgresDatabase:
    return postgres_database


@pytest.fixture
async def store(database: PostgresDatabase, clock: ManualClock) -> Postgres:
    return await database.open(clock)


Calls = dict[str, Callable[[], Awaitable[Any]]]


async def a_call_in_each_lane(store: Postgres) -> Calls:
    """Each lane has a connection when this returns."""
    oven = await a_processor(store)
    calls: Calls = {
        "enqueue": lambda: store.add([a_task()]),
        "dispatch": lambda: leased_ids(store, oven),
        "report": lambda: store.cancel([a_task().task_id]),
        "heartbeat": lambda: store.keep_alive(Sign(oven.seq, LEASE)),
        "housekeeping": lambda: store.reclaim(),
        "read": lambda: store.get([a_task().task_id]),
        "look": lambda: store.look_around(),
    }
    for call in calls.values():
        await call()
    return calls


# ── connections that end ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_next_call_of_each_lane_works_after_its_connection_was_ended(
    store: Postgres, console: Console
) -> None:
    calls = await a_call_in_each_lane(store)

    assert end_connections(console) >= len(calls)
    for call in calls.values():
        await call()


async def test_a_transaction_whose_connection_is_ended_is_run_again_on_another(
    store: Postgres, console: Console
) -> None:
    await added(store, a_task())
    add, gate, runs = store._add, Gate(), []

    def add_slowly(tx: Transaction, items: list[Any]) -> list[Any]:
        runs.append(tx)
        gate.pass_by(tx.connection)
        return add(tx, items)

    replace_verb(store, "_add", add_slowly)
    told: list[bytes] = []
    store.on_change = told.extend
    adding = asyncio.create_task(added(store, a_task("new route"), a_task(key="k")))
    await gate.reached.wait()
    end_connections(console)
    gate.open()

    assert told == await adding
    assert len(runs) == 2
    assert [one.task_id for one in (await store.get(told)).values()] == told


async def test_a_transaction_whose_connections_are_all_ended_is_unavailable_and_leaves_nothing(
    store: Postgres, console: Console
) -> None:
    await added(store, a_task())
    add, task = store._add, a_task("new route")

    def add_and_end(tx: Transaction, items: list[Any]) -> list[Any]:
        answers = add(tx, items)
        end_connections(console)
        return answers

    replace_verb(store, "_add", add_and_end)
    with pytest.raises(StorageUnavailable):
        await store.add([task])

    replace_verb(store, "_add", add)
    assert (await store.get([task.task_id]), len(store.routes)) == ({}, 1)
    await added(store, task)


# ── a network that swallows everything ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_url, "COMMAND_SECONDS", 0.2)
    monkeypatch.setattr(postgres_url, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(lane, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(lane, "LOOK_AGAIN_SECONDS", 0.01)


@pytest.fixture
async def store_behind_the_proxy(
    proxy: PostgresProxy, clock: ManualClock, little_patience: None
) -> AsyncIterator[Postgres]:
    database = PostgresDatabase(proxy.url)
    yield await database.open(clock)
    proxy.heal()
    await database.close()


async def test_who_asks_while_nothing_passes_is_told_in_time_and_served_when_it_does(
    store_behind_the_proxy: Postgres, proxy: PostgresProxy
) -> None:
    calls = await a_call_in_each_lane(store_behind_the_proxy)
    proxy.black_hole()

    async with asyncio.timeout(10):
        answers = await asyncio.gather(*(call() for call in calls.values()), return_exceptions=True)
    assert {type(answer) for answer in answers} == {StorageUnavailable}

    proxy.heal()
    for call in calls.values():
        await call()


async def test_a_commit_that_arrives_after_its_sender_has_given_up_counts_once(
    store_behind_the_proxy: Postgres, proxy: PostgresProxy
) -> None:
    store, task = store_behind_the_proxy, a_task("new route")
    add, swallowed = store._add, []

    def add_into_the_hole(tx: Transaction, items: list[NewTask]) -> list[Any]:
        answers = add(tx, items)
        if not swallowed:
            swallowed.append(tx)
            proxy.black_hole()
        return answers

    replace_verb(store, "_add", add_into_the_hole)

    async with asyncio.timeout(10):
        with pytest.raises(StorageUnavailable):
            await store.add([task])
    assert (store.routes, store.next_due_us(range(9))) == ({}, None)

    proxy.heal()
    (answer,) = await store.add([task])
    assert answer.outcome in (EnqueueOutcome.CREATED, EnqueueOutcome.EXISTING)
    await store.look_around()
    assert await leased_ids(store, await a_processor(store, "new route")) == [task.task_id]


# ── a server that dies ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def process() -> Iterator[PostgresProcess]:
    """A cluster that keeps what it has committed."""
    with PostgresProcess(fsync=True, wal_writer_delay="10s") as process:

        async def make() -> None:
            engine = engine_of(process.url(), settings={})
            async with engine.begin() as connection:
                await connection.run_sync(to_head)
            await engine.dispose()

        asyncio.run(make())
        yield process


@pytest.fixture
async def mortal(process: PostgresProcess, clock: ManualClock) -> AsyncIterator[Postgres]:
    """A store on it."""
    database = PostgresDatabase(process.url())
    yield await database.open(clock)
    await database.close()


async def test_the_next_calls_work_after_the_server_was_restarted(mortal: Postgres, process: PostgresProcess) -> None:
    oven = await a_processor(mortal)
    calls = await a_call_in_each_lane(mortal)
    one, two = await running(mortal, oven, a_task(), a_task())
    assert statuses(await mortal.end([succeeded(one)])) == [EndStatus.ACCEPTED]

    process.restart("immediate")

    for call in calls.values():
        await call()
    assert statuses(await mortal.end([succeeded(one), succeeded(two)])) == [
        EndStatus.ALREADY_ACCEPTED,
        EndStatus.ACCEPTED,
    ]


async def test_what_a_crash_has_lost_is_not_said_to_count_though_another_transaction_got_its_number(
    mortal: Postgres, process: PostgresProcess
) -> None:
    add, lost = mortal._add, []

    def add_and_crash(tx: Transaction, items: list[Any]) -> list[Any]:
        answers = add(tx, items)
        lost.append(tx.xid)
        process.restart("immediate")
        with Console(process.url()) as console:
            for _ in range(3):
                console.value("SELECT pg_current_xact_id()::text")
            assert console.value("SELECT pg_xact_status($1::text::xid8)", tx.xid) == "committed", "another's"
        return answers

    replace_verb(mortal, "_add", add_and_crash)
    task = a_task("lost in a crash")

    with pytest.raises(StorageUnavailable):
        await mortal.add([task])

    replace_verb(mortal, "_add", add)
    assert len(lost) == 1
    assert await mortal.get([task.task_id]) == {}
    assert task.route not in mortal.routes.values()
    await added(mortal, task)


async def test_while_the_server_is_away_everybody_is_told_at_once_and_is_served_when_it_is_back(
    mortal: Postgres, process: PostgresProcess
) -> None:
    calls = await a_call_in_each_lane(mortal)
    process.stop("immediate")

    for _ in range(3):
        answers = await asyncio.gather(*(call() for call in calls.values()), return_exceptions=True)
        assert {type(answer) for answer in answers} == {StorageUnavailable}

    process.start()
    for call in calls.values():
        await call()


@pytest.mark.parametrize("how", ["immediate", "fast"])
async def test_what_was_answered_is_there_after_a_server_died_under_load_and_everything_is_done_once(
    mortal: Postgres, process: PostgresProcess, how: str
) -> None:
    oven = await a_processor(mortal, slots=10_000)
    over = asyncio.Event()
    created, known, succeeded_once = [], [], []

    async def until_it_is_answered(work: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            try:
                return await work()
            except StorageUnavailable:
                await asyncio.sleep(0.001)

    async def enqueue() -> None:
        while not over.is_set():
            task = a_task()
            (answer,) = await until_it_is_answered(lambda task=task: mortal.add([task]))  # type: ignore[misc]
            (created if answer.outcome is EnqueueOutcome.CREATED else known).append(task.task_id)

    async def work() -> None:
        while not over.is_set():
            leased = await until_it_is_answered(lambda: lease(mortal, oven))
            endings = [succeeded(one) for one in leased.assignments]
            answers = await until_it_is_answered(lambda endings=endings: mortal.end(endings))  # type: ignore[misc]
            assert set(statuses(answers)) <= {EndStatus.ACCEPTED, EndStatus.ALREADY_ACCEPTED}
            succeeded_once.extend(answer.task_id for answer in answers)

    load = [asyncio.create_task(one) for one in (enqueue(), enqueue(), enqueue(), work())]
    await until_async(lambda: len(succeeded_once) > 20, "work goes on")
    await asyncio.to_thread(process.restart, how)
    after = len(succeeded_once)
    await until_async(lambda: len(succeeded_once) > after + 20, "work goes on after the restart")
    over.set()
    await asyncio.gather(*load)

    assert len(await mortal.get(created + known)) == len(created) + len(known)
    assert len(succeeded_once) == len(set(succeeded_once))
    assert {task.state for task in (await mortal.get(succeeded_once)).values()} == {TaskState.SUCCEEDED}
