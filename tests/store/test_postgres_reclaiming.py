"""What dead sessions leave behind, when there is much of it or another server is at it."""

from __future__ import annotations

import asyncio

import pytest

from taskq_server.clock import Alarm, ManualClock
from taskq_server.housekeeper import Housekeeper
from taskq_server.sessions import Sessions
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.verbs.reclaiming import MOST_SESSIONS_PER_RECLAIM
from tests.store.conftest import RULES
from tests.store.given import LEASE, a_processor, living_sessions, seconds
from tests.support.console import connect


@pytest.fixture
async def store(postgres_url: str, clock: ManualClock) -> Postgres:
    return await Postgres.open(postgres_url, clock, RULES)


async def test_a_fleet_that_dies_at_once_is_taken_back_in_several_transactions(
    store: Postgres, clock: ManualClock
) -> None:
    for _ in range(MOST_SESSIONS_PER_RECLAIM + 1):
        await a_processor(store, alive_until=clock.now_us() + LEASE)
    clock.advance(31)

    first = await store.reclaim()

    assert len(first.dead) == MOST_SESSIONS_PER_RECLAIM
    assert first.next_us is not None and first.next_us <= clock.now_us(), "the rest at once"
    assert len((await store.reclaim()).dead) == 1
    assert await living_sessions(store) == []
    await store.close()


async def test_a_housekeeper_waits_while_another_server_is_at_what_is_out_of_time(
    store: Postgres, clock: ManualClock, postgres_url: str
) -> None:
    await a_processor(store, alive_until=clock.now_us() + LEASE)
    sessions = Sessions(store, clock, LEASE)
    housekeeper = Housekeeper(store, sessions, clock, Alarm(clock), lambda: None, LEASE, seconds(60), seconds(60))
    await housekeeper.tick()
    clock.advance(31)
    other = await connect(postgres_url)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT 1 FROM session FOR UPDATE")

    housekeeper._last_tick_us = clock.now_us()  # it has not been away
    again_us = await asyncio.wait_for(housekeeper.tick(), 10)

    assert again_us > clock.now_us()
    await transaction.rollback()
    clock.advance(us=again_us - clock.now_us())
    await housekeeper.tick()
    assert await living_sessions(store) == []
    await other.close()
    await store.close()
