"""What may be done with schedules, over the wire."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from taskq.v1 import schedule_service_pb2 as schedule_pb2
from taskq_server.core.recurring import firing_task_id
from tests.conftest import StartServer
from tests.rpc.support import CANCELLED, RUNNING, SCHEDULED, microseconds, refused, span, time_at
from tests.rpc.world import World
from tests.support.schedules import (
    BUFFERED,
    FIRED,
    SKIPPED,
    RawSchedules,
    a_schedule,
    every,
    tasks_of,
)

MINUTE = 60_000_000


@pytest.fixture
async def world(start_server: StartServer) -> AsyncIterator[World]:
    """As elsewhere, with a lease of an hour: processors need not be heard from one minute to the next."""
    world = World(start_server)
    await world.begin(lease_duration=3600)
    yield world
    await world.end()


@pytest.fixture
def schedules(world: World) -> RawSchedules:
    return RawSchedules(world.channel())


async def fire(world: World, seconds: float = 0) -> int:
    """Moves the clock, and lets the server fire what is due by then."""
    await world.renews()
    world.clock.advance(seconds)
    return await world.server.firer.tick()


def until(world: World, made: schedule_pb2.Schedule) -> float:
    """How many seconds it is until a schedule fires."""
    return (microseconds(made.next_fire_time) - world.clock.now_us()) / 1e6


async def nominal_times(world: World, name: str = "nightly") -> list[int]:
    """The nominal times of all tasks of a schedule, as their headers say."""
    return [one.nominal_us for one in await tasks_of(world.server._store, name)]


# ── create, get, list ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_schedule_is_answered_as_it_was_made_and_says_when_it_fires_next(
    world: World, schedules: RawSchedules
) -> None:
    new = a_schedule(
        "nightly", crons=["30 2 * * *"], time_zone="Europe/Berlin", origin="jobs.py", priority=7, tags=["a"]
    )

    made = await schedules.create(new)

    assert made == await schedules.get(name="nightly") == await schedules.get(schedule_id=made.schedule_id)
    assert made.recurrence.crons == ["30 2 * * *"] and made.recurrence.time_zone == "Europe/Berlin"
    assert (made.task.name, made.task.priority, made.task.tags, made.origin) == ("cook", 7, ["a"], "jobs.py")
    # the clock stands at 2023-11-14T22:13:20Z
    assert made.next_fire_time.ToJsonString() == "2023-11-15T01:30:00Z"
    assert made.overlap == schedule_pb2.OVERLAP_SKIP and made.catch_up == schedule_pb2.CATCH_UP_LAST
    assert "02:30" in made.explanation and made.time_zone_version and made.etag
    assert not made.HasField("last_firing") and not made.HasField("pause")


async def test_a_create_that_is_repeated_is_the_same_schedule(world: World, schedules: RawSchedules) -> None:
    new = a_schedule("nightly", schedule_id=str(uuid.uuid4()), interval=span(60))
    made = await schedules.create(new)
    world.clock.advance(5)

    assert await schedules.create(new) == made
    assert [one.name for one in (await schedules.list()).schedules] == ["nightly"]


async def test_what_is_answered_may_be_sent_again_as_it_is(schedules: RawSchedules) -> None:
    made = await schedules.create(a_schedule("nightly", interval=span(60), data=b"x", headers={"a": "b"}))

    updated = await schedules.update(made)

    made.etag, updated.etag = "", ""
    assert updated == made


async def test_an_id_or_a_name_belongs_to_one_schedule(schedules: RawSchedules) -> None:
    made = await schedules.create(a_schedule("nightly", interval=span(60)))

    by_id = await refused(schedules.create(a_schedule("other", schedule_id=made.schedule_id, interval=span(60))))
    by_name = await refused(schedules.create(a_schedule("nightly", interval=span(60))))

    for refusal, field in ((by_id, "schedule_id"), (by_name, "name")):
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "SCHEDULE_EXISTS")
        assert refusal.facts["field"] == field


async def test_every_fault_of_a_schedule_is_named(schedules: RawSchedules) -> None:
    new = a_schedule("bad name", crons=["61 * * * *", "@daily"], jitter=span(-1), time_zone="Mars/Base", priority=12)
    new.task.delay.seconds = 1
    new.catch_up_window.seconds = 1
    new.overlap = 9  # type: ignore[assignment]

    refusal = await refused(schedules.create(new))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert set(refusal.faults) == {
        "schedule.name",
        "schedule.recurrence.crons[0]",
        "schedule.recurrence.jitter",
        "schedule.recurrence.time_zone",
        "schedule.task.delay",
        "schedule.task.priority",
        "schedule.catch_up_window",
        "schedule.overlap",
    }
    assert not (await schedules.list()).schedules


@pytest.mark.parametrize(
    ("recurrence", "field"),
    [({}, "crons"), ({"crons": ["0 0 30 2 *"]}, "crons[0]"), ({"interval": span(0.5)}, "interval")],
)
async def test_what_never_fires_is_refused(schedules: RawSchedules, recurrence: dict[str, Any], field: str) -> None:
    refusal = await refused(schedules.create(a_schedule("never", **recurrence)))

    assert set(refusal.faults) == {f"schedule.recurrence.{field}"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task_id", str(uuid.UUID(int=1))),
        ("due_time", time_at(MINUTE)),
        ("delay", span(1)),
        ("expire_time", time_at(MINUTE)),
        ("dedup", {"key": "k"}),
    ],
)
async def test_what_each_firing_has_of_its_own_is_refused(schedules: RawSchedules, field: str, value: Any) -> None:
    refusal = await refused(schedules.create(every(60, **{field: value})))

    assert set(refusal.faults) == {f"schedule.task.{field}"}


async def test_lists_come_in_the_order_of_their_names_a_page_at_a_time(schedules: RawSchedules) -> None:
    for name in ("b", "a", "C", "a.1", "a/1"):
        await schedules.create(a_schedule(name, interval=span(60), origin=f"file {name}"))

    found, token = [], ""
    while True:
        page = await schedules.list(page_size=2, page_token=token)
        found += [one.name for one in page.schedules]
        if not (token := page.next_page_token):
            break
    of_a = await schedules.list(name_prefix="a")
    by_origin = await schedules.list(origin_prefix="file C")

    assert found == ["C", "a", "a.1", "a/1", "b"]
    assert [one.name for one in of_a.schedules] == ["a", "a.1", "a/1"]
    assert [one.name for one in by_origin.schedules] == ["C"]


async def test_a_page_token_is_good_for_the_list_that_gave_it(schedules: RawSchedules) -> None:
    for name in ("a", "b"):
        await schedules.create(a_schedule(name, interval=span(60)))
    token = (await schedules.list(page_size=1)).next_page_token

    refusal = await refused(schedules.list(page_token=token, name_prefix="a"))

    assert set(refusal.faults) == {"page_token"}


async def test_what_does_not_exist_is_not_found(schedules: RawSchedules) -> None:
    for call in (
        schedules.get(name="no"),
        schedules.pause(name="no"),
        schedules.resume(name="no"),
        schedules.delete(name="no"),
        schedules.trigger(name="no"),
        schedules.update(a_schedule("no", interval=span(60), etag="1-1")),
        schedules.preview(name="no"),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SCHEDULE_NOT_FOUND")


# ── update, delete ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_update_needs_the_etag_that_the_schedule_has(schedules: RawSchedules) -> None:
    made = await schedules.create(a_schedule("nightly", interval=span(60)))
    made.recurrence.interval.seconds = 30

    updated = await schedules.update(made)
    refusal = await refused(schedules.update(made))

    assert updated.recurrence.interval.seconds == 30 and updated.etag != made.etag
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "SCHEDULE_CHANGED")
    assert refusal.facts["current"] == updated.etag


async def test_an_update_moves_the_next_firing_and_a_new_name_must_be_free(
    world: World, schedules: RawSchedules
) -> None:
    made = await schedules.create(a_schedule("nightly", crons=["0 0 * * *"]))
    await schedules.create(a_schedule("taken", interval=span(60)))
    made.recurrence.crons[:] = ["0 * * * *"]
    made.name = "hourly"

    updated = await schedules.update(made)
    updated.name = "taken"
    refusal = await refused(schedules.update(updated))

    assert updated.next_fire_time.ToJsonString() == "2023-11-14T23:00:00Z"
    assert (await schedules.get(name="hourly")).schedule_id == made.schedule_id
    assert refusal.reason == "SCHEDULE_EXISTS"


async def test_a_firing_does_not_change_the_etag(world: World, schedules: RawSchedules) -> None:
    made = await schedules.create(every(60))
    await fire(world, 60)

    assert (await schedules.get(name="nightly")).etag == made.etag


async def test_a_deleted_schedule_fires_no_more_and_takes_back_what_is_not_due(
    world: World, schedules: RawSchedules
) -> None:
    made = await schedules.create(every(60))
    await fire(world, until(world, made) - 0.4)
    (early,) = await tasks_of(world.server._store, "nightly")
    assert early.nominal_us > world.clock.now_us()

    withdrawn = await schedules.delete(name="nightly")

    await fire(world, 600)
    assert withdrawn == 1 and await nominal_times(world) == []
    assert (await refused(world.scheduler.get(early.task_id))).reason == "TASK_NOT_FOUND"


async def test_a_delete_may_name_the_etag_that_it_means(schedules: RawSchedules) -> None:
    made = await schedules.create(every(60))
    await schedules.pause(name="nightly")

    refusal = await refused(schedules.delete(name="nightly", etag=made.etag))
    await schedules.delete(name="nightly")

    assert refusal.reason == "SCHEDULE_CHANGED"


# ── firing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_each_firing_is_a_task_that_says_what_it_is_and_is_pushed_when_it_is_due(
    world: World, schedules: RawSchedules
) -> None:
    made = await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_ALLOW_ALL, data=b"pasta", headers={"a": "b"}))
    processor = await world.processor()
    due_us = microseconds(made.next_fire_time)

    await fire(world, until(world, made) - 0.4)
    await world.dispatched()
    (one,) = await tasks_of(world.server._store, "nightly")
    assert not world.has_pushed(one.task_id), "stored before its time, and not pushed before it"
    await fire(world, 0.4)
    task = await processor.take_one()

    assert (task.task_id, task.payload.data, microseconds(task.due_time)) == (one.task_id, b"pasta", due_us)
    assert task.headers == {
        "a": "b",
        "taskq-schedule": "nightly",
        "taskq-schedule-id": made.schedule_id,
        "taskq-nominal-time": made.next_fire_time.ToJsonString(),
    }
    now = await schedules.get(name="nightly")
    assert now.last_firing.task_id == task.task_id and now.last_firing.nominal_time == made.next_fire_time
    assert now.counters.fired == 1 and now.unfinished_tasks == 1


async def test_a_schedule_ends_after_as_many_firings_as_it_may_have(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(60, max_firings=2, overlap=schedule_pb2.OVERLAP_ALLOW_ALL))
    for _ in range(4):
        await fire(world, 60)

    ended = await schedules.get(name="nightly")
    assert len(await nominal_times(world)) == 2 == ended.counters.fired
    assert ended.remaining_firings == 0 and not ended.HasField("next_fire_time")


async def test_a_schedule_that_has_nothing_to_do_sleeps(world: World, schedules: RawSchedules) -> None:
    await schedules.create(a_schedule("nightly", interval=span(3600)))

    assert await fire(world) == world.clock.now_us() + MINUTE, "but for a look once a minute"


# ── overlap ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def counted(schedules: RawSchedules) -> tuple[int, int, int]:
    counters = (await schedules.get(name="nightly")).counters
    return counters.fired, counters.skipped, counters.overlapped


async def test_with_skip_nothing_fires_while_a_task_is_unfinished(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(60))
    processor = await world.processor()
    await fire(world, 60)
    task = await processor.take_one()

    await fire(world, 60)
    await fire(world, 60)
    assert await counted(schedules) == (1, 2, 2)

    await processor.succeed(task)
    await fire(world, 60)
    assert await counted(schedules) == (2, 2, 2)


async def test_a_retry_that_waits_is_unfinished_too(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(60))
    processor = await world.processor()
    await fire(world, 60)
    await processor.fail(await processor.take_one(), retry_delay=span(3600))

    await fire(world, 60)

    assert await counted(schedules) == (1, 1, 1)


async def test_with_buffer_one_the_next_starts_when_the_one_before_it_has_finished(
    world: World, schedules: RawSchedules
) -> None:
    await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_BUFFER_ONE))
    processor = await world.processor()
    await fire(world, 60)
    task = await processor.take_one()
    for _ in range(3):
        again_us = await fire(world, 60)
    assert again_us <= world.clock.now_us() + 250_000
    assert await counted(schedules) == (1, 2, 3)
    assert (await schedules.get(name="nightly")).buffered_firings == 1

    await processor.succeed(task)
    await fire(world, 0.25)

    buffered = await processor.take_one()
    assert microseconds(buffered.due_time) - microseconds(task.due_time) == MINUTE, "the first that had to wait"
    assert await counted(schedules) == (2, 2, 3)


async def test_with_buffer_all_firings_run_one_after_the_other_in_their_order(
    world: World, schedules: RawSchedules
) -> None:
    await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_BUFFER_ALL, max_buffered=3))
    processor = await world.processor()
    for _ in range(6):
        await fire(world, 60)
    assert await counted(schedules) == (1, 2, 5)

    times = []
    for _ in range(4):
        task = await processor.take_one()
        times.append(microseconds(task.due_time))
        await world.dispatched()
        assert not processor.stream.tasks, "one at a time"
        await processor.succeed(task)
        await fire(world, 0.25)

    assert times == [times[0] + i * MINUTE for i in range(4)]


async def test_with_cancel_other_the_one_before_is_cancelled_and_its_processor_told(
    world: World, schedules: RawSchedules
) -> None:
    await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_CANCEL_OTHER))
    processor = await world.processor()
    await fire(world, 60)
    before = await processor.take_one()

    await fire(world, 60)

    assert [one.task_id for one in (await processor.stream.next("cancel")).attempts] == [before.task_id]
    assert (await world.scheduler.get(before.task_id)).state == CANCELLED
    assert (await processor.take_one()).task_id != before.task_id
    assert await counted(schedules) == (2, 0, 1)


async def test_with_allow_all_firings_run_beside_each_other(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_ALLOW_ALL))
    processor = await world.processor()
    for _ in range(3):
        await fire(world, 60)

    tasks = await processor.take(3)
    assert await world.scheduler.states([one.task_id for one in tasks]) == [RUNNING] * 3


# ── missed firings ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("catch_up", "fired", "missed"),
    [
        (schedule_pb2.CATCH_UP_SKIP, 0, 5),
        (schedule_pb2.CATCH_UP_LAST, 1, 4),
        (schedule_pb2.CATCH_UP_FIRST, 1, 4),
        (schedule_pb2.CATCH_UP_ALL, 3, 2),
    ],
)
async def test_what_was_missed_is_made_up_for_as_far_as_the_policy_and_the_window_say(
    world: World, schedules: RawSchedules, catch_up: Any, fired: int, missed: int
) -> None:
    """Five are missed, the last of them 30 s ago; the window holds three."""
    made = await schedules.create(
        every(60, catch_up=catch_up, catch_up_window=span(160), overlap=schedule_pb2.OVERLAP_ALLOW_ALL)
    )
    await world.server.stop()
    first_us = microseconds(made.next_fire_time)
    world.clock.advance(us=first_us + 4 * MINUTE + MINUTE // 2 - world.clock.now_us())
    await world.begin()
    schedules = RawSchedules(world.channel())
    await fire(world)

    counters = (await schedules.get(name="nightly")).counters
    assert (counters.fired, counters.missed) == (fired, missed)
    if catch_up == schedule_pb2.CATCH_UP_LAST:
        assert await nominal_times(world) == [first_us + 4 * MINUTE]
    if catch_up == schedule_pb2.CATCH_UP_FIRST:
        assert await nominal_times(world) == [first_us + 2 * MINUTE]


async def test_a_server_that_is_back_at_once_has_missed_nothing(world: World, schedules: RawSchedules) -> None:
    made = await schedules.create(every(60, catch_up=schedule_pb2.CATCH_UP_SKIP))
    await world.server.stop()
    world.clock.advance(us=microseconds(made.next_fire_time) + 9_000_000 - world.clock.now_us())
    await world.begin()
    await fire(world)

    assert await nominal_times(world) == [microseconds(made.next_fire_time)]


# ── pause, resume ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_paused_schedule_does_not_fire_and_goes_on_when_it_is_resumed(
    world: World, schedules: RawSchedules
) -> None:
    made = await schedules.create(every(60))
    began_us = world.clock.now_us()
    await schedules.pause(name="nightly", note="the oven is hot")
    await fire(world, 90)

    again = await schedules.pause(name="nightly", note="it is on fire")
    assert (again.pause.note, microseconds(again.pause.pause_time)) == ("it is on fire", began_us)
    assert await nominal_times(world) == []
    resumed = await schedules.resume(name="nightly")
    await fire(world)

    assert not resumed.HasField("pause")
    assert await nominal_times(world) == [microseconds(made.next_fire_time)], "as the catch-up policy says"
    assert (await schedules.resume(name="nightly")).etag == resumed.etag


async def test_a_pause_takes_back_what_is_not_due_yet_and_a_resume_fires_it(
    world: World, schedules: RawSchedules
) -> None:
    made = await schedules.create(every(60))
    await fire(world, until(world, made) - 0.4)
    assert len(await nominal_times(world)) == 1

    paused = await schedules.pause(name="nightly")

    assert await nominal_times(world) == [] and paused.counters.fired == 0
    assert paused.next_fire_time == made.next_fire_time
    await schedules.resume(name="nightly")
    await fire(world, 0.4)
    assert await nominal_times(world) == [microseconds(made.next_fire_time)]


async def test_what_waits_in_the_buffer_stays_there_while_the_schedule_is_paused(
    world: World, schedules: RawSchedules
) -> None:
    await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_BUFFER_ONE))
    processor = await world.processor()
    await fire(world, 60)
    await fire(world, 60)
    await schedules.pause(name="nightly")
    await processor.succeed(await processor.take_one())

    assert await fire(world, 0.25) > world.clock.now_us() + 30_000_000, "there is nothing to look for"
    assert len(await nominal_times(world)) == 1
    await schedules.resume(name="nightly")
    await fire(world)
    assert len(await nominal_times(world)) == 2


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_trigger_fires_once_however_often_it_is_sent(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(3600))
    task_id = str(uuid.uuid4())

    first = await schedules.trigger(name="nightly", task_id=task_id)
    again = await schedules.trigger(name="nightly", task_id=task_id)

    assert (first.outcome, first.firing) == (again.outcome, again.firing) and first.outcome == FIRED
    assert first.firing.task_id == task_id
    assert (await world.scheduler.get(task_id)).state == SCHEDULED
    assert again.schedule.counters.fired == 1


async def test_a_trigger_goes_by_the_overlap_policy_or_by_another(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(3600))
    await schedules.trigger(name="nightly")

    by_own = await schedules.trigger(name="nightly")
    waiting = await schedules.trigger(name="nightly", overlap=schedule_pb2.OVERLAP_BUFFER_ONE)
    beside = await schedules.trigger(name="nightly", overlap=schedule_pb2.OVERLAP_ALLOW_ALL)

    assert (by_own.outcome, waiting.outcome, beside.outcome) == (SKIPPED, BUFFERED, FIRED)
    assert not by_own.HasField("firing")
    assert beside.schedule.buffered_firings == 1 and beside.schedule.unfinished_tasks == 2


async def test_a_buffered_trigger_keeps_its_task_id_and_is_not_made_twice(
    world: World, schedules: RawSchedules
) -> None:
    await schedules.create(every(3600, overlap=schedule_pb2.OVERLAP_BUFFER_ALL))
    processor = await world.processor()
    await schedules.trigger(name="nightly")
    task_id = str(uuid.uuid4())

    outcomes = [(await schedules.trigger(name="nightly", task_id=task_id)).outcome for _ in range(2)]
    await processor.succeed(await processor.take_one())
    await fire(world, 0.25)

    assert outcomes == [BUFFERED, BUFFERED]
    assert (await processor.take_one()).task_id == task_id


async def test_a_trigger_cannot_take_the_id_of_another_task(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(3600))
    task_id = await world.scheduler.enqueue()

    refusal = await refused(schedules.trigger(name="nightly", task_id=task_id))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "TASK_EXISTS")


async def test_a_trigger_fires_what_is_paused_or_has_ended(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(60, max_firings=1, overlap=schedule_pb2.OVERLAP_ALLOW_ALL))
    await fire(world, 60)
    await schedules.pause(name="nightly")

    assert (await schedules.trigger(name="nightly")).outcome == FIRED


async def test_a_backfill_fires_what_has_not_fired_in_a_range_and_nothing_twice(
    world: World, schedules: RawSchedules
) -> None:
    now_us = world.clock.now_us()
    await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_ALLOW_ALL))
    await fire(world, 60)
    (fired_us,) = await nominal_times(world)
    world.clock.advance(1)
    times = {"start_time": time_at(fired_us - 4 * MINUTE), "end_time": time_at(world.clock.now_us())}

    first = await schedules.backfill(name="nightly", **times)
    again = await schedules.backfill(name="nightly", **times)

    assert (first.fired, first.existing) == (4, 1) and (again.fired, again.existing) == (0, 5)
    assert await nominal_times(world) == [fired_us - i * MINUTE for i in (4, 3, 2, 1, 0)]
    assert fired_us - 4 * MINUTE < now_us, "before the schedule was made"


async def test_a_backfill_goes_by_the_overlap_policy(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_BUFFER_ALL, max_buffered=2))
    now_us = world.clock.now_us()

    done = await schedules.backfill(name="nightly", start_time=time_at(now_us - 5 * MINUTE), end_time=time_at(now_us))

    assert (done.fired, done.buffered, done.skipped) == (1, 2, 2)


async def test_a_range_must_be_over_and_not_too_long(world: World, schedules: RawSchedules) -> None:
    await schedules.create(every(1))
    now_us = world.clock.now_us()

    refusal = await refused(
        schedules.backfill(name="nightly", start_time=time_at(now_us - 1_001_000_000), end_time=time_at(now_us + 1))
    )

    assert set(refusal.faults) == {"end_time"}
    assert "later than now" in refusal.message and "1,000 nominal times" in refusal.message


async def test_a_backfill_does_not_fire_what_has_been_pruned(world: World, schedules: RawSchedules) -> None:
    new = every(60)
    new.task.retention.seconds = 1
    await schedules.create(new)
    processor = await world.processor()
    await fire(world, 60)
    (fired_us,) = await nominal_times(world)
    await processor.succeed(await processor.take_one())
    world.clock.advance(5)
    await world.server._store.prune(0)
    assert await nominal_times(world) == []

    async def backfill(start_us: int) -> Any:
        end = time_at(world.clock.now_us())
        return await schedules.backfill(name="nightly", start_time=time_at(start_us), end_time=end)

    refusal = await refused(backfill(fired_us))
    after = await backfill(fired_us + 1)

    assert set(refusal.faults) == {"start_time"}
    assert after.fired == 0


async def test_what_a_pause_has_left_out_is_backfilled_once_and_goes_on_from_there(
    world: World, schedules: RawSchedules
) -> None:
    made = await schedules.create(every(60, overlap=schedule_pb2.OVERLAP_CANCEL_OTHER, max_firings=10))
    first_us = microseconds(made.next_fire_time)
    await schedules.pause(name="nightly")
    world.clock.advance(until(world, made) + 4 * 60 + 30)
    now = time_at(world.clock.now_us())

    refusal = await refused(
        schedules.backfill(name="nightly", start_time=time_at(first_us + MINUTE), end_time=now),
    )
    done = await schedules.backfill(name="nightly", start_time=time_at(first_us), end_time=now)
    resumed = await schedules.resume(name="nightly")
    await fire(world)

    assert set(refusal.faults) == {"start_time"}, "what is before it would be caught up with afterwards"
    assert microseconds(resumed.next_fire_time) == first_us + 5 * MINUTE
    assert resumed.remaining_firings == 10
    tasks = await tasks_of(world.server._store, "nightly")
    assert [(one.nominal_us, one.state) for one in tasks] == [(first_us + 4 * MINUTE, SCHEDULED)]
    assert (done.fired, done.skipped) == (1, 4), "each was superseded by the next"


async def test_a_firing_whose_id_somebody_has_taken_fires_all_the_same(world: World, schedules: RawSchedules) -> None:
    made = await schedules.create(every(60))
    nominal_us = microseconds(made.next_fire_time)
    taken = firing_task_id(uuid.UUID(made.schedule_id).bytes, nominal_us)
    await world.scheduler.enqueue("bake", task_id=str(uuid.UUID(bytes=taken)))

    await fire(world, until(world, made))

    (fired,) = await tasks_of(world.server._store, "nightly")
    assert fired.nominal_us == nominal_us
    assert uuid.UUID(fired.task_id).bytes != taken
    stands = await schedules.get(name="nightly")
    assert (stands.counters.fired, stands.last_firing.task_id) == (1, fired.task_id)


# ── preview ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_preview_shows_what_the_clocks_do(schedules: RawSchedules) -> None:
    rule = a_schedule("x", crons=["30 2 * * *"], time_zone="Europe/Berlin").recurrence

    found = await schedules.preview(recurrence=rule, after_time=time_at(1_711_753_200_000_000), count=2)

    assert [one.local_time for one in found.firings] == ["2024-03-30T02:30:00+01:00", "2024-03-31T03:00:00+02:00"]
    assert [one.dst_mark for one in found.firings] == [schedule_pb2.DST_MARK_NORMAL, schedule_pb2.DST_MARK_GAP]
    assert found.time_zone_version and "02:30" in found.explanation


async def test_a_preview_of_a_schedule_shows_when_it_will_fire(world: World, schedules: RawSchedules) -> None:
    made = await schedules.create(every(60, jitter=span(30)))

    found = await schedules.preview(name="nightly")

    assert len(found.firings) == 10
    assert found.firings[0].nominal_time == made.next_fire_time and found.firings[0].due_time == made.next_due_time
    await fire(world, 75)
    assert (await tasks_of(world.server._store, "nightly"))[0].due_us == microseconds(made.next_due_time)
