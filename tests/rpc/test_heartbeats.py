"""What a heartbeat keeps, compares and carries."""

from __future__ import annotations

import pytest

from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq.v1 import task_pb2
from tests.rpc.support import (
    ACCEPTED,
    LEASE_LOST,
    OK,
    REOPEN,
    REREGISTER,
    RUNNING,
    SCHEDULED,
    UNKNOWN_ID,
    a_result,
    keys,
    retrying,
)
from tests.rpc.world import LEASE_SECONDS, World


async def test_the_server_dictates_the_intervals(world: World) -> None:
    registered = (await world.registered()).registered
    assert registered.lease_duration.ToSeconds() == LEASE_SECONDS
    assert registered.heartbeat_interval.ToMilliseconds() == 7_500
    assert registered.ack_timeout.ToMilliseconds() == 15_000
    assert registered.ping_interval.ToSeconds() == 15
    assert registered.server_time.ToMicroseconds() == world.clock.now_us()


async def test_who_holds_nothing_may_rest_for_three_fifths_of_a_lease_and_whoever_holds_something_may_not(
    world: World,
) -> None:
    processor = await world.processor()
    assert (await processor.heartbeat()).rest.ToSeconds() == 0.6 * LEASE_SECONDS

    await world.scheduler.enqueue()
    task = await processor.take_one()
    assert not (await processor.heartbeat(task)).HasField("rest")
    assert not (await processor.heartbeat()).HasField("rest"), "it may not have got what it was sent"

    await processor.succeed(task)
    assert (await processor.heartbeat()).rest.ToSeconds() == 0.6 * LEASE_SECONDS


async def test_a_heartbeat_answers_what_to_do_about_the_stream(world: World) -> None:
    processor = await world.registered()
    assert (await processor.heartbeat()).stream == REOPEN
    await processor.open()
    answer = await processor.heartbeat()
    assert answer.stream == OK
    assert answer.server_time.ToMicroseconds() == world.clock.now_us()
    assert not answer.lost and not answer.cancelled and not answer.drain


async def test_a_heartbeat_of_an_ended_session_says_register_again_and_that_all_is_lost(world: World) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue()
    task = await processor.take_one()
    await processor.unregister()

    answer = await processor.heartbeat(task)
    assert answer.stream == REREGISTER
    assert keys(answer.lost) == {(task.task_id, 1)}


async def test_a_heartbeat_of_a_session_that_never_was_says_register_again(world: World) -> None:
    stranger = world.moved(await world.registered())
    stranger.registered = processor_pb2.RegisterResponse(session_id=UNKNOWN_ID)
    assert (await stranger.heartbeat()).stream == REREGISTER


async def test_heartbeats_keep_a_session_and_its_tasks_however_long_they_run(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    for _ in range(20):
        await world.let_pass(LEASE_SECONDS / 4)
        answer = await processor.heartbeat(task)
        assert answer.stream == OK and not answer.lost

    assert (await world.scheduler.get(task_id)).attempt == 1
    assert (await processor.succeed(task)).status == ACCEPTED


async def test_a_pushed_task_missing_from_heartbeats_for_the_ack_timeout_goes_to_another_at_no_cost(
    world: World,
) -> None:
    # given a task that was pushed, but lost on the way
    deaf = await world.processor("deaf")
    task_id = await world.scheduler.enqueue()
    await deaf.take_one()
    other = await world.processor("other")

    # when heartbeats in quick succession do not list it, then it may still be on its way
    for _ in range(5):
        await deaf.heartbeat()
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).processor_name == "deaf"

    # when one does not list it after the ack_timeout either
    await world.let_arrive()
    answer = await deaf.heartbeat()
    task = await other.take_one()
    assert (task.task_id, task.attempt, task.failed_attempts) == (task_id, 2, 0)
    assert not task.HasField("last_failure")

    # then the stream that lost it is no longer trusted
    assert answer.stream == REOPEN
    assert await deaf.stream.next("drain") == processor_pb2.Drain(reason="what was sent on it did not arrive")
    await deaf.open()
    assert (await deaf.heartbeat()).stream == OK


async def test_a_task_that_was_never_received_comes_again_if_there_is_no_other_processor(world: World) -> None:
    processor = await world.processor(max_in_flight=1)
    task_id = await world.scheduler.enqueue()
    await processor.take_one()
    await world.let_arrive()
    await processor.heartbeat()
    await processor.heartbeat()
    await processor.open()
    again = await processor.take_one()
    assert (again.task_id, again.attempt, again.failed_attempts) == (task_id, 2, 0)


