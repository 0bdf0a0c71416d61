"""When to come back: early enough that no task waits for nothing, and never a busy loop over what cannot be placed."""

from __future__ import annotations

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.matching import Demand
from taskq_server.core.task import TaskState
from taskq_server.store.store import Store
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
    released,
    running,
    seconds,
    the_task,
)


def hint(store: Store) -> int | None:
    return store.next_due_us(store.routes)


async def test_an_empty_store_has_nothing_to_come_back_for(store: Store) -> None:
    assert (await lease(store, await a_processor(store))).next_due_us is None
    assert hint(store) is None


async def test_the_hint_is_the_earliest_due_time(store: Store, clock: ManualClock) -> None:
    await added(store, a_task(due_in=minutes(9)), a_task(due_in=minutes(5), priority=3), a_task(due_in=minutes(7)))

    assert hint(store) == clock.now_us() + minutes(5)
    assert (await lease(store, await a_processor(store))).next_due_us == clock.now_us() + minutes(5)


async def test_the_hint_asks_only_for_the_routes_it_is_given(store: Store, clock: ManualClock) -> None:
    await added(store, a_task("cook", due_in=minutes(1)), a_task("bake", due_in=minutes(2)))
    bake = [number for number, route in store.routes.items() if route.name == "bake"]

    assert store.next_due_us(bake) == clock.now_us() + minutes(2)
    assert store.next_due_us([]) is None
    assert store.next_due_us([99]) is None


async def test_after_a_lease_the_hint_is_the_next_task_of_the_same_priority(store: Store, clock: ManualClock) -> None:
    await added(store, a_task(), a_task(due_in=minutes(3)), a_task(due_in=minutes(4)))
    oven = await a_processor(store)

    assert (await lease(store, oven)).next_due_us == clock.now_us() + minutes(3)
    assert hint(store) == clock.now_us() + minutes(3)


async def test_a_full_session_is_not_a_reason_to_come_back(store: Store) -> None:
    oven = await a_processor(store, slots=2)
    await added(store, *(a_task() for _ in range(5)))

    assert (await lease(store, oven)).next_due_us is None


async def test_what_was_left_for_want_of_seats_is_still_known_to_be_due(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store, slots=2)
    ids = await added(store, *(a_task(priority=priority) for priority in (5, 5, 5, 1)))
    await lease(store, oven)

    assert hint(store) == clock.now_us()
    assert await leased_ids(store, oven) == ids[2:]
    assert await leased_ids(store, oven) == []  # after a lease of as many as there were, it may look for nothing, once
    assert hint(store) is None


async def test_seats_that_are_left_come_back_for_what_is_due_next_to_them(store: Store, clock: ManualClock) -> None:
    await added(store, a_task("cook"), a_task("cook"), a_task("bake", due_in=minutes(2)))
    oven = await a_processor(store, limits={"cook": 1, "bake": 1}, slots=5)

    leased = await lease(store, oven)

    assert len(leased.assignments) == 1
    assert leased.next_due_us == clock.now_us() + minutes(2)


async def test_a_cancelled_task_costs_at_most_one_look_for_nothing(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    (gone,) = await added(store, a_task(due_in=minutes(1)))
    await added(store, a_task(due_in=minutes(5)))
    await store.cancel([gone])
    clock.advance(us=minutes(1))

    leased = await lease(store, oven)

    assert (leased.assignments, leased.next_due_us) == ([], clock.now_us() + minutes(4))


async def test_a_retry_a_release_and_a_lost_task_are_known_to_wait(store: Store, clock: ManualClock) -> None:
    dying = await a_processor(store, alive_until=clock.now_us() + seconds(90))
    retry = a_task(retry=a_retry(initial_delay_us=minutes(3)))
    first, second, third = await running(store, dying, retry, a_task(), a_task())
    assert hint(store) is None

    await end(store, failed(first))
    assert hint(store) == clock.now_us() + minutes(3)
    await end(store, released(second, due_at=clock.now_us() + minutes(2)))
    assert hint(store) == clock.now_us() + minutes(2)
    clock.advance(90)
    await store.reclaim()
    assert hint(store) == third.due_time_us
    assert await leased_ids(store, await a_processor(store)) == [third.task_id]


async def test_a_hint_survives_a_commit_that_failed(store: Store) -> None:
    """It may be early, never late: a task must not be forgotten because a commit was."""
    oven = await a_processor(store)
    (task_id,) = await added(store, a_task())
    seats = oven.seats(store)

    def lease_then_fail(tx, items):  # type: ignore[no-untyped-def]
        assert len(store._lease(tx, [Demand([seats])])[0].assignments) == 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.write(lease_then_fail, [None])

    assert (await the_task(store, task_id)).state is TaskState.SCHEDULED
    assert hint(store) is not None
    assert await leased_ids(store, oven) == [task_id]


async def test_the_hints_after_a_restart_are_those_of_before(store: Store, clock: ManualClock, reopen) -> None:  # type: ignore[no-untyped-def]
    await added(
        store,
        a_task("cook", due_in=minutes(5)),
        a_task("cook", due_in=minutes(9), priority=7),
        a_task("bake", due_in=minutes(3)),
    )
    before = {number: store.next_due_us([number]) for number in store.routes}

    again = await reopen()

    assert {number: again.next_due_us([number]) for number in again.routes} == before
