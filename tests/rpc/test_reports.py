"""What a report does to its task, and what it cannot do when its lease has ended."""

from __future__ import annotations

import asyncio

import pytest

from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq.v1 import task_pb2
from taskq_server.core.errors import StorageFull
from taskq_server.store.store import Store
from tests.rpc.support import (
    ACCEPTED,
    ALREADY_ACCEPTED,
    FAILED,
    LEASE_LOST,
    NOT_FOUND,
    RUNNING,
    SCHEDULED,
    SUCCEEDED,
    UNKNOWN_ID,
    a_result,
    a_task,
    microseconds,
    refused,
    retrying,
    span,
    time_at,
)
from tests.rpc.world import World

BURNT = processor_pb2.Failed(error_type="Burnt")


async def test_a_success_is_kept_with_its_result_and_its_time(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    world.clock.advance(2)
    result = task_pb2.Payload(data=b"al dente", content_type="text/plain", metadata={"k": "v"})
    (answer,) = await processor.report(a_result(task, succeeded=processor_pb2.Succeeded(result=result)))

    assert answer == processor_pb2.ReportAnswer(
        task_id=task_id, attempt=1, status=ACCEPTED, state=task_pb2.TASK_STATE_SUCCEEDED
    )
    found = await world.scheduler.get(task_id)
    assert found.state == SUCCEEDED
    assert found.result == result
    assert microseconds(found.finish_time) == world.clock.now_us()
    assert found.processor_name == "oven"


async def test_a_success_may_come_without_a_result(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    await processor.succeed(await processor.take_one())
    assert not (await world.scheduler.get(task_id)).HasField("result")


async def test_a_failure_is_kept_and_reaches_the_next_attempt(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue(retry_policy=retrying(3))
    task = await processor.take_one()
    answer = await processor.fail(task, error_type="Burnt", message="too hot", stack="line 1")

    assert (answer.status, answer.state) == (ACCEPTED, SCHEDULED)
    assert microseconds(answer.due_time) == world.clock.now_us() + 3_000_000
    failure = task_pb2.Failure(error_type="Burnt", message="too hot", stack="line 1", attempt=1)
    failure.failure_time.CopyFrom(time_at(world.clock.now_us()))
    found = await world.scheduler.get(task_id)
    assert (found.state, found.failed_attempts, found.last_failure) == (SCHEDULED, 1, failure)

    world.clock.advance(3)
    again = await processor.take_one()
    assert (again.attempt, again.failed_attempts, again.last_failure) == (2, 1, failure)
    await processor.succeed(again)
    assert (await world.scheduler.get(task_id)).last_failure == failure


async def test_retries_wait_longer_each_time_until_no_attempts_are_left(world: World) -> None:
    processor = await world.processor()
    policy = retrying(1, multiplier=3, max_delay=span(5), max_attempts=4)
    task_id = await world.scheduler.enqueue(retry_policy=policy)
    for delay in (1, 3, 5):
        answer = await processor.fail(await processor.take_one())
        assert microseconds(answer.due_time) - world.clock.now_us() == delay * 1_000_000
        world.clock.advance(delay)

    answer = await processor.fail(await processor.take_one())
    assert (answer.state, answer.HasField("due_time")) == (FAILED, False)
    found = await world.scheduler.get(task_id)
    assert (found.state, found.attempt, found.failed_attempts) == (FAILED, 4, 4)


async def test_a_processor_may_set_the_delay_itself(world: World) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue(retry_policy=retrying(600))
    answer = await processor.fail(await processor.take_one(), retry_delay=span(0.000001))
    assert microseconds(answer.due_time) == world.clock.now_us() + 1
    world.clock.advance(us=1)
    answer = await processor.fail(await processor.take_one(), retry_delay=span(0))
    assert (await processor.take_one()).attempt == 3


@pytest.mark.parametrize("how", ["its type", "its report"])
async def test_a_failure_that_may_not_be_retried_ends_the_task(world: World, how: str) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue(retry_policy=retrying(0, non_retryable_errors=["Burnt"]))
    task = await processor.take_one()
    if how == "its type":
        answer = await processor.fail(task, error_type="Burnt")
    else:
        answer = await processor.fail(task, error_type="Raw", retryable=False)
    assert answer.state == FAILED
    assert (await world.scheduler.get(task_id)).failed_attempts == 1


async def test_what_is_said_for_people_is_cut_and_kept_whatever_it_holds(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    await processor.fail(task, message="a\0b" + "m" * 5000, stack="s" * 40_000 + "end", retryable=False)

    failure = (await world.scheduler.get(task_id)).last_failure
    assert failure.message == ("a\N{REPLACEMENT CHARACTER}b" + "m" * 5000)[:4096]
    assert failure.stack == ("s" * 40_000 + "end")[-32768:]


async def test_a_released_task_is_due_as_before_and_costs_no_attempt(world: World) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue(retry_policy=retrying(max_attempts=1))
    first = await processor.take_one()
    answer = await processor.release(first)
    assert (answer.status, answer.state, answer.due_time) == (ACCEPTED, SCHEDULED, first.due_time)

    again = await processor.take_one()
    assert (again.attempt, again.failed_attempts) == (2, 0)
    assert not again.HasField("last_failure")


async def test_a_task_may_be_released_until_later(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    later = time_at(world.clock.now_us() + 60_000_000)
    answer = await processor.release(await processor.take_one(), due_time=later)
    assert answer.due_time == later

    world.clock.advance(us=59_999_999)
    await world.dispatched()
    assert not world.has_pushed(task_id, attempt=2)
    world.clock.advance(us=1)
    assert (await processor.take_one()).attempt == 2


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "released", "cancelled"])
async def test_the_same_report_again_is_answered_already_accepted(world: World, outcome: str) -> None:
    processor = await world.processor(max_in_flight=1)
    await world.scheduler.enqueue(retry_policy=retrying(60))
    task = await processor.take_one()
    words = {
        "succeeded": processor_pb2.Succeeded(),
        "failed": BURNT,
        "released": processor_pb2.Released(due_time=time_at(world.clock.now_us() + 1_000_000)),
        "cancelled": processor_pb2.Cancelled(),
    }
    result = a_result(task, **{outcome: words[outcome]})
    (first,) = await processor.report(result)
    (again,) = await processor.report(result)
    assert (first.status, again.status) == (ACCEPTED, ALREADY_ACCEPTED)
    assert (first.state, first.due_time) == (again.state, again.due_time)

    (twice, later) = await processor.report(result, result)
    assert (twice.status, later.status) == (ALREADY_ACCEPTED, ALREADY_ACCEPTED)


async def test_two_same_reports_in_one_call_are_accepted_once(world: World) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue()
    result = a_result(await processor.take_one())
    first, again = await processor.report(result, result)
    assert (first.status, again.status) == (ACCEPTED, ALREADY_ACCEPTED)


async def test_a_report_that_could_not_be_stored_changes_nothing_and_may_be_sent_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = await world.processor(max_in_flight=1)
    await world.scheduler.enqueue()
    task = await processor.take_one()
    second = await world.scheduler.enqueue()

    async def fail(self: Store, endings: object) -> None:
        raise StorageFull

    with monkeypatch.context() as disk_full:
        disk_full.setattr(Store, "end", fail)
        refusal = await refused(processor.succeed(task))
    assert (refusal.reason, refusal.retry_seconds) == ("STORAGE_FULL", 1)
    assert not (await processor.heartbeat(task)).lost
    await world.dispatched()
    assert (await world.scheduler.get(second)).state == SCHEDULED, "the credit is still in use"

    assert (await processor.succeed(task)).status == ACCEPTED
    assert (await processor.take_one()).task_id == second


async def test_a_report_that_was_accepted_before_a_restart_is_already_accepted_after_it(world: World) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue()
    task = await processor.take_one()
    await processor.succeed(task)
    await world.restart()
    assert (await world.moved(processor).succeed(task)).status == ALREADY_ACCEPTED


async def test_of_many_reports_at_once_one_is_accepted(world: World) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue()
    task = await processor.take_one()
    answers = await asyncio.gather(*(processor.succeed(task, b"%d" % i) for i in range(20)))
    statuses = [answer.status for answer in answers]
    assert statuses.count(ACCEPTED) == 1
    assert statuses.count(ALREADY_ACCEPTED) == 19


async def test_another_outcome_for_an_attempt_that_has_one_changes_nothing(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    await processor.succeed(task, b"first")
    answer = await processor.fail(task)
    assert (answer.status, answer.state) == (LEASE_LOST, SUCCEEDED)
    assert (await world.scheduler.get(task_id)).result.data == b"first"


async def test_a_stale_attempt_changes_nothing_and_is_no_error(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue(retry_policy=retrying(0))
    old = await processor.take_one()
    await processor.release(old)
    new = await processor.take_one()

    for answer in (await processor.succeed(old), await processor.fail(old)):
        assert (answer.status, answer.state, answer.HasField("due_time")) == (LEASE_LOST, RUNNING, False)
    assert (await world.scheduler.get(task_id)).attempt == 2
    assert (await processor.succeed(new)).status == ACCEPTED
    future = processor_pb2.AttemptRef(task_id=task_id, attempt=99)
    assert (await processor.report(a_result(future)))[0].status == LEASE_LOST


async def test_a_foreign_sessions_report_changes_nothing_and_is_no_error(world: World) -> None:
    owner, stranger = await world.processor("owner"), await world.processor("stranger", can=("wash",))
    task_id = await world.scheduler.enqueue()
    task = await owner.take_one()
    assert (await stranger.succeed(task)).status == LEASE_LOST
    assert (await world.scheduler.get(task_id)).state == RUNNING
    assert (await owner.succeed(task)).status == ACCEPTED


async def test_a_report_from_an_ended_or_unknown_session_is_lease_lost_and_no_error(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    await processor.unregister()
    assert (await processor.succeed(task)).status == LEASE_LOST

    stranger = world.moved(processor)
    stranger.registered = processor_pb2.RegisterResponse(session_id=UNKNOWN_ID)
    assert (await stranger.succeed(task)).status == LEASE_LOST
    assert (await world.scheduler.get(task_id)).state == SCHEDULED


async def test_a_report_of_an_unknown_task_is_answered_not_found_among_its_neighbours(world: World) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue_all(a_task(), a_task())
    one, other = await processor.take(2)
    unknown = a_result(processor_pb2.AttemptRef(task_id=UNKNOWN_ID, attempt=1))
    answers = await processor.report(a_result(one), unknown, a_result(other, failed=BURNT))

    assert [answer.status for answer in answers] == [ACCEPTED, NOT_FOUND, ACCEPTED]
    assert answers[1] == processor_pb2.ReportAnswer(task_id=UNKNOWN_ID, attempt=1, status=NOT_FOUND)
    assert [answer.state for answer in answers] == [SUCCEEDED, 0, SCHEDULED]


async def test_what_was_accepted_is_answered_so_after_the_session_has_ended_too(world: World) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue()
    task = await processor.take_one()
    await processor.succeed(task)
    await processor.unregister()
    assert (await processor.succeed(task)).status == ALREADY_ACCEPTED
    assert (await processor.fail(task)).status == LEASE_LOST
