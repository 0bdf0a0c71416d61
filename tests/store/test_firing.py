"""A firing, its task and the step of its schedule are one, on every database."""

from __future__ import annotations

import asyncio

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.recurring import FiringOutcome, Key, firing_task_id
from taskq_server.core.schedule import CatchUp, Overlap, tzdata_version
from taskq_server.store.store import Store
from taskq_server.store.verbs import firing as verb
from taskq_server.store.verbs.firing import Followed
from taskq_server.store.verbs.schedules import ToFire
from taskq_server.store.verbs.scheduling import Deletion
from tests.store.conftest import Reopen
from tests.store.firings import NIGHTLY, fire_all, firings, nominal_times, the_schedule
from tests.store.given import (
    Gate,
    a_processor,
    a_schedule,
    a_task,
    added,
    end,
    hours,
    lease,
    minutes,
    rows,
    seconds,
    succeeded,
    tamper,
)


async def test_a_firing_its_task_and_the_step_of_its_schedule_are_one(store: Store, clock: ManualClock) -> None:
    made = await store.create_schedule(a_schedule(every=minutes(1), payload=b"x"))
    assert made.next_us is not None
    clock.advance(us=minutes(1))

    fired = await store.fire(0)

    task_id = firing_task_id(made.schedule_id, made.next_us)
    after = await the_schedule(store)
    assert fired.tasks == 1
    assert (after.next_us, after.last_us, after.last_task_id) == (made.next_us + minutes(1), made.next_us, task_id)
    assert await rows(store, "SELECT nominal_us, outcome, task_id FROM firing") == [
        {"nominal_us": made.next_us, "outcome": int(FiringOutcome.FIRED), "task_id": task_id}
    ]
    assert (await store.get([task_id]))[task_id].due_time_us == made.next_us


async def test_a_schedule_that_went_back_in_time_fires_nothing_a_second_time(store: Store, clock: ManualClock) -> None:
    """As if a backup of the one table had been restored."""
    made = await store.create_schedule(a_schedule(every=minutes(1), catch_up=CatchUp.ALL, overlap=Overlap.ALLOW_ALL))
    for _ in range(3):
        clock.advance(us=minutes(1))
        await store.fire(0)
    await tamper(store, "UPDATE schedule SET next_us = :us, next_due_us = :us", us=made.next_us)

    assert await fire_all(store) == 0
    assert len(await firings(store)) == 3 == (await the_schedule(store)).fired


async def test_firing_ahead_waits_while_something_might_come_between(store: Store, clock: ManualClock) -> None:
    await store.create_schedule(a_schedule("skips", every=seconds(10)))
    await store.create_schedule(a_schedule("allows", every=seconds(10), overlap=Overlap.ALLOW_ALL))
    clock.advance(us=seconds(10) - clock.now_us() % seconds(10) - seconds(0.5))
    assert await fire_all(store, seconds(1)) == 2, "nothing is unfinished yet"

    clock.advance(us=seconds(10))
    assert await fire_all(store, seconds(1)) == 1
    assert [name for name, _ in await firings(store)].count("skips") == 1
    clock.advance(us=seconds(0.5))
    await fire_all(store, seconds(1))
    assert (await the_schedule(store, Key(None, "skips"))).skipped == 1


async def test_overlap_is_decided_by_what_is_unfinished_so_that_a_crash_leaves_nothing_to_be_reset(
    store: Store, clock: ManualClock, reopen: Reopen
) -> None:
    await store.create_schedule(a_schedule(every=minutes(1)))
    oven = await a_processor(store)
    clock.advance(us=minutes(1))
    await store.fire(0)
    await lease(store, oven)

    store = await reopen()
    clock.advance(us=minutes(1))
    await store.fire(0)
    assert (await the_schedule(store)).skipped == 1
    await store.disconnect(oven.seq)
    other = await a_processor(store)
    (again,) = (await lease(store, other)).assignments
    await end(store, succeeded(again))
    clock.advance(us=minutes(1))
    await store.fire(0)

    assert (await the_schedule(store)).fired == 2


@pytest.mark.parametrize("policy", CatchUp)
@pytest.mark.parametrize("overlap", [Overlap.ALLOW_ALL, Overlap.CANCEL_OTHER])
async def test_a_server_that_runs_misses_nothing_however_long_the_jitter(
    store: Store, clock: ManualClock, policy: CatchUp, overlap: Overlap
) -> None:
    """Neither with a window that is shorter than the jitter."""
    put_off = a_schedule(every=minutes(5), jitter=minutes(4), window=seconds(15), catch_up=policy, overlap=overlap)
    made = await store.create_schedule(put_off)
    began_us = clock.now_us()

    for _ in range(10):
        due_us = (await store.to_fire()).first_due_us
        assert due_us is not None
        clock.advance(us=due_us - clock.now_us())
        await fire_all(store)

    after = await the_schedule(store)
    assert (after.fired, after.missed, after.skipped) == (10, 0, 0)
    fired = [nominal_us for _, nominal_us in await firings(store)]
    assert fired == nominal_times(made, began_us, clock.now_us())


