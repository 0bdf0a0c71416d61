"""Promises 2 and 7: never before the due time; priority, then due time, then enqueue order."""

from __future__ import annotations

import random

from taskq_server.clock import ManualClock
from taskq_server.core.task import TaskState
from taskq_server.store.store import Store
from taskq_server.store.verbs.leasing import MOST_TASKS_PER_LEASE
from tests.store.given import (
    a_processor,
    a_task,
    added,
    end,
    lease,
    leased_ids,
    minutes,
    released,
    rows,
    running,
    seconds,
    the_task,
)


async def test_a_task_is_never_leased_before_its_due_time_and_always_at_it(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    (task_id,) = await added(store, a_task(due_in=minutes(5)))

    clock.advance(us=minutes(5) - 1)
    assert await leased_ids(store, oven) == []
    clock.advance(us=1)
    assert await leased_ids(store, oven) == [task_id]


async def test_an_assignment_carries_what_its_processor_needs(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    new = a_task(
        requires=["!slow"],
        payload=b"pasta",
        priority=4,
        headers={"a": "b"},
        tags=("t",),
        run_timeout=seconds(9),
        key="k",
    )
    await added(store, new)
    clock.advance(3)

    (assignment,) = (await lease(store, oven)).assignments

    assert (assignment.task_id, assignment.session_seq, assignment.attempt) == (new.task_id, oven.seq, 1)
    assert (assignment.route, assignment.payload, assignment.priority) == (new.route, new.payload, 4)
    assert (assignment.headers, assignment.tags, assignment.dedup_key) == ({"a": "b"}, ("t",), "k")
    assert assignment.due_time_us == assignment.enqueue_time_us == clock.now_us() - seconds(3)
    assert (assignment.lease_time_us, assignment.run_timeout_us) == (clock.now_us(), seconds(9))
    assert (assignment.failed_attempts, assignment.max_attempts) == (0, new.retry_policy.max_attempts)
    assert (assignment.last_failure, assignment.checkpoint) == (None, None)


async def test_a_leased_task_runs_and_says_where(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store, name="the oven 🔥")
    (assignment,) = await running(store, oven, a_task())

    task = await the_task(store, assignment.task_id)

    assert (task.state, task.attempt, task.processor_name) == (TaskState.RUNNING, 1, "the oven 🔥")
    assert task.lease_time_us == clock.now_us()


async def test_a_leased_task_is_not_leased_again(store: Store) -> None:
    oven, hob = await a_processor(store), await a_processor(store, name="hob")
    await running(store, oven, a_task())

    assert await leased_ids(store, oven, hob) == []


async def test_larger_priority_runs_sooner_then_earlier_due_then_enqueue_order(
    store: Store, clock: ManualClock
) -> None:
    late = a_task(due_in=3)
    early = a_task(due_in=1)
    urgent = a_task(due_in=9, priority=9)
    twin = a_task(due_in=1)
    middle = a_task(due_in=0, priority=5)
    await added(store, late, early)
    await added(store, urgent, twin, middle)
    clock.advance(1)

    order = await leased_ids(store, await a_processor(store))

    assert order == [task.task_id for task in (urgent, middle, early, twin, late)]


async def test_the_order_holds_across_names_and_routes_and_when_seats_come_one_by_one(
    store: Store, clock: ManualClock
) -> None:
    chosen = random.Random(7)
    tasks = [
        a_task(
            chosen.choice(["cook", "bake", "fry"]),
            requires=chosen.choice([[], ["zone = eu"], ["!slow"]]),
            priority=chosen.randrange(10),
            due_in=chosen.randrange(4),
        )
        for _ in range(120)
    ]
    await added(store, *tasks)
    clock.advance(1)
    oven = await a_processor(store, "cook", "bake", "fry", labels={"zone": "eu"})
    expected = [task.task_id for task in sorted(tasks, key=lambda task: (-task.priority, task.delay_us))]

    order: list[bytes] = []
    while len(order) < len(tasks):
        order += await leased_ids(store, oven, slots=chosen.choice([1, 2, 7]))

    assert order == expected


async def test_no_seats_take_no_tasks(store: Store) -> None:
    oven = await a_processor(store)
    await added(store, a_task())

    assert await leased_ids(store, oven, slots=0) == []
    assert await leased_ids(store) == []


async def test_a_released_task_keeps_its_place_in_the_queue(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    first, second = await added(store, a_task(), a_task())
    (assignment,) = (await lease(store, oven, slots=1)).assignments
    clock.advance(5)

    await end(store, released(assignment))

    assert await leased_ids(store, oven) == [first, second]


async def test_a_lease_takes_only_so_many_and_says_to_come_back_at_once(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store, slots=MOST_TASKS_PER_LEASE * 3)
    ids = await added(store, *(a_task() for _ in range(MOST_TASKS_PER_LEASE + 5)))

    first = await lease(store, oven)
    second = await lease(store, oven)

    assert first.next_due_us is not None and first.next_due_us <= clock.now_us()
    assert [one.task_id for one in first.assignments + second.assignments] == ids
    assert second.next_due_us is None


async def test_many_routes_at_once_stay_within_the_limit_of_a_lease(store: Store) -> None:
    oven = await a_processor(store, "cook", "bake", slots=MOST_TASKS_PER_LEASE * 3)
    tasks = [a_task(name) for name in ("cook", "bake") for _ in range(MOST_TASKS_PER_LEASE * 3 // 4)]
    ids = await added(store, *tasks)

    first = await leased_ids(store, oven)

    assert first == ids[:MOST_TASKS_PER_LEASE]
    assert await leased_ids(store, oven) == ids[MOST_TASKS_PER_LEASE:]
    assert await rows(store, "SELECT count(*) AS n FROM task WHERE state = 1") == [{"n": 0}]


async def test_attempts_are_numbered_without_gaps_and_never_go_back(store: Store) -> None:
    oven = await a_processor(store)
    await added(store, a_task())
    numbers = []
    for _ in range(5):
        (assignment,) = (await lease(store, oven)).assignments
        numbers.append(assignment.attempt)
        await end(store, released(assignment))

    assert numbers == [1, 2, 3, 4, 5]
