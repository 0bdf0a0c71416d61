"""The database's clock is set back by an hour: sessions that register afterwards are noticed in time when they die."""

from __future__ import annotations

from taskq_server.clock import Alarm, ManualClock
from taskq_server.housekeeper import Housekeeper
from taskq_server.sessions import Sessions
from taskq_server.store.postgres.store import Postgres
from tests.store.conftest import RULES
from tests.store.given import LEASE, a_processor, hours, living_sessions, seconds


async def test_who_dies_after_the_clock_was_set_back_is_noticed_within_a_lease(
    postgres_url: str, clock: ManualClock
) -> None:
    store = await Postgres.open(postgres_url, clock, RULES)
    sessions = Sessions(store, clock, LEASE)
    housekeeper = Housekeeper(store, sessions, clock, Alarm(clock), lambda: None, LEASE, seconds(60), seconds(60))
    await housekeeper.tick()
    clock.advance(us=-hours(1))
    await a_processor(store, alive_until=clock.now_us() + LEASE)

    for _ in range(10):
        clock.advance(us=LEASE // 8)
        await housekeeper.tick()

    assert await living_sessions(store) == []
    await store.close()
