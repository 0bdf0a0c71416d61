"""Who gets what: capabilities, labels, and never more than the credits of a session."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.matching import Demand
from taskq_server.core.task import TaskState
from taskq_server.store.store import Store
from tests.store.given import (
    a_processor,
    a_task,
    added,
    end,
    fails_with,
    lease,
    leased_ids,
    minutes,
    succeeded,
    the_task,
)


async def test_a_task_waits_for_a_processor_that_has_its_capability(store: Store) -> None:
    (task_id,) = await added(store, a_task("cook"))

    assert await leased_ids(store, await a_processor(store, "bake")) == []
    assert (await the_task(store, task_id)).state is TaskState.SCHEDULED
    assert await leased_ids(store, await a_processor(store, "bake", "cook")) == [task_id]


@pytest.mark.parametrize(
    ("requires", "labels", "runs"),
    [
        (["zone = eu"], {"zone": "eu"}, True),
        (["zone = eu"], {"zone": "us"}, False),
        (["zone = eu"], {}, False),
        (["zone in (eu, us)"], {"zone": "us"}, True),
        (["gpu exists"], {"gpu": "a100"}, True),
        (["gpu exists"], {"cpu": "x"}, False),
        (["!slow"], {}, True),
        (["!slow"], {"slow": "yes"}, False),
        (["zone = eu", "!slow"], {"zone": "eu", "slow": "yes"}, False),
    ],
)
async def test_a_task_goes_only_to_labels_that_meet_its_requirements(
    store: Store, requires: list[str], labels: dict[str, str], runs: bool
) -> None:
    (task_id,) = await added(store, a_task(requires=requires))

    assert await leased_ids(store, await a_processor(store, labels=labels)) == [task_id] * runs


async def test_a_task_that_nobody_may_run_holds_up_no_other(store: Store) -> None:
    await added(store, *(a_task(requires=["moon exists"], priority=9) for _ in range(50)))
    (task_id,) = await added(store, a_task())

    assert await leased_ids(store, await a_processor(store), slots=1) == [task_id]


async def test_a_session_gets_no_more_than_its_credits(store: Store) -> None:
    ids = await added(store, *(a_task() for _ in range(10)))

    assert await leased_ids(store, await a_processor(store, slots=4)) == ids[:4]


async def test_a_session_gets_no_more_of_a_name_than_that_names_credits(store: Store) -> None:
    oven = await a_processor(store, limits={"cook": 2, "bake": 0}, slots=10)
    cook = await added(store, *(a_task("cook", priority=9) for _ in range(5)))
    bake = await added(store, *(a_task("bake") for _ in range(20)))

    assert await leased_ids(store, oven) == cook[:2] + bake[:8]


async def test_a_names_credits_are_shared_by_all_its_routes(store: Store) -> None:
    oven = await a_processor(store, limits={"cook": 3}, labels={"zone": "eu"}, slots=10)
    await added(store, *(a_task(requires=requires) for requires in ([], ["zone = eu"], ["!slow"]) for _ in range(3)))

    assert len(await leased_ids(store, oven)) == 3


async def test_tasks_are_spread_evenly_over_the_sessions_that_may_run_them(store: Store) -> None:
    ovens = [await a_processor(store, name=f"oven-{i}") for i in range(4)]
    await added(store, *(a_task() for _ in range(40)))

    leased = await lease(store, *ovens)

    assert Counter(one.session_seq for one in leased.assignments) == {oven.seq: 10 for oven in ovens}


async def test_a_full_session_leaves_the_rest_to_the_others(store: Store) -> None:
    small, large = await a_processor(store, slots=2), await a_processor(store, name="large", slots=50)
    await added(store, *(a_task() for _ in range(20)))

    leased = await lease(store, small, large)

    given = Counter(one.session_seq for one in leased.assignments)
    assert given[small.seq] <= 2
    assert given.total() == 20


async def test_an_ended_session_gets_nothing_even_if_it_still_asks(store: Store) -> None:
    """Its tasks would run under a lease that nobody ever ends."""
    oven = await a_processor(store)
    demand = Demand([oven.seats(store)])
    await added(store, a_task())
    demand = Demand([oven.seats(store)])
    await store.unregister(oven.seq)

    assert (await store.lease(demand)).assignments == []
    assert len(await leased_ids(store, await a_processor(store))) == 1


async def test_a_session_that_was_reclaimed_gets_nothing_even_if_it_still_asks(
    store: Store, clock: ManualClock
) -> None:
    oven = await a_processor(store, alive_until=clock.now_us() + 1)
    (task_id,) = await added(store, a_task())
    clock.advance(us=1)
    await store.reclaim()

    assert await leased_ids(store, oven) == []
    assert (await the_task(store, task_id)).state is TaskState.SCHEDULED


async def test_a_lease_whose_neighbour_fails_still_has_all_its_seats(store: Store) -> None:
    """Each caller of a commit that failed is tried again alone."""
    oven = await a_processor(store, slots=3)
    ids = await added(store, *(a_task() for _ in range(5)))
    demand = Demand([oven.seats(store)])

    leased, error = await asyncio.gather(
        store.lease(demand), store.write(fails_with(ZeroDivisionError()), [None]), return_exceptions=True
    )

    assert isinstance(error, ZeroDivisionError)
    assert [one.task_id for one in leased.assignments] == ids[:3]  # type: ignore[union-attr]


async def test_credits_that_come_back_are_used_again(store: Store) -> None:
    oven = await a_processor(store, slots=1)
    ids = await added(store, *(a_task() for _ in range(3)))
    order = []
    for _ in ids:
        (assignment,) = (await lease(store, oven)).assignments
        order.append(assignment.task_id)
        await end(store, succeeded(assignment))

    assert order == ids


async def test_future_tasks_of_one_name_do_not_hide_the_due_ones_of_another(store: Store) -> None:
    await added(store, *(a_task("cook", due_in=minutes(5), priority=9) for _ in range(20)))
    (task_id,) = await added(store, a_task("bake"))

    assert await leased_ids(store, await a_processor(store, "cook", "bake"), slots=1) == [task_id]