async def test_what_fires_beside_what_is_enqueued_for_later_is_due_all_the_same(
    store: Store, clock: ManualClock
) -> None:
    """Both may be stored by one transaction, into the same place."""
    await store.create_schedule(a_schedule(every=minutes(1)))
    clock.advance(us=minutes(1))
    gate = Gate()
    held = await gate.hold(store)

    both = asyncio.gather(store.fire(0), store.add([a_task(due_in=hours(1))]))
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(held, both)

    due_us = store.next_due_us(store.routes)
    assert due_us is not None and due_us <= clock.now_us()


async def test_another_time_zone_database_computes_anew_what_is_to_come(store: Store, clock: ManualClock) -> None:
    made = await store.create_schedule(a_schedule(crons=("30 2 * * *",), zone="Europe/Berlin"))
    await tamper(store, "UPDATE schedule SET tzdata = '1999a', next_us = next_us + 1, next_due_us = next_due_us + 1")

    assert (await store.follow_zones()).many == 1
    assert await store.follow_zones() == Followed(0, None)

    after = await the_schedule(store)
    assert (after.next_us, after.next_due_us, after.tzdata) == (made.next_us, made.next_due_us, tzdata_version())


async def test_another_time_zone_database_is_followed_past_pages_of_what_cannot_be_read(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "MOST_SCHEDULES_PER_FIRE", 2)
    for name in ("bad", "fine", "worse", "worst", "well"):
        await store.create_schedule(a_schedule(name, crons=("30 2 * * *",)))
    await tamper(store, "UPDATE schedule SET tzdata = '1999a'")
    await tamper(store, "UPDATE schedule SET rule = '{' WHERE name IN ('bad', 'worse', 'worst')")
    due = "SELECT name, next_due_us FROM schedule ORDER BY name"
    before = await rows(store, due)

    many, last_seq = 0, 0
    while (followed := await store.follow_zones(last_seq)).last_seq is not None:
        many, last_seq = many + followed.many, followed.last_seq

    assert many == 2
    followed_now = await rows(store, f"SELECT name FROM schedule WHERE tzdata = '{tzdata_version()}' ORDER BY 1")  # noqa: S608
    assert [row["name"] for row in followed_now] == ["fine", "well"]
    assert await rows(store, due) == before, "a server that can read the others fires them at their time"


async def test_firings_are_pruned_with_their_tasks(store: Store, clock: ManualClock) -> None:
    await store.create_schedule(a_schedule(every=minutes(1), retention=seconds(1)))
    oven = await a_processor(store)
    clock.advance(us=minutes(1))
    await store.fire(0)
    (assignment,) = (await lease(store, oven)).assignments
    await end(store, succeeded(assignment))
    clock.advance(us=seconds(1))

    assert (await store.prune(0)).tasks == 1

    assert await rows(store, "SELECT * FROM firing") == []
    after = await the_schedule(store)
    assert after.last_task_id == assignment.task_id and after.fired == 1
    assert await rows(store, "SELECT pruned_until_us FROM schedule") == [{"pruned_until_us": after.last_us}]


async def test_a_deleted_schedule_leaves_its_tasks_which_are_pruned_as_ever(store: Store, clock: ManualClock) -> None:
    await store.create_schedule(a_schedule(every=minutes(1), overlap=Overlap.BUFFER_ALL, retention=seconds(1)))
    oven = await a_processor(store)
    for _ in range(3):
        clock.advance(us=minutes(1))
        await store.fire(0)
    assert len(await rows(store, "SELECT * FROM firing")) == 3

    await store.delete_schedule(Deletion(NIGHTLY))

    assert await store.to_fire() == ToFire(None, False)
    (assignment,) = (await lease(store, oven)).assignments
    await end(store, succeeded(assignment))
    clock.advance(us=seconds(1))
    assert (await store.prune(0)).tasks == 1
    assert await rows(store, "SELECT * FROM firing") == []


async def test_tasks_without_a_schedule_are_nobodys_firings(store: Store, clock: ManualClock) -> None:
    await store.create_schedule(a_schedule(every=minutes(1)))
    await added(store, a_task(), a_task())

    assert (await the_schedule(store)).unfinished == 0
