"""Behind a pooler, which gives each transaction another connection, the same is true; only rings are not heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.errors import StorageUnavailable
from taskq_server.core.task import DedupConflict, EndStatus, EnqueueOutcome, Outcome, Progress, TaskState
from taskq_server.store.postgres.store import _LOCAL_SETTINGS, Postgres
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.living import Advance, Sign
from tests.store.conftest import RULES
from tests.store.given import (
    LEASE,
    a_processor,
    a_retry,
    a_task,
    added,
    end,
    failed,
    history,
    leased_ids,
    outcomes,
    running,
    seconds,
    statuses,
    succeeded,
    the_task,
)
from tests.support.console import Console
from tests.support.pooler import Pooler
from tests.support.postgres_proxy import PostgresProxy

Open = Callable[..., Awaitable[Postgres]]


@pytest.fixture
async def open_store(pooler: Pooler, clock: ManualClock) -> AsyncIterator[Open]:
    stores: list[Postgres] = []

    async def open_store(url: str = pooler.url) -> Postgres:
        stores.append(await Postgres.open(url, clock, RULES, pooler=True))
        return stores[-1]

    yield open_store
    for store in stores:
        await store.close()


@pytest.fixture
async def store(open_store: Open) -> Postgres:
    return await open_store()


async def test_a_day_goes_by_on_many_connections(store: Postgres, clock: ManualClock, pooler: Pooler) -> None:
    oven = await a_processor(store, alive_until=clock.now_us() + LEASE)
    retry = a_retry(initial_delay_us=0)
    one, two, three = await running(store, oven, *(a_task(key=f"k{i}", retry=retry) for i in range(3)))
    assert outcomes(await store.add([a_task(key="k0", on_conflict=DedupConflict.REPLACE)])) == [EnqueueOutcome.EXISTING]
    await store.save_progress([Advance(oven.seq, one.task_id, 1, Progress(0.5), None)])
    await end(store, succeeded(one))
    assert statuses(await store.end([failed(two), succeeded(one)])) == [EndStatus.ACCEPTED, EndStatus.ALREADY_ACCEPTED]
    assert (await store.cancel([three.task_id]))[0].state_before is TaskState.RUNNING
    assert await leased_ids(store, oven) == [two.task_id]
    assert await store.keep_alive(Sign(oven.seq, LEASE)) == store.server_seq
    clock.advance(us=LEASE)
    assert (await store.reclaim()).dead == [oven.seq]
    assert await history(store, two.task_id) == [(1, Outcome.FAILED), (2, Outcome.LOST)]
    clock.advance(us=RULES.retention_us)
    assert (await store.prune(0)).tasks == 2
    assert len(pooler.backends) > 1


async def test_each_transaction_has_the_limits_and_the_plans_of_any_other_connection(store: Postgres) -> None:
    def look(tx: Transaction, items: list[None]) -> list[dict[str, str]]:
        shown = {name: tx.connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in _LOCAL_SETTINGS}
        return [shown for _ in items]

    assert {"statement_timeout", "lock_timeout", "synchronous_commit", "enable_seqscan"} <= _LOCAL_SETTINGS.keys()
    assert await store.write(look, [None]) == [_LOCAL_SETTINGS]
    assert await store.read(look, [None]) == [_LOCAL_SETTINGS]


async def test_servers_behind_a_pooler_lease_each_task_once(open_store: Open) -> None:
    stores = [await open_store() for _ in range(3)]
    tasks = await added(stores[0], *(a_task() for _ in range(100)))
    leased: list[bytes] = []

    async def work(store: Postgres) -> None:
        oven = await a_processor(store, slots=7)
        await store.look_around()
        while store.next_due_us(store.routes) is not None:
            leased.extend(await leased_ids(store, oven))
            await store.look_around()

    await asyncio.gather(*(work(store) for store in stores))

    assert sorted(leased) == sorted(tasks)


async def test_what_another_has_scheduled_is_found_though_no_ring_is_heard(
    open_store: Open, clock: ManualClock
) -> None:
    here, there = await open_store(), await open_store()
    (task_id,) = await added(here, a_task("new route", due_in=seconds(1)))

    assert (here.listening, there.listening) == (False, False)
    assert (await there.look_around()).earliest_us == clock.now_us() + seconds(1)
    clock.advance(1)
    assert await leased_ids(there, await a_processor(there, "new route")) == [task_id]


@pytest.mark.parametrize("before", [True, False])
async def test_a_commit_whose_answer_is_lost_between_here_and_the_pooler_is_told_truly(
    open_store: Open, pooler: Pooler, console: Console, before: bool
) -> None:
    with PostgresProxy(pooler.url) as proxy:
        store, task = await open_store(proxy.url), a_task()
        proxy.cut_at_commit(before=before, after=b"INSERT INTO task")
        if before:
            with pytest.raises(StorageUnavailable):
                await store.add([task])
            assert console.value("SELECT count(*) FROM task") == 0
        assert outcomes(await store.add([task])) == [EnqueueOutcome.CREATED]
        assert (await the_task(store, task.task_id)).state is TaskState.SCHEDULED
        assert (proxy.cuts, console.value("SELECT count(*) FROM task")) == (1, 1)
        await store.close()
