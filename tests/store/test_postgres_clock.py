"""Servers on PostgreSQL go by the database's clock, wherever the clocks of their machines are."""

from __future__ import annotations

from taskq_server.clock import DatabaseClock
from taskq_server.store.postgres.store import Postgres
from tests.store.conftest import RULES
from tests.store.given import a_processor, a_task, added, hours, lease, leased_ids, seconds, the_task
from tests.store.rivals import stopped_at
from tests.support.console import Console

NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
ROUND_TRIP = seconds(2)
"""At the most, on a busy machine."""


def a_machine_whose_clock_is_off_by(us: int) -> DatabaseClock:
    clock = DatabaseClock()
    clock._ahead_us += us
    return clock


async def test_a_server_that_is_hours_off_goes_by_the_database(postgres_url: str, console: Console) -> None:
    for off in (-hours(5), hours(5)):
        clock = a_machine_whose_clock_is_off_by(off)
        store = await Postgres.open(postgres_url, clock, RULES)
        before = console.value(NOW)
        now = clock.now_us()
        assert before - ROUND_TRIP <= now <= console.value(NOW) + ROUND_TRIP
        await store.close()


async def test_a_task_is_due_by_the_database_whichever_server_has_added_it(postgres_url: str, console: Console) -> None:
    fast, slow = (a_machine_whose_clock_is_off_by(off) for off in (hours(5), -hours(5)))
    here, there = [await Postgres.open(postgres_url, clock, RULES) for clock in (fast, slow)]
    before = console.value(NOW)

    now, later = await added(here, a_task(), a_task(due_in=hours(1)))
    await there.look_around()
    (assignment,) = (await lease(there, await a_processor(there))).assignments

    after = console.value(NOW)
    assert assignment.task_id == now
    assert before <= assignment.enqueue_time_us <= assignment.lease_time_us <= after
    assert before <= (await the_task(there, later)).due_time_us - hours(1) <= after
    assert await leased_ids(here, await a_processor(here)) == []
    await here.close()
    await there.close()


async def test_a_lease_that_waited_runs_from_the_instant_at_which_it_was_taken(
    postgres_url: str, console: Console
) -> None:
    """An attempt that another server has ended meanwhile must not seem to have ended after this one began."""
    store = await Postgres.open(postgres_url, DatabaseClock(), RULES)
    oven = await a_processor(store)
    await added(store, a_task(run_timeout=seconds(5)))

    leasing = await stopped_at(store, "UPDATE task SET state = 2", lease(store, oven))
    between = console.value(NOW)
    (assignment,) = (await leasing.goes_on()).assignments

    assert assignment.lease_time_us >= between
    deadline = console.value("SELECT run_deadline_us FROM task")
    assert deadline == assignment.lease_time_us + seconds(5)
    await store.close()
