"""Cancel stops what waits or runs, and nothing else."""

from __future__ import annotations

import asyncio

from taskq_server.clock import ManualClock
from taskq_server.core.task import EndStatus, TaskState
from taskq_server.store.store import Store
from tests.store.given import (
    NO_RETRY,
    a_processor,
    a_retry,
    a_task,
    added,
    an_id,
    end,
    failed,
    lease,
    leased_ids,
    minutes,
    running,
    seconds,
    statuses,
    succeeded,
    the_task,
)


async def test_a_cancelled_waiting_task_is_never_delivered(store: Store, clock: ManualClock) -> None:
    (task_id,) = await added(store, a_task(due_in=minutes(1)))

    (cancelled,) = await store.cancel([task_id])

    assert (cancelled.state_before, cancelled.session_seq) == (TaskState.SCHEDULED, None)
    task = await the_task(store, task_id)
    assert (task.state, task.finish_time_us) == (TaskState.CANCELLED, clock.now_us())
    clock.advance(us=minutes(1))
    assert await leased_ids(store, await a_processor(store)) == []


async def test_a_cancelled_running_task_ends_at_once_and_says_who_must_stop(store: Store) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task())

    (cancelled,) = await store.cancel([assignment.task_id])

    assert cancelled.state_before is TaskState.RUNNING
    assert (cancelled.session_seq, cancelled.attempt) == (oven.seq, 1)
    assert (await the_task(store, assignment.task_id)).state is TaskState.CANCELLED
    assert statuses(await store.end([succeeded(assignment)])) == [EndStatus.LEASE_LOST]
    assert (await the_task(store, assignment.task_id)).state is TaskState.CANCELLED


async def test_a_task_that_waits_for_its_retry_can_be_cancelled(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task(retry=a_retry(initial_delay_us=seconds(5))))
    await end(store, failed(assignment))

    (cancelled,) = await store.cancel([assignment.task_id])

    assert cancelled.state_before is TaskState.SCHEDULED
    clock.advance(5)
    assert await leased_ids(store, oven) == []
    task = await the_task(store, assignment.task_id)
    assert (task.state, task.failed_attempts) == (TaskState.CANCELLED, 1)
    assert task.last_failure is not None  # what went wrong before is still worth knowing


async def test_what_is_finished_stays_as_it_is(store: Store) -> None:
    oven = await a_processor(store)
    first, second = await running(store, oven, a_task(retry=NO_RETRY), a_task(retry=NO_RETRY))
    third = a_task(due_in=minutes(1))
    await store.add([third])
    await store.end([succeeded(first), failed(second)])
    await store.cancel([third.task_id])
    ids = [first.task_id, second.task_id, third.task_id]
    before = await store.get(ids)

    cancelled = await store.cancel(ids)

    assert [one.state_before for one in cancelled] == [TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED]
    assert await store.get(ids) == before


async def test_an_unknown_task_is_said_to_be_unknown_and_the_others_are_cancelled(store: Store) -> None:
    (task_id,) = await added(store, a_task())

    cancelled = await store.cancel([an_id(), task_id])

    assert [one.state_before for one in cancelled] == [None, TaskState.SCHEDULED]


async def test_cancelling_twice_at_once_is_cancelling_once(store: Store) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task())
    waiting = a_task(due_in=minutes(1))
    await store.add([waiting])

    await asyncio.gather(*(store.cancel([assignment.task_id, waiting.task_id]) for _ in range(5)))

    found = await store.get([assignment.task_id, waiting.task_id])
    assert {task.state for task in found.values()} == {TaskState.CANCELLED}
    assert found[assignment.task_id].attempt == 1


async def test_a_cancel_that_races_with_a_lease_and_a_report_leaves_one_end(store: Store) -> None:
    oven = await a_processor(store)
    for _ in range(30):
        (task_id,) = await added(store, a_task())
        leased, _ = await asyncio.gather(lease(store, oven), store.cancel([task_id]))
        if leased.assignments:
            ((ended,), (cancelled,)) = await asyncio.gather(
                store.end([succeeded(leased.assignments[0])]), store.cancel([task_id])
            )
            assert ended.status is EndStatus.LEASE_LOST or cancelled.state_before is TaskState.SUCCEEDED
        task = await the_task(store, task_id)
        assert task.state is TaskState.CANCELLED
