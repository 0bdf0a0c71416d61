"""How attempts end: every outcome, the task's state after it, and what is kept of it."""

from __future__ import annotations

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.task import EndStatus, Failure, Outcome, Payload, TaskState
from taskq_server.store.store import Store
from tests.store.given import (
    NO_RETRY,
    a_processor,
    a_retry,
    a_task,
    an_id,
    end,
    failed,
    history,
    lease,
    minutes,
    not_received,
    released,
    rows,
    running,
    seconds,
    statuses,
    stopped,
    succeeded,
    the_task,
)


async def test_success_keeps_the_result(store: Store, clock: ManualClock) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())
    clock.advance(4)

    ended = await end(store, succeeded(assignment, b"al dente"))

    assert (ended.state, ended.due_time_us) == (TaskState.SUCCEEDED, None)
    task = await the_task(store, assignment.task_id)
    assert (task.state, task.result) == (TaskState.SUCCEEDED, Payload(b"al dente"))
    assert (task.attempt, task.finish_time_us, task.last_failure) == (1, clock.now_us(), None)


async def test_a_result_keeps_its_type_and_metadata(store: Store) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())
    ending = succeeded(assignment)
    ending.result = Payload(b"{}", "application/json", {"schema": "pasta"})

    await end(store, ending)

    assert (await the_task(store, assignment.task_id)).result == ending.result


async def test_success_without_a_result_has_none(store: Store) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())
    await end(store, succeeded(assignment))

    assert (await the_task(store, assignment.task_id)).result is None


async def test_a_failure_that_may_be_retried_waits_for_its_retry(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task(retry=a_retry(initial_delay_us=seconds(7))))

    ended = await end(store, failed(assignment, "Burnt", message="black"))

    assert (ended.state, ended.due_time_us) == (TaskState.SCHEDULED, clock.now_us() + seconds(7))
    task = await the_task(store, assignment.task_id)
    assert (task.state, task.due_time_us) == (TaskState.SCHEDULED, clock.now_us() + seconds(7))
    assert (task.attempt, task.failed_attempts, task.finish_time_us) == (1, 1, None)
    assert task.last_failure == Failure("Burnt", "black", "", 1, assignment.lease_time_us)
    clock.advance(us=seconds(7) - 1)
    assert (await lease(store, oven)).assignments == []
    clock.advance(us=1)
    (again,) = (await lease(store, oven)).assignments
    assert (again.task_id, again.attempt, again.failed_attempts) == (assignment.task_id, 2, 1)
    assert again.last_failure == task.last_failure


async def test_a_failure_with_no_attempts_left_is_final(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task(retry=a_retry(max_attempts=2, initial_delay_us=0)))
    assert (await end(store, failed(assignment, "First"))).state is TaskState.SCHEDULED
    (again,) = (await lease(store, oven)).assignments

    ended = await end(store, failed(again, "Second"))

    assert (ended.state, ended.due_time_us) == (TaskState.FAILED, None)
    task = await the_task(store, assignment.task_id)
    assert (task.state, task.failed_attempts, task.finish_time_us) == (TaskState.FAILED, 2, clock.now_us())
    assert task.last_failure is not None and task.last_failure.error_type == "Second"


async def test_success_after_a_failure_keeps_what_went_wrong_before(store: Store) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task(retry=a_retry(initial_delay_us=0)))
    await end(store, failed(assignment, "Burnt"))
    (again,) = (await lease(store, oven)).assignments
    await end(store, succeeded(again))

    task = await the_task(store, assignment.task_id)

    assert (task.state, task.failed_attempts) == (TaskState.SUCCEEDED, 1)
    assert task.last_failure is not None and task.last_failure.error_type == "Burnt"


@pytest.mark.parametrize("give_back", [released, not_received])
async def test_what_is_given_back_unrun_costs_no_attempt_and_keeps_its_due_time(
    store: Store,
    clock: ManualClock,
    give_back,  # type: ignore[no-untyped-def]
) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task(retry=NO_RETRY))
    clock.advance(9)

    ended = await end(store, give_back(assignment))

    assert (ended.state, ended.due_time_us) == (TaskState.SCHEDULED, assignment.due_time_us)
    task = await the_task(store, assignment.task_id)
    assert (task.state, task.failed_attempts, task.last_failure) == (TaskState.SCHEDULED, 0, None)
    (again,) = (await lease(store, oven)).assignments
    assert again.attempt == 2
    assert (await end(store, failed(again))).state is TaskState.FAILED  # its one attempt is used up only now


