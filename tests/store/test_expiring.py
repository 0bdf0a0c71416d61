"""A task that has not started by its expire_time fails with EXPIRED, and is never leased after it."""

from __future__ import annotations

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.task import EXPIRED, TaskState
from taskq_server.store.store import Store
from tests.store.given import (
    a_processor,
    a_retry,
    a_task,
    added,
    end,
    failed,
    fails_with,
    lease,
    leased_ids,
    minutes,
    released,
    rows,
    running,
    seconds,
    the_task,
)


async def test_an_expired_task_is_never_leased_though_nobody_has_reclaimed_it(store: Store, clock: ManualClock) -> None:
    (late, other) = await added(store, a_task(expires_at=clock.now_us() + seconds(9)), a_task())
    clock.advance(9)

    assert await leased_ids(store, await a_processor(store)) == [other]

    task = await the_task(store, late)
    assert task.state is TaskState.FAILED
    assert task.last_failure is not None and task.last_failure.error_type == EXPIRED
    assert (task.finish_time_us, task.attempt) == (clock.now_us(), 0)


async def test_a_task_can_still_start_a_microsecond_before_it_expires(store: Store, clock: ManualClock) -> None:
    ids = await added(store, a_task(expires_at=clock.now_us() + seconds(9)))
    clock.advance(us=seconds(9) - 1)

    assert await leased_ids(store, await a_processor(store)) == ids


async def test_reclaim_fails_what_is_too_late_and_says_when_the_next_will_be(store: Store, clock: ManualClock) -> None:
    ids = await added(
        store,
        a_task(due_in=minutes(9), expires_at=clock.now_us() + seconds(9)),
        a_task(due_in=minutes(9), expires_at=clock.now_us() + seconds(20)),
    )
    assert (await store.reclaim()).next_us == clock.now_us() + seconds(9)
    clock.advance(9)

    assert (await store.reclaim()).next_us == clock.now_us() + seconds(11)
    assert [(await the_task(store, task_id)).state for task_id in ids] == [TaskState.FAILED, TaskState.SCHEDULED]


async def test_a_task_that_runs_does_not_expire(store: Store, clock: ManualClock) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task(expires_at=clock.now_us() + seconds(9)))
    clock.advance(60)
    await store.reclaim()

    assert (await the_task(store, assignment.task_id)).state is TaskState.RUNNING


async def test_a_task_that_has_failed_once_was_started_and_expires_no_more(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    retry = a_retry(initial_delay_us=minutes(1))
    (assignment,) = await running(store, oven, a_task(expires_at=clock.now_us() + seconds(9), retry=retry))
    await end(store, failed(assignment))
    clock.advance(us=minutes(1))
    await store.reclaim()

    assert await leased_ids(store, oven) == [assignment.task_id]


async def test_a_task_that_was_released_unrun_expires(store: Store, clock: ManualClock) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task(expires_at=clock.now_us() + seconds(9)))
    await end(store, released(assignment, due_at=clock.now_us() + minutes(1)))

    assert (await store.reclaim()).next_us == clock.now_us() + seconds(9)
    clock.advance(9)
    await store.reclaim()

    assert (await the_task(store, assignment.task_id)).state is TaskState.FAILED


async def test_a_task_that_is_released_after_its_expiry_is_not_leased_again(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task(expires_at=clock.now_us() + seconds(9)))
    clock.advance(20)
    await store.reclaim()
    await end(store, released(assignment))

    assert await leased_ids(store, oven) == []
    assert (await the_task(store, assignment.task_id)).state is TaskState.FAILED


async def test_any_number_of_tasks_may_expire_at_once(store: Store, clock: ManualClock) -> None:
    await added(store, *(a_task(expires_at=clock.now_us() + seconds(1)) for _ in range(1_203)))
    clock.advance(1)

    assert await leased_ids(store, await a_processor(store)) == []
    assert await rows(store, "SELECT state, count(*) AS n FROM task GROUP BY state") == [{"state": 4, "n": 1_203}]


async def test_a_failed_commit_forgets_no_expiry(store: Store, clock: ManualClock) -> None:
    (task_id,) = await added(store, a_task(expires_at=clock.now_us() + seconds(1)))
    clock.advance(1)

    def reclaim_then_fail(tx, items):  # type: ignore[no-untyped-def]
        store._reclaim(tx, [tx.now_us])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.write(reclaim_then_fail, [None])
    assert (await the_task(store, task_id)).state is TaskState.SCHEDULED
    assert await leased_ids(store, await a_processor(store)) == []

    assert (await the_task(store, task_id)).state is TaskState.FAILED


async def test_expiry_is_known_after_a_restart(store: Store, clock: ManualClock, reopen) -> None:  # type: ignore[no-untyped-def]
    await added(store, a_task(due_in=minutes(1), expires_at=clock.now_us() + seconds(9)))

    again = await reopen()

    assert (await again.reclaim()).next_us == clock.now_us() + seconds(9)


async def test_a_lease_after_a_restart_fails_what_is_too_late(store: Store, clock: ManualClock, reopen) -> None:  # type: ignore[no-untyped-def]
    (task_id,) = await added(store, a_task(key="k", expires_at=clock.now_us() + seconds(9)))

    again = await reopen()
    clock.advance(9)

    assert await leased_ids(again, await a_processor(again)) == []
    assert (await the_task(again, task_id)).state is TaskState.FAILED
    await added(again, a_task(key="k"))


async def test_an_expired_task_is_pruned_like_any_other(store: Store, clock: ManualClock) -> None:
    await added(store, a_task(expires_at=clock.now_us() + seconds(1), retention=seconds(5)))
    clock.advance(1)
    await store.reclaim()
    clock.advance(5)

    assert (await store.prune(0)).tasks == 1


async def test_leasing_goes_on_after_a_neighbour_failed(store: Store, clock: ManualClock) -> None:
    with pytest.raises(ZeroDivisionError):
        await store.write(fails_with(ZeroDivisionError()), [None])
    await added(store, a_task())

    assert len((await lease(store, await a_processor(store))).assignments) == 1
