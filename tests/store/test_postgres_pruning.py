"""Pruning, when millions of tasks are finished or the database is too slow for it."""

from __future__ import annotations

import pytest

from taskq_server.clock import Alarm, ManualClock
from taskq_server.core.errors import StorageUnavailable
from taskq_server.core.task import DedupHold
from taskq_server.housekeeper import Housekeeper
from taskq_server.sessions import Sessions
from taskq_server.store.postgres.store import Postgres
from tests.store.conftest import RULES
from tests.store.given import LEASE, a_processor, a_task, added, living_sessions, rows, seconds
from tests.support.console import Console


@pytest.fixture
async def store(postgres_url: str, clock: ManualClock) -> Postgres:
    return await Postgres.open(postgres_url, clock, RULES)


async def test_a_key_that_is_over_is_pruned_without_a_look_at_all_tasks(
    store: Postgres, clock: ManualClock, postgres_url: str
) -> None:
    (kept,) = await added(store, a_task(key="unfinished", hold=DedupHold.BOTH, ttl=seconds(1)))
    with Console(postgres_url) as console:
        console.run("INSERT INTO dedup SELECT 'cook', i::text, i::text::bytea, 3, i FROM generate_series(1, 5000) AS i")
        console.run("ANALYZE dedup")
        clock.advance(2)
        seen = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'task'"
        before = console.value(seen)

        for _ in range(2):
            await store.prune(seconds(60))

        assert [row["task_id"] for row in await rows(store, "SELECT task_id FROM dedup")] == [kept]
        await store.close()  # its statistics are told
        assert console.value(seen) == before


async def test_a_prune_that_fails_keeps_nobody_alive(
    store: Postgres, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(keep_us: int) -> None:
        raise StorageUnavailable("canceling statement due to statement timeout")

    monkeypatch.setattr(store, "prune", fail)
    sessions = Sessions(store, clock, LEASE)
    housekeeper = Housekeeper(store, sessions, clock, Alarm(clock), lambda: None, LEASE, seconds(60), seconds(60))
    await housekeeper.tick()
    await a_processor(store, alive_until=clock.now_us() + LEASE)

    for _ in range(10):
        clock.advance(us=LEASE // 8)
        await housekeeper._tick_safely()

    assert await living_sessions(store) == []
    await store.close()