async def test_a_release_may_set_a_new_due_time(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task())

    ended = await end(store, released(assignment, due_at=clock.now_us() + minutes(5)))

    assert ended.due_time_us == clock.now_us() + minutes(5)
    assert (await lease(store, oven)).assignments == []
    clock.advance(us=minutes(5))
    assert len((await lease(store, oven)).assignments) == 1


async def test_a_processor_may_say_that_it_was_cancelled(store: Store, clock: ManualClock) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())

    ended = await end(store, stopped(assignment))

    assert ended.state is TaskState.CANCELLED
    assert (await the_task(store, assignment.task_id)).finish_time_us == clock.now_us()


async def test_attempts_that_did_not_finish_the_task_are_kept_as_its_history(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store, name="oven")
    (first,) = await running(store, oven, a_task(retry=a_retry(initial_delay_us=0)))
    clock.advance(1)
    await end(store, failed(first, "Burnt", message="black"))
    (second,) = (await lease(store, oven)).assignments
    clock.advance(2)
    await end(store, released(second))
    (third,) = (await lease(store, oven)).assignments
    await end(store, not_received(third))
    (fourth,) = (await lease(store, oven)).assignments
    await end(store, succeeded(fourth))

    assert await history(store, first.task_id) == [
        (1, Outcome.FAILED),
        (2, Outcome.RELEASED),
        (3, Outcome.NOT_RECEIVED),
    ]
    kept = await rows(store, "SELECT * FROM attempt ORDER BY attempt")
    assert [(row["session_seq"], row["processor_name"]) for row in kept] == [(oven.seq, "oven")] * 3
    assert (kept[0]["lease_time_us"], kept[0]["end_time_us"]) == (first.lease_time_us, first.lease_time_us + seconds(1))
    assert (kept[1]["lease_time_us"], kept[1]["end_time_us"]) == (second.lease_time_us, clock.now_us())
    assert "black" in kept[0]["failure"] and kept[1]["failure"] is None


async def test_a_retry_starts_without_the_progress_of_the_attempt_before_but_with_its_checkpoint(store: Store) -> None:
    from taskq_server.core.task import Progress
    from taskq_server.store.verbs.living import Advance

    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task(retry=a_retry(initial_delay_us=0)))
    await store.save_progress(
        [Advance(oven.seq, assignment.task_id, 1, Progress(0.5, "half"), Payload(b"step 7", "t", {"a": "b"}))]
    )
    assert (await the_task(store, assignment.task_id)).progress == Progress(0.5, "half")
    await end(store, failed(assignment))

    assert (await the_task(store, assignment.task_id)).progress is None
    (again,) = (await lease(store, oven)).assignments
    assert again.checkpoint == Payload(b"step 7", "t", {"a": "b"})


async def test_answers_come_in_the_order_of_the_reports(store: Store) -> None:
    oven = await a_processor(store)
    one, two, three = await running(store, oven, a_task(), a_task(), a_task())
    await end(store, succeeded(two))
    unknown = failed(one)
    unknown.task_id = an_id()

    ended = await store.end([succeeded(three), unknown, failed(two), succeeded(two), released(one)])

    assert statuses(ended) == [
        EndStatus.ACCEPTED,
        EndStatus.NOT_FOUND,
        EndStatus.LEASE_LOST,
        EndStatus.ALREADY_ACCEPTED,
        EndStatus.ACCEPTED,
    ]
    assert [one.task_id for one in ended] == [
        three.task_id,
        unknown.task_id,
        two.task_id,
        two.task_id,
        one.task_id,
    ]


async def test_every_change_of_a_task_is_told_after_its_commit(store: Store, clock: ManualClock) -> None:
    told: list[bytes] = []
    oven = await a_processor(store, alive_until=clock.now_us() + seconds(9))
    tasks = [a_task(), a_task(), a_task()]
    await store.add(tasks)
    store.on_change = told.extend
    first, second, third = (await lease(store, oven)).assignments
    assert told == [task.task_id for task in tasks]
    told.clear()

    await end(store, succeeded(first))
    await end(store, failed(second))
    await store.cancel([third.task_id])

    assert told == [first.task_id, second.task_id, third.task_id]