async def test_a_listed_task_is_never_given_to_another(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    await world.processor("other")
    for _ in range(5):
        await processor.heartbeat(task)

    await world.dispatched()
    found = await world.scheduler.get(task_id)
    assert (found.state, found.attempt, found.processor_name) == (RUNNING, 1, "oven")


async def test_only_heartbeats_running_count_a_missing_task(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    for _ in range(3):
        await processor.heartbeat()
        await processor.heartbeat(task)

    await world.dispatched()
    found = await world.scheduler.get(task_id)
    assert (found.state, found.attempt) == (RUNNING, 1)


async def test_what_was_reported_but_not_answered_yet_is_not_called_lost(world: World) -> None:
    # given a report whose answer is still on the way while heartbeats list the attempt
    processor = await world.processor()
    await world.scheduler.enqueue()
    task = await processor.take_one()
    await processor.succeed(task)

    for _ in range(2):
        assert not (await processor.heartbeat(task)).lost


async def test_what_is_not_leased_to_the_session_is_called_lost(world: World) -> None:
    holder, stranger = await world.processor("holder"), await world.processor("stranger", can=("wash",))
    await world.scheduler.enqueue()
    task = await holder.take_one()

    assert not (await holder.heartbeat(task)).lost
    assert keys((await stranger.heartbeat(task)).lost) == {(task.task_id, 1)}
    stale = processor_pb2.AssignedTask(task_id=task.task_id, attempt=7)
    unknown = processor_pb2.AssignedTask(task_id=UNKNOWN_ID, attempt=1)
    assert keys((await holder.heartbeat(task, stale, unknown)).lost) == {(task.task_id, 7), (UNKNOWN_ID, 1)}


async def test_a_draining_processor_keeps_its_tasks_and_gets_no_further_ones(world: World) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue()
    task = await processor.take_one()
    await processor.heartbeat(task, draining=True)
    second = await world.scheduler.enqueue()

    await world.dispatched()
    assert (await world.scheduler.get(second)).state == SCHEDULED
    assert (await processor.succeed(task)).status == ACCEPTED
    await world.dispatched()
    assert (await world.scheduler.get(second)).state == SCHEDULED


async def test_a_processor_that_drains_no_longer_gets_what_is_due_at_once(world: World) -> None:
    processor = await world.processor()
    await processor.heartbeat(draining=True)
    task_id = await world.scheduler.enqueue()
    await world.dispatched()

    await processor.heartbeat(draining=False)
    assert (await processor.take_one()).task_id == task_id


async def test_progress_reaches_those_who_look(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    await processor.heartbeat(task, progress=task_pb2.Progress(fraction=0.25, message="stirring"))
    assert (await world.scheduler.get(task_id)).progress == task_pb2.Progress(fraction=0.25, message="stirring")

    await processor.heartbeat(task)
    assert (await world.scheduler.get(task_id)).progress.fraction == 0.25
    await processor.heartbeat(task, progress=task_pb2.Progress(fraction=1, message="x" * 2000))
    assert (await world.scheduler.get(task_id)).progress == task_pb2.Progress(fraction=1, message="x" * 1024)


async def test_the_last_checkpoint_reaches_the_next_attempt_and_progress_does_not(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue(retry_policy=retrying(1))
    task = await processor.take_one()
    for data in (b"step 1", b"step 2"):
        checkpoint = task_pb2.Payload(data=data, content_type="text/plain", metadata={"k": "v"})
        await processor.heartbeat(task, checkpoint=checkpoint, progress=task_pb2.Progress(fraction=0.5))
    await processor.fail(task)
    assert not (await world.scheduler.get(task_id)).HasField("progress")

    world.clock.advance(1)
    again = await processor.take_one()
    assert again.attempt == 2
    assert again.checkpoint == task_pb2.Payload(data=b"step 2", content_type="text/plain", metadata={"k": "v"})


@pytest.mark.parametrize("how", ["foreign", "stale"])
async def test_progress_and_checkpoints_of_an_attempt_that_is_not_held_change_nothing(world: World, how: str) -> None:
    first = await world.processor("first")
    task_id = await world.scheduler.enqueue(retry_policy=retrying(0))
    task = await first.take_one()
    stranger = first
    if how == "foreign":
        stranger = await world.processor("second", can=("wash",))
        held = task
    else:
        await first.fail(task)
        held = await first.take_one()

    said = {"progress": task_pb2.Progress(fraction=0.9), "checkpoint": task_pb2.Payload(data=b"wrong")}
    await stranger.heartbeat(task, **said)
    assert not (await world.scheduler.get(task_id)).HasField("progress")
    await first.release(held)
    assert not (await first.take_one()).HasField("checkpoint")


async def test_a_lost_attempt_that_still_reports_is_told_so(world: World) -> None:
    deaf = await world.processor("deaf")
    await world.scheduler.enqueue()
    task = await deaf.take_one()
    await world.let_arrive()
    await deaf.heartbeat()
    await deaf.heartbeat()

    assert keys((await deaf.heartbeat(task)).lost) == {(task.task_id, 1)}
    (answer,) = await deaf.report(a_result(task))
    assert answer.status == LEASE_LOST
