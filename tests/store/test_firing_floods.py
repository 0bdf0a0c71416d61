"""What is due to fire all at once comes in batches, and keeps nobody waiting."""

from __future__ import annotations

import itertools

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.recurring import Key
from taskq_server.core.schedule import CatchUp, Overlap
from taskq_server.store.store import Store
from taskq_server.store.verbs import firing as verb
from taskq_server.store.verbs import firing_round
from taskq_server.store.verbs.firing import MOST_OF_ONE
from tests.store.firings import fire_all, firings, the_schedule
from tests.store.given import a_schedule, minutes, seconds, tamper


async def test_a_flood_of_missed_firings_comes_in_batches(store: Store, clock: ManualClock) -> None:
    await store.create_schedule(a_schedule(every=seconds(1), catch_up=CatchUp.ALL, overlap=Overlap.ALLOW_ALL))
    clock.advance(us=seconds(2_500))

    first = await store.fire(0)
    rest = await fire_all(store)

    assert (first.tasks, first.more) == (MOST_OF_ONE, True)
    assert first.tasks + rest == 2_500 == len(set(await firings(store)))


async def test_a_flood_of_one_schedule_does_not_keep_others_waiting(store: Store, clock: ManualClock) -> None:
    flood = a_schedule("flood", every=seconds(1), catch_up=CatchUp.ALL, overlap=Overlap.ALLOW_ALL)
    await store.create_schedule(flood)
    for i in range(10):
        await store.create_schedule(a_schedule(f"s{i}", every=minutes(60)))
    clock.advance(us=minutes(60))

    await store.fire(0)

    assert len({name for name, _ in await firings(store)}) == 11


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.BUFFER_ONE, Overlap.CANCEL_OTHER])
async def test_firings_that_come_to_nothing_are_met_in_batches_too(
    store: Store, clock: ManualClock, overlap: Overlap
) -> None:
    await store.create_schedule(a_schedule(every=seconds(1), catch_up=CatchUp.ALL, overlap=overlap))
    clock.advance(us=seconds(250))

    first = await store.fire(0)
    skipped_first = (await the_schedule(store)).skipped
    await fire_all(store)

    after = await the_schedule(store)
    assert first.more and skipped_first < MOST_OF_ONE
    assert after.fired + after.skipped + after.buffered == 250 and after.missed == 0


async def test_a_round_has_no_more_payload_than_a_transaction_bears(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firing_round, "MOST_BYTES_PER_FIRE", 5_000)
    for name in ("a", "b"):
        await store.create_schedule(
            a_schedule(name, every=seconds(1), catch_up=CatchUp.ALL, overlap=Overlap.ALLOW_ALL, payload=b"x" * 1_000)
        )
    clock.advance(us=seconds(20))

    first = await store.fire(0)

    assert (first.tasks, first.more) == (5, True)
    assert await fire_all(store) == 40 - 5
    assert len(set(await firings(store))) == 40


@pytest.mark.parametrize("policy", CatchUp)
async def test_a_round_that_takes_long_ends_and_the_next_goes_on(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, policy: CatchUp
) -> None:
    for i in range(5):
        await store.create_schedule(a_schedule(f"s{i}", every=seconds(4), catch_up=policy, overlap=Overlap.ALLOW_ALL))
    clock.advance(us=seconds(40) - clock.now_us() % seconds(4))
    monkeypatch.setattr(firing_round, "monotonic", itertools.count().__next__)

    first = await store.fire(0)
    rest = await fire_all(store)

    late, on_time = 10 - 3, 3
    fires = {CatchUp.SKIP: on_time, CatchUp.LAST: on_time, CatchUp.FIRST: 1 + on_time, CatchUp.ALL: late + on_time}
    assert (first.tasks, first.more) == (1, True)
    assert first.tasks + rest == 5 * fires[policy] == len(set(await firings(store)))
    for i in range(5):
        after = await the_schedule(store, Key(None, f"s{i}"))
        assert after.fired + after.missed == 10


async def test_many_that_are_to_be_cancelled_are_so_in_batches_and_then_the_other_fires(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (verb, firing_round):
        monkeypatch.setattr(room, "MOST_CANCELLED", 10)
    made = await store.create_schedule(a_schedule(every=seconds(1), catch_up=CatchUp.ALL, overlap=Overlap.ALLOW_ALL))
    clock.advance(us=seconds(35))
    assert await fire_all(store) == 35
    await tamper(store, "UPDATE schedule SET overlap = :to", to=int(Overlap.CANCEL_OTHER))
    clock.advance(us=seconds(1))

    rounds = [await store.fire(0) for _ in range(4)]

    assert [(one.tasks, one.more) for one in rounds] == [(0, True), (0, True), (0, True), (1, False)]
    after = await the_schedule(store)
    assert (after.unfinished, after.fired, after.missed) == (1, 36, 0)
    assert made.next_us is not None and after.last_us == made.next_us + seconds(35)


async def test_many_that_are_due_at_once_are_all_fired(store: Store, clock: ManualClock) -> None:
    for i in range(1_050):
        await store.create_schedule(a_schedule(f"s{i}", every=minutes(1)))
    clock.advance(us=minutes(1))

    assert await fire_all(store) == 1_050
    assert (await store.to_fire()).first_due_us == (await the_schedule(store, Key(None, "s7"))).next_due_us
