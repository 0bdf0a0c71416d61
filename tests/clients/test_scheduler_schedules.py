"""What a program declares, and the schedules of a real server: they are brought in step, by any number of replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

import scheduler_client.sync
from client_core.channel import open_channel
from client_core.payload import decode
from scheduler_client import (
    InvalidArgument,
    Recurring,
    Retry,
    Schedule,
    Scheduler,
    SyncReport,
    Task,
    cron,
    every,
    new_task,
)
from taskq_server.server import Server
from tests.support.schedules import RawSchedules

REPLICAS = 10


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, database_url: str) -> str:
    return database_url if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
async def scheduler(server: Server) -> AsyncIterator[Scheduler]:
    async with Scheduler(server.address) as scheduler:
        yield scheduler


@pytest.fixture
async def schedules(server: Server) -> AsyncIterator[RawSchedules]:
    async with open_channel(server.address) as channel:
        yield RawSchedules(channel)


class ReportTask(Task):
    name = "synced.report"
    config = {"pages": 3}
    requires = ["zone in (b,a)", "gpu=yes"]
    retry = Retry(max_attempts=2)

    def schedule(self) -> Recurring:
        return cron("0 9 * * MON-FRI", tz="Europe/Paris")


def hourly(name: str = "synced.hourly", **options: Any) -> Schedule:
    return Schedule(name, every("1h", **options), new_task("synced.work", {"a": 1}))


async def test_what_is_declared_is_created_and_then_left_alone(scheduler: Scheduler, schedules: RawSchedules) -> None:
    declared = [ReportTask, hourly(), hourly("synced.bare", overlap="allow_all", jitter="5m")]
    names = ["synced.bare", "synced.hourly", "synced.report"]

    assert await scheduler.sync_schedules(declared) == SyncReport(created=names)

    report = await schedules.get(name="synced.report")
    assert report.recurrence.crons == ["0 9 * * MON-FRI"]
    assert decode(report.task.payload) == {"pages": 3}
    # the defaults and the spelling that the server fills in are no difference
    assert await scheduler.sync_schedules(declared) == SyncReport(unchanged=names)
    assert (await schedules.get(name="synced.report")).etag == report.etag


async def test_a_declaration_that_has_changed_is_an_update(scheduler: Scheduler, schedules: RawSchedules) -> None:
    await scheduler.sync_schedules([hourly(jitter="5m")])
    before = await schedules.get(name="synced.hourly")

    assert await scheduler.sync_schedules([hourly()]) == SyncReport(updated=["synced.hourly"])

    after = await schedules.get(name="synced.hourly")
    assert after.schedule_id == before.schedule_id
    assert not after.recurrence.HasField("jitter")


async def test_what_somebody_has_changed_is_reported_and_left_alone_until_it_is_overwritten(
    scheduler: Scheduler, schedules: RawSchedules
) -> None:
    await scheduler.sync_schedules([hourly()])
    by_hand = await schedules.get(name="synced.hourly")
    by_hand.recurrence.interval.seconds = 60
    by_hand.task.priority = 9
    await schedules.update(by_hand)
    drift = SyncReport(drifted={"synced.hourly": ["recurrence.interval", "task.priority"]})

    assert await scheduler.sync_schedules([hourly()]) == drift
    assert (await schedules.get(name="synced.hourly")).recurrence.interval.seconds == 60, "in an emergency, perhaps"

    assert await scheduler.sync_schedules([hourly()], overwrite=True) == drift
    assert (await schedules.get(name="synced.hourly")).recurrence.interval.seconds == 3_600
    assert await scheduler.sync_schedules([hourly()]) == SyncReport(unchanged=["synced.hourly"])


async def test_a_declaration_in_other_words_is_no_change_but_what_is_changed_by_hand_afterwards_is_drift(
    scheduler: Scheduler, schedules: RawSchedules
) -> None:
    await scheduler.sync_schedules([hourly()])
    assert await scheduler.sync_schedules([hourly(overlap="skip")]) == SyncReport(unchanged=["synced.hourly"])

    by_hand = await schedules.get(name="synced.hourly")
    by_hand.recurrence.interval.seconds = 60
    await schedules.update(by_hand)

    report = await scheduler.sync_schedules([hourly(overlap="skip")])
    assert report == SyncReport(drifted={"synced.hourly": ["recurrence.interval"]})


async def test_a_pause_is_not_for_a_declaration_to_end(scheduler: Scheduler, schedules: RawSchedules) -> None:
    await scheduler.sync_schedules([hourly()])
    await schedules.pause(name="synced.hourly", note="until the printer is mended")

    await scheduler.sync_schedules([hourly(overlap="allow_all")])

    assert (await schedules.get(name="synced.hourly")).pause.note == "until the printer is mended"


async def test_what_an_origin_declares_no_more_is_removed_if_that_is_asked_for(
    scheduler: Scheduler, schedules: RawSchedules
) -> None:
    await scheduler.sync_schedules([hourly("synced.a"), hourly("synced.b")], origin="kitchen")
    await scheduler.sync_schedules([hourly("synced.c")], origin="kitchen-2")
    await scheduler.sync_schedules([hourly("synced.d")], origin="kitchen eu")

    assert await scheduler.sync_schedules([hourly("synced.a")], origin="kitchen") == SyncReport(unchanged=["synced.a"])
    gone = SyncReport(unchanged=["synced.a"], removed=["synced.b"])
    assert await scheduler.sync_schedules([hourly("synced.a")], origin="kitchen", remove=True, dry_run=True) == gone
    assert await scheduler.sync_schedules([hourly("synced.a")], origin="kitchen", remove=True) == gone

    assert [one.name for one in (await schedules.list()).schedules] == ["synced.a", "synced.c", "synced.d"]
    with pytest.raises(ValueError, match="without an origin"):
        await scheduler.sync_schedules([], remove=True)


async def test_a_dry_run_says_what_it_would_do_and_does_nothing(scheduler: Scheduler, schedules: RawSchedules) -> None:
    await scheduler.sync_schedules([hourly()])

    would = await scheduler.sync_schedules([hourly(jitter="1m"), ReportTask], dry_run=True)

    assert would == SyncReport(created=["synced.report"], updated=["synced.hourly"])
    assert [one.name for one in (await schedules.list()).schedules] == ["synced.hourly"]
    assert not (await schedules.get(name="synced.hourly")).recurrence.HasField("jitter")


async def test_ten_replicas_may_declare_at_once(server: Server, schedules: RawSchedules) -> None:
    def declared(replica: int, jitter: str) -> Sequence[Schedule]:
        names = [f"synced.n{i}" for i in range(20)]
        turned = names[replica:] + names[:replica]  # each begins with another, so that they meet everywhere
        return [hourly(name, jitter=jitter) for name in turned]

    async def sync_all(jitter: str) -> list[SyncReport]:
        each = (one.sync_schedules(declared(i, jitter), origin="r", remove=True) for i, one in enumerate(replicas))
        return await asyncio.gather(*each)

    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(Scheduler(server.address)) for _ in range(REPLICAS)]
        for jitter in ("1m", "2m"):  # first to create, then to update
            reports = await sync_all(jitter)
            done = [name for report in reports for name in (*report.created, *report.updated)]
            assert sorted(done) == sorted(f"synced.n{i}" for i in range(20)), "each by one of them"
            assert all(not report.drifted and not report.removed for report in reports)
            listed = (await schedules.list(page_size=100)).schedules
            assert [one.recurrence.jitter.seconds for one in listed] == [int(jitter[0]) * 60] * 20


async def test_a_fault_of_one_is_raised_with_its_fields_and_the_others_are_declared(
    scheduler: Scheduler, schedules: RawSchedules
) -> None:
    wrong = Schedule("synced.wrong", cron("61 * * * *", tz="Mars/Olympus"), new_task("synced.work"))

    with pytest.raises(InvalidArgument) as refused:
        await scheduler.sync_schedules([wrong, hourly()])

    assert [field for field, _ in refused.value.fields] == [
        "schedule.recurrence.crons[0]",
        "schedule.recurrence.time_zone",
    ]
    assert [one.name for one in (await schedules.list()).schedules] == ["synced.hourly"]


async def test_a_name_that_is_declared_twice_is_refused_before_anything_is_sent(
    scheduler: Scheduler, schedules: RawSchedules
) -> None:
    with pytest.raises(ValueError, match=r"synced\.hourly: declared twice"):
        await scheduler.sync_schedules([hourly(), hourly()])
    assert not (await schedules.list()).schedules


async def test_a_firing_is_a_task_as_declared(scheduler: Scheduler, schedules: RawSchedules) -> None:
    await scheduler.sync_schedules([ReportTask])

    fired = await schedules.trigger(name="synced.report")

    task = await scheduler.get(fired.firing.task_id)
    assert task.name == "synced.report"
    assert task.payload() == {"pages": 3}
    assert task.headers["taskq-schedule"] == "synced.report"


async def test_programs_without_an_event_loop_declare_too(server: Server, schedules: RawSchedules) -> None:
    def sync() -> SyncReport:
        with scheduler_client.sync.Scheduler(server.address) as blocking:
            return blocking.sync_schedules([hourly()])

    assert await asyncio.to_thread(sync) == SyncReport(created=["synced.hourly"])
    assert (await schedules.get(name="synced.hourly")).task.name == "synced.work"
