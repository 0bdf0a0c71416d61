"""Schedules that several servers fire, pause and trigger."""

from __future__ import annotations

import asyncio

from taskq_server.clock import ManualClock
from taskq_server.core.recurring import Key
from taskq_server.core.schedule import Overlap, tzdata_version
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.verbs.firing_by_hand import Trigger
from taskq_server.store.verbs.schedules import ToFire
from taskq_server.store.verbs.scheduling import SchedulePause
from tests.store.conftest import Servers
from tests.store.firings import NIGHTLY, firings, the_schedule
from tests.store.given import a_schedule, minutes, tamper
from tests.store.rivals import somebody_waits, stopped_before_commit
from tests.support.console import Console


async def test_two_servers_that_fire_at_once_make_one_task_each_time(servers: Servers, clock: ManualClock) -> None:
    here, there = await servers(2)
    for i in range(20):
        await here.create_schedule(a_schedule(f"s{i}", every=minutes(1), overlap=Overlap.ALLOW_ALL))
    clock.advance(us=minutes(1))
    firing = await stopped_before_commit(here, "_fire", lambda: here.fire(0))

    passed_over = await there.fire(0)
    fired = await firing.goes_on()
    after = await there.fire(0)

    assert (fired.tasks, passed_over.tasks, after.tasks) == (20, 0, 0)
    assert passed_over.first_due_us is not None and passed_over.first_due_us <= clock.now_us(), "it looks again"
    assert len(await firings(there)) == 20


async def test_schedules_that_another_server_is_at_follow_the_time_zone_database_too(
    servers: Servers, clock: ManualClock, console: Console
) -> None:
    here, there = await servers(2)
    await here.create_schedule(a_schedule(crons=("30 2 * * *",), overlap=Overlap.ALLOW_ALL))
    await tamper(here, "UPDATE schedule SET tzdata = '1999a'")
    trigger = Trigger(NIGHTLY, b"t" * 16)
    triggering = await stopped_before_commit(here, "_trigger", lambda: here.trigger_schedule(trigger))

    following = asyncio.create_task(there.follow_zones())
    await somebody_waits(console)
    await triggering.goes_on()

    assert (await following).last_seq is not None
    assert (await the_schedule(there)).tzdata == tzdata_version()


async def test_a_pause_at_one_server_holds_at_another_that_is_about_to_fire(
    servers: Servers, clock: ManualClock, console: Console
) -> None:
    here, there = await servers(2)
    await here.create_schedule(a_schedule(every=minutes(1)))
    clock.advance(us=minutes(1))
    firing = await stopped_before_commit(here, "_fire", lambda: here.fire(0))

    pausing = asyncio.create_task(there.pause_schedule(SchedulePause(NIGHTLY, "why")))
    await somebody_waits(console)
    await firing.goes_on()
    paused = await pausing

    assert paused.fired == 1, "whoever is at it ends first"
    clock.advance(us=minutes(5))
    assert (await here.fire(0)).tasks == (await there.fire(0)).tasks == 0


async def test_a_trigger_through_two_servers_fires_once(servers: Servers, clock: ManualClock) -> None:
    here, there = await servers(2)
    made = await here.create_schedule(a_schedule(every=minutes(1)))
    trigger = Trigger(Key(made.schedule_id), b"t" * 16)

    first, second = await here.trigger_schedule(trigger), await there.trigger_schedule(trigger)

    assert first.nominal_us == second.nominal_us
    assert len(await firings(here)) == 1


async def test_another_server_finds_what_there_is_to_fire(servers: Servers, clock: ManualClock) -> None:
    here, there = await servers(2)
    made = await here.create_schedule(a_schedule(every=minutes(1)))

    assert isinstance(there, Postgres)
    assert (await there.look_around()).to_fire == ToFire(made.next_due_us, False)
