"""What one server schedules the others find by looking, and what is known already no look makes them forget."""

from __future__ import annotations

import asyncio

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.task import TaskState
from taskq_server.store.postgres.store import Postgres
from tests.store.conftest import Servers
from tests.store.given import (
    a_processor,
    a_retry,
    a_task,
    added,
    end,
    failed,
    lease,
    leased_ids,
    minutes,
    running,
    succeeded,
    the_task,
)
from tests.store.rivals import stopped_at
from tests.support.console import Console

FIRST_DUE = "WITH RECURSIVE place"
DUE = "WITH asked AS"


def hint(store: Postgres) -> int | None:
    return store.next_due_us(store.routes)


# ── looks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_look_finds_what_another_has_scheduled_and_says_it_once(servers: Servers, clock: ManualClock) -> None:
    here, there = await servers(2)
    await added(here, a_task(due_in=minutes(5)), a_task(due_in=minutes(9), priority=9))

    assert hint(there) is None
    assert (await there.look_around()).earliest_us == hint(there) == clock.now_us() + minutes(5)
    assert (await there.look_around()).earliest_us is None


@pytest.mark.parametrize("priority", [0, 3])
async def test_a_look_finds_what_is_due_earlier_than_what_was_known(
    servers: Servers, clock: ManualClock, priority: int
) -> None:
    here, there = await servers(2)
    await added(there, a_task(due_in=minutes(5)))
    await here.look_around()

    await added(here, a_task(due_in=minutes(3), priority=priority))

    assert (await there.look_around()).earliest_us == hint(there) == clock.now_us() + minutes(3)


async def test_a_look_forgets_what_others_have_taken(servers: Servers, clock: ManualClock) -> None:
    here, there = await servers(2)
    await added(here, a_task(), a_task(due_in=minutes(5)))
    await there.look_around()
    await leased_ids(here, await a_processor(here))

    assert (await there.look_around()).earliest_us is None
    assert hint(there) == clock.now_us() + minutes(5)


async def test_a_look_finds_what_goes_back_at_another_server(servers: Servers, clock: ManualClock) -> None:
    here, there = await servers(2)
    (held,) = await running(here, await a_processor(here), a_task(retry=a_retry(initial_delay_us=minutes(1))))
    await there.look_around()
    assert hint(there) is None

    await end(here, failed(held))

    assert (await there.look_around()).earliest_us == clock.now_us() + minutes(1)


async def test_a_look_learns_the_routes_of_what_waits(servers: Servers) -> None:
    here, there = await servers(2)
    (task_id,) = await added(here, a_task("new route", requires=["gpu exists"]))
    assert there.routes == {}

    await there.look_around()

    assert there.routes == here.routes
    assert await leased_ids(there, await a_processor(there, "new route", labels={"gpu": ""})) == [task_id]


async def test_routes_that_two_learn_in_different_orders_have_the_same_numbers_and_new_ones_come_last(
    servers: Servers,
) -> None:
    """Sessions are matched with those that are new, which they take to be at the end."""
    here, there = await servers(2)
    known: list[tuple[int, object]] = []
    for i in range(4):
        await added(here, a_task(f"here {i}"))
        await added(there, a_task(f"there {i}"), a_task(f"here {i}"))
        await here.look_around()

        assert list(here.routes.items())[: len(known)] == known
        known = list(here.routes.items())

    await there.look_around()
    assert here.routes == there.routes


async def test_a_task_of_a_route_that_is_not_known_here_can_be_read_and_ended_here(servers: Servers) -> None:
    here, there = await servers(2)
    oven = await a_processor(here, "new route")
    (held,) = await running(here, oven, a_task("new route"))

    stored = await there.find_session(oven.session_id)
    assert stored is not None and [one.name for one in stored.held] == ["new route"]
    await end(there, succeeded(held))
    assert (await the_task(there, held.task_id)).state is TaskState.SUCCEEDED
    assert list(there.routes.values()) == [held.route]


# ── looks while something happens ────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_added_here_during_a_look_is_known_after_it(servers: Servers, clock: ManualClock) -> None:
    (here,) = await servers(1)

    looking = await stopped_at(here, FIRST_DUE, here.look_around(), after=True)
    await added(here, a_task(), a_task("new route", due_in=5))
    await looking.goes_on()

    assert hint(here) == clock.now_us()
    assert len([number for number in here.routes if here.next_due_us([number]) is not None]) == 2


async def test_what_is_leased_here_during_a_look_may_be_looked_for_once_more(servers: Servers) -> None:
    (here,) = await servers(1)
    oven = await a_processor(here)
    (task_id,) = await added(here, a_task())

    looking = await stopped_at(here, FIRST_DUE, here.look_around(), after=True)
    assert await leased_ids(here, oven) == [task_id]
    await looking.goes_on()

    assert await leased_ids(here, oven) == []
    assert hint(here) is None


async def test_what_a_look_has_found_is_still_known_when_a_lease_ends_that_began_before(
    servers: Servers, clock: ManualClock
) -> None:
    """The lease has seen what there was, and says that nothing is left."""
    here, there = await servers(2)
    oven = await a_processor(here)
    (first,) = await added(here, a_task())

    leasing = await stopped_at(here, DUE, lease(here, oven), after=True)
    (second,) = await added(there, a_task())
    await here.look_around()
    leased = await leasing.goes_on()

    assert [one.task_id for one in leased.assignments] == [first]
    assert hint(here) == clock.now_us()
    assert await leased_ids(here, oven) == [second]


async def test_a_look_that_fails_changes_nothing_that_was_known(
    servers: Servers, clock: ManualClock, console: Console
) -> None:
    here, there = await servers(2)
    await added(here, a_task(due_in=5))
    console.run("ALTER TABLE task RENAME TO lost")
    with pytest.raises(Exception, match="does not exist"):
        await here.look_around()
    assert hint(here) == clock.now_us() + 5

    console.run("ALTER TABLE lost RENAME TO task")
    await added(there, a_task())
    assert (await here.look_around()).earliest_us == hint(here) == clock.now_us()


async def test_looks_adds_and_leases_at_any_instant_forget_no_task(servers: Servers) -> None:
    here, there = await servers(2)
    oven = await a_processor(here, slots=1_000)
    asked, leased = set[bytes](), list[bytes]()

    async def add(store: Postgres) -> None:
        for _ in range(60):
            asked.update(await added(store, a_task()))

    async def look() -> None:
        for _ in range(60):
            await here.look_around()

    async def take() -> None:
        for _ in range(60):
            leased.extend(await leased_ids(here, oven))

    await asyncio.gather(add(here), add(there), look(), take())
    await here.look_around()
    while hint(here) is not None:
        leased += await leased_ids(here, oven)

    assert sorted(leased) == sorted(asked)
