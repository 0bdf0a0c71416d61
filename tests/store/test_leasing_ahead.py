"""Seats that nothing due wants may be given to what will be due in a moment; its lease begins when it is due."""

from __future__ import annotations

from taskq_server.clock import ManualClock
from taskq_server.core.matching import Demand
from taskq_server.store.store import Store
from taskq_server.store.verbs.leasing import Leased
from tests.store.given import (
    Processor,
    a_processor,
    a_task,
    added,
    lease,
    leased_ids,
    rows,
    seconds,
)

AHEAD = seconds(1)


async def lease_ahead(store: Store, *processors: Processor, slots: int | None = None) -> Leased:
    return await store.lease(Demand([one.seats(store, slots) for one in processors], AHEAD))


def ids(leased: Leased) -> list[bytes]:
    return [one.task_id for one in leased.assignments]


async def test_what_is_due_within_the_moment_is_leased_and_what_is_later_is_not(store: Store) -> None:
    oven = await a_processor(store)
    soon, later = await added(store, a_task(due_in=AHEAD), a_task(due_in=AHEAD + 1))

    leased = await lease_ahead(store, oven)

    assert ids(leased) == [soon]
    assert leased.next_due_us == (await rows(store, "SELECT due_time_us FROM task WHERE state = 1"))[0]["due_time_us"]
    assert later not in ids(leased)


async def test_its_lease_begins_and_its_time_runs_from_when_it_is_due(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    await added(store, a_task(due_in=AHEAD, run_timeout=seconds(5)), a_task())

    now, then = (await lease_ahead(store, oven)).assignments

    assert (now.lease_time_us, then.lease_time_us) == (clock.now_us(), clock.now_us() + AHEAD)
    kept = await rows(store, "SELECT lease_time_us, run_deadline_us FROM task WHERE run_deadline_us IS NOT NULL")
    assert kept == [{"lease_time_us": clock.now_us() + AHEAD, "run_deadline_us": clock.now_us() + AHEAD + seconds(5)}]


async def test_what_is_due_comes_first_whatever_the_priority_of_what_will_be(store: Store) -> None:
    oven = await a_processor(store)
    _, due = await added(store, a_task(due_in=1, priority=9), a_task(priority=0))

    assert ids(await lease_ahead(store, oven, slots=1)) == [due]


async def test_of_what_will_be_due_the_more_urgent_comes_first(store: Store) -> None:
    oven = await a_processor(store)
    third, second, first = await added(
        store, a_task(due_in=5, priority=1), a_task(due_in=4, priority=1), a_task(due_in=9, priority=7)
    )

    assert ids(await lease_ahead(store, oven, slots=1)) == [first]
    assert ids(await lease_ahead(store, oven)) == [second, third]


async def test_none_of_those_that_are_due_is_passed_over(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    due = await added(store, *(a_task() for _ in range(3)))
    (soon,) = await added(store, a_task(due_in=1))

    assert ids(await lease_ahead(store, oven, slots=2)) == due[:2]
    assert ids(await lease_ahead(store, oven)) == [due[2], soon]
    assert (await lease_ahead(store, oven)).next_due_us is None
    clock.advance(1)
    assert await leased_ids(store, oven) == []


async def test_who_may_not_run_what_is_due_may_have_what_will_be(store: Store) -> None:
    baker = await a_processor(store, "bake")
    (loaf,) = await added(store, a_task("bake", due_in=1))
    (dish,) = await added(store, a_task("cook"))

    assert ids(await lease_ahead(store, baker)) == [loaf]
    assert await leased_ids(store, await a_processor(store, "cook", name="pan")) == [dish]


async def test_without_being_asked_nothing_is_leased_ahead(store: Store) -> None:
    oven = await a_processor(store)
    await added(store, a_task(due_in=1))

    assert (await lease(store, oven)).assignments == []
