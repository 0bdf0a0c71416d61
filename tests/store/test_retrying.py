"""When a failed task is tried again, and when no more."""

from __future__ import annotations

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.retry import Jitter
from taskq_server.core.task import PROCESSOR_LOST, Outcome, TaskState
from taskq_server.store.store import Store
from tests.store.conftest import RULES
from tests.store.given import (
    a_processor,
    a_retry,
    a_task,
    end,
    failed,
    history,
    lease,
    not_received,
    released,
    running,
    seconds,
    the_task,
)


@pytest.mark.parametrize(
    ("jitter", "least", "most"),
    [(Jitter.NONE, seconds(8), seconds(8)), (Jitter.EQUAL, seconds(4), seconds(8)), (Jitter.FULL, 0, seconds(8))],
)
async def test_the_wait_before_a_retry_grows_and_is_spread_as_the_policy_says(
    store: Store, clock: ManualClock, jitter: Jitter, least: int, most: int
) -> None:
    oven = await a_processor(store)
    policy = a_retry(jitter=jitter, initial_delay_us=seconds(2), multiplier=2.0)
    held = await running(store, oven, *(a_task(retry=policy) for _ in range(60)))
    for _ in range(2):  # the third failure waits 2 s * 2 * 2
        await store.end([failed(assignment, retry_delay=0) for assignment in held])
        held = (await lease(store, oven)).assignments

    ended = await store.end([failed(assignment) for assignment in held])

    waits = [one.due_time_us - clock.now_us() for one in ended if one.due_time_us is not None]
    assert len(waits) == 60

    assert all(least <= wait <= most for wait in waits)
    assert (len(set(waits)) > 30) is (jitter is not Jitter.NONE)


async def test_the_wait_is_never_longer_than_the_policys_most(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    policy = a_retry(initial_delay_us=seconds(5), multiplier=1e300, max_delay_us=seconds(6), max_attempts=99)
    (assignment,) = await running(store, oven, a_task(retry=policy))
    for wait in (5, 6, 6, 6):
        assert (await end(store, failed(assignment))).due_time_us == clock.now_us() + seconds(wait)
        clock.advance(wait)
        (assignment,) = (await lease(store, oven)).assignments


async def test_the_processor_may_say_how_long_to_wait(store: Store, clock: ManualClock) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())

    ended = await end(store, failed(assignment, retry_delay=1_234_567))

    assert ended.due_time_us == clock.now_us() + 1_234_567


async def test_the_processor_may_say_that_it_is_no_use(store: Store) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())

    assert (await end(store, failed(assignment, retryable=False))).state is TaskState.FAILED


async def test_an_error_that_the_policy_names_is_not_retried(store: Store) -> None:
    oven = await a_processor(store)
    policy = a_retry(non_retryable_errors=("Poisonous", "Raw"))
    first, second = await running(store, oven, a_task(retry=policy), a_task(retry=policy))

    assert (await end(store, failed(first, "Raw"))).state is TaskState.FAILED
    assert (await end(store, failed(second, "Raw "))).state is TaskState.SCHEDULED


async def test_only_failures_are_counted_against_the_policy(store: Store) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task(retry=a_retry(max_attempts=2, initial_delay_us=0)))
    for word in (released, not_received, failed, released):
        assert (await end(store, word(assignment))).state is TaskState.SCHEDULED
        (assignment,) = (await lease(store, oven)).assignments

    assert (assignment.attempt, assignment.failed_attempts, assignment.max_attempts) == (5, 1, 2)
    assert (await end(store, failed(assignment))).state is TaskState.FAILED


async def test_the_first_lost_lease_costs_the_task_no_wait_and_keeps_its_place(
    store: Store, clock: ManualClock
) -> None:
    dying = await a_processor(store, alive_until=clock.now_us() + seconds(1))
    (assignment,) = await running(store, dying, a_task(retry=a_retry(initial_delay_us=seconds(60))))
    clock.advance(1)
    await store.reclaim()

    task = await the_task(store, assignment.task_id)
    assert (task.state, task.failed_attempts) == (TaskState.SCHEDULED, 1)
    assert task.due_time_us <= clock.now_us()
    assert task.last_failure is not None
    assert (task.last_failure.error_type, task.last_failure.attempt) == (PROCESSOR_LOST, 1)
    assert (await lease(store, await a_processor(store))).assignments[0].task_id == assignment.task_id


async def test_a_task_that_kills_its_processors_is_given_up_though_its_policy_would_go_on(
    store: Store, clock: ManualClock
) -> None:
    task = a_task(retry=a_retry(max_attempts=1_000, initial_delay_us=seconds(5)))
    await store.add([task])
    for number in range(1, RULES.max_lost_leases + 1):
        victim = await a_processor(store, name=f"victim-{number}", alive_until=clock.now_us() + seconds(1))
        (assignment,) = (await lease(store, victim)).assignments
        assert assignment.attempt == number
        clock.advance(1)
        await store.reclaim()
        clock.advance(100)

    stored = await the_task(store, task.task_id)
    assert (stored.state, stored.attempt) == (TaskState.FAILED, RULES.max_lost_leases)
    assert stored.last_failure is not None and stored.last_failure.error_type == PROCESSOR_LOST
    assert await history(store, task.task_id) == [(1, Outcome.LOST), (2, Outcome.LOST)]


async def test_from_the_second_lost_lease_on_the_policys_wait_is_kept(store: Store, clock: ManualClock) -> None:
    task = a_task(retry=a_retry(initial_delay_us=seconds(5)))
    await store.add([task])
    for _ in range(2):
        victim = await a_processor(store, alive_until=clock.now_us() + seconds(1))
        await lease(store, victim)
        clock.advance(1)
        await store.reclaim()

    assert (await the_task(store, task.task_id)).due_time_us == clock.now_us() + seconds(10)
