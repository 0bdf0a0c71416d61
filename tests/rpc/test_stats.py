"""GetStats: what there is now, and what was done in each minute or hour."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from taskq.v1 import stats_pb2
from tests.rpc.support import (
    CANCELLED,
    FAILED,
    RUNNING,
    SCHEDULED,
    SUCCEEDED,
    a_task,
    microseconds,
    refused,
    retrying,
    soon,
    span,
    time_at,
)
from tests.rpc.world import World

MINUTE, HOUR = stats_pb2.STATS_STEP_MINUTE, stats_pb2.STATS_STEP_HOUR
DAY_SECONDS = 86_400


async def written(world: World) -> None:
    """What was done until now is in the database."""
    world.server.figures._summed_at = 0
    await world.server.figures.tick()


async def stats(world: World, **asked: Any) -> stats_pb2.GetStatsResponse:
    return await soon(world.admin.stub.GetStats(stats_pb2.GetStatsRequest(**asked)))  # type: ignore[no-any-return]


async def test_what_was_done_is_counted_in_its_minute_by_name_and_in_all(world: World) -> None:
    cook = await world.processor("oven", can=("cook", "bake"))
    for name in ("cook", "cook", "bake"):
        await world.scheduler.enqueue(name)
    for task in await cook.take(3):
        await cook.succeed(task)
    await written(world)

    everything = (await stats(world)).history
    by_name = (await stats(world, by_name=True)).history
    cooked = (await stats(world, name="cook")).history

    assert [(one.name, one.enqueued, one.leased, one.succeeded) for one in everything] == [("", 3, 3, 3)]
    assert [(one.name, one.succeeded) for one in by_name] == [("bake", 1), ("cook", 2)]
    assert [(one.name, one.succeeded) for one in cooked] == [("cook", 2)]
    assert microseconds(everything[0].start_time) == world.clock.now_us() // 60_000_000 * 60_000_000


async def test_the_history_of_each_name_is_read_once_in_five_seconds(world: World) -> None:
    async def enqueued() -> list[int]:
        await world.scheduler.enqueue()
        await written(world)
        return [one.enqueued for one in (await stats(world, by_name=True)).history]

    world.clock.advance(61 - world.clock.now_us() / 1_000_000 % 60)
    assert await enqueued() == [1]
    world.clock.advance(4)
    assert await enqueued() == [1]
    assert [one.enqueued for one in (await stats(world)).history] == [2], "of all together it is cheap"
    world.clock.advance(1)
    assert await enqueued() == [3]


async def test_what_failed_for_good_what_is_tried_again_and_what_was_cancelled_are_told_apart(world: World) -> None:
    processor = await world.processor()
    again = await world.scheduler.enqueue(retry_policy=retrying(60, max_attempts=3))
    await processor.fail(await processor.take_one())
    await world.scheduler.enqueue(retry_policy=retrying(max_attempts=1))
    await processor.fail(await processor.take_one())
    await world.scheduler.cancel(again)
    await written(world)

    (minute,) = (await stats(world)).history

    assert (minute.retried, minute.failed, minute.cancelled, minute.succeeded) == (1, 1, 1, 0)


async def test_how_late_and_how_long_is_told_to_the_width_of_a_bucket(world: World) -> None:
    task_ids = [await world.scheduler.enqueue() for _ in range(10)]
    world.clock.advance(2)
    processor = await world.processor()
    tasks = await processor.take(len(task_ids))
    world.clock.advance(10)
    for task in tasks:
        await processor.succeed(task)
    await written(world)

    (minute,) = (await stats(world)).history

    assert minute.lateness.count == minute.run_time.count == 10
    assert minute.lateness.p50 == minute.lateness.longest == span(5)  # 2 s is over 1 s, and under 5 s
    assert minute.run_time.p99 == span(15)


async def test_each_minute_stands_by_itself_and_an_hour_is_their_sum(world: World) -> None:
    world.clock.advance(3600 - world.clock.now_us() / 1e6 % 3600)  # an hour begins
    for _ in range(3):
        await world.scheduler.enqueue()
        await written(world)
        world.clock.advance(60)

    minutes = (await stats(world, step=MINUTE)).history
    hours = (await stats(world, step=HOUR)).history

    assert [one.enqueued for one in minutes] == [1, 1, 1]
    assert [one.enqueued for one in hours] == [3]


async def test_without_a_step_six_hours_are_told_by_the_minute_and_more_by_the_hour(world: World) -> None:
    now_us = world.clock.now_us()
    for hours, step in ((6, 60), (7, 3600)):
        answer = await stats(world, start_time=time_at(now_us - hours * 3600 * 1_000_000))
        assert answer.step == span(step)


async def test_the_history_outlives_the_server_and_what_it_had_not_written_is_written_when_it_stops(
    world: World,
) -> None:
    await world.scheduler.enqueue()
    await world.restart()
    await world.scheduler.enqueue()
    await written(world)

    (minute,) = (await stats(world)).history
    assert minute.enqueued == 2


async def test_minutes_are_forgotten_after_a_day_and_hours_are_not(world: World) -> None:
    await world.scheduler.enqueue()
    await written(world)
    first = time_at(world.clock.now_us())
    await world.let_pass(2 * 3600)
    world.clock.advance(DAY_SECONDS)
    await world.scheduler.enqueue()
    await written(world)

    end = time_at(microseconds(first) + 3600 * 1_000_000)
    start = time_at(microseconds(first) - 3600 * 1_000_000)
    assert not (await stats(world, start_time=start, end_time=end, step=MINUTE)).history
    assert [one.enqueued for one in (await stats(world, start_time=start, end_time=end, step=HOUR)).history] == [1]


async def test_what_there_is_now_is_counted_by_state(world: World) -> None:
    processor = await world.processor(max_in_flight=1)
    for _ in range(2):
        await world.scheduler.enqueue()
        await processor.succeed(await processor.take_one())
    await world.scheduler.enqueue(retry_policy=retrying(max_attempts=1))
    await processor.fail(await processor.take_one())
    await world.scheduler.cancel(await world.scheduler.enqueue(delay=span(60)))
    await world.scheduler.enqueue()
    await processor.take_one()
    await world.scheduler.enqueue_all(a_task(), a_task("nobody"), a_task(delay=span(60)))
    first_due_us = world.clock.now_us()
    world.clock.advance(5)

    answer = await stats(world)

    counts = {one.state: (one.tasks, one.is_partial) for one in answer.states}
    assert counts == {
        SCHEDULED: (3, False), RUNNING: (1, False), SUCCEEDED: (2, False), FAILED: (1, False), CANCELLED: (1, False)
    }  # fmt: skip
    assert (answer.due_tasks, answer.running_tasks) == (2, 1)
    assert microseconds(answer.oldest_due_time) == first_due_us
    assert (answer.processors, answer.credits) == (1, 1)


async def test_what_there_is_now_is_counted_once_in_five_seconds_however_many_ask(world: World) -> None:
    await stats(world)
    await world.scheduler.enqueue(delay=span(60))
    assert (await stats(world)).states[0].tasks == 0
    world.clock.advance(5)
    assert (await stats(world)).states[0].tasks == 1


async def test_the_credits_of_a_drained_processor_do_not_count(world: World) -> None:
    processor = await world.processor(max_in_flight=7)
    await world.processor("other", max_in_flight=2)
    await world.admin.drain(processor.session_id)
    answer = await stats(world)
    assert (answer.processors, answer.credits) == (2, 2)


async def test_names_beyond_the_bound_are_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.server.figures._names._most_unregistered = 2
    await world.scheduler.enqueue_all(*(a_task(f"random-{i}") for i in range(10)))
    await written(world)
    by_name = (await stats(world, by_name=True)).history
    assert [(one.name, one.enqueued) for one in by_name] == [("_other", 8), ("random-0", 1), ("random-1", 1)]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"start_time": time_at(2_000_000), "end_time": time_at(1_000_000)}, "start_time"),
        ({"start_time": time_at(1_000_000), "step": MINUTE}, "start_time"),
        ({"start_time": time_at(1_000_000), "step": HOUR}, "start_time"),
        ({"step": 7}, "step"),
        ({"name": "a b"}, "name"),
        ({"name": "cook", "by_name": True}, "by_name"),
    ],
)
async def test_what_cannot_be_answered_is_refused(world: World, asked: dict[str, Any], field: str) -> None:
    refusal = await refused(stats(world, **asked))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.faults) == [field]
