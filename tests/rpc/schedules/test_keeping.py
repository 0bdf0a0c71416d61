"""Schedules are made, found, changed and deleted, over the wire."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
import pytest

from taskq.v1 import schedule_service_pb2 as schedule_pb2
from tests.rpc.schedules.given import MINUTE, fire, nominal_times, until
from tests.rpc.support import refused, span, time_at
from tests.rpc.world import World
from tests.support.schedules import RawSchedules, a_schedule, every, tasks_of

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
