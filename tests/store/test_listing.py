"""What an administrator sees: every living session and every name, a page at a time, counted up to a limit."""

from __future__ import annotations

from taskq_server.clock import ManualClock
from taskq_server.store.store import Store
from taskq_server.store.verbs import listing
from taskq_server.store.verbs.draining import NewDrain
from taskq_server.store.verbs.listing import MOST_COUNTED, MOST_HELD_SHOWN, Page, Registered, Supply
from taskq_server.store.verbs.pausing import NewPause
from tests.store.given import LEASE, a_processor, a_task, added, end, minutes, running, seconds, succeeded, tamper

ALL, ALL_NAMES = Page(0, 1_000), Page("", 1_000)


async def sessions(store: Store, page: Page = ALL) -> list[Registered]:
    return await store.list_sessions(page)


async def supply(store: Store, page: Page = ALL_NAMES) -> dict[str, Supply]:
    return {one.name: one for one in await store.list_capabilities(page)}


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_is_shown_as_it_registered(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(
        store,
        name="oven",
        limits={"cook": 3, "bake": 0},
        labels={"zone": "eu"},
        slots=7,
        alive_until=clock.now_us() + LEASE,
    )

    (found,) = await sessions(store)

    assert (found.session_id, found.session_seq, found.processor_name) == (oven.session_id, oven.seq, "oven")
    assert (found.capabilities, found.labels, found.max_in_flight) == ({"cook": 3, "bake": 0}, {"zone": "eu"}, 7)
    assert (found.build_id, found.client) == ("build", "test")
    assert (found.register_time_us, found.alive_until_us) == (clock.now_us(), clock.now_us() + LEASE)
    assert (found.held, found.many_held, found.drain_time_us) == ([], 0, None)


async def test_sessions_that_live_are_shown_and_those_that_have_ended_are_not(store: Store) -> None:
    one, two, three = [await a_processor(store) for _ in range(3)]
    await store.unregister(two.seq)

    assert [found.session_seq for found in await sessions(store)] == [one.seq, three.seq]
    assert [found.session_seq for found in await sessions(store, Page(0, 1, three.session_id))] == [three.seq]
    assert await sessions(store, Page(0, 1, two.session_id)) == []


async def test_pages_of_sessions_follow_each_other_though_some_end_between(store: Store) -> None:
    ovens = [await a_processor(store) for _ in range(5)]
    first = await sessions(store, Page(0, 2))
    await store.unregister(ovens[1].seq)
    await store.unregister(ovens[2].seq)

    second = await sessions(store, Page(first[-1].session_seq, 2))

    assert [one.session_seq for one in (*first, *second)] == [ovens[i].seq for i in (0, 1, 3, 4)]
    assert await sessions(store, Page(second[-1].session_seq, 2)) == []


async def test_what_a_session_holds_is_counted_and_the_first_of_it_shown(store: Store, clock: ManualClock) -> None:
    oven, other = await a_processor(store), await a_processor(store)
    first = await running(store, oven, *(a_task() for _ in range(MOST_HELD_SHOWN - 1)))
    clock.advance(1)
    later = await running(store, oven, *(a_task() for _ in range(3)))
    (theirs,) = await running(store, other, a_task())
    await end(store, succeeded(first[0]))

    ours, its = await sessions(store)

    assert ours.many_held == MOST_HELD_SHOWN + 1
    shown = [(one.task_id, one.attempt, one.name, one.lease_time_us) for one in ours.held]
    assert len(shown) == MOST_HELD_SHOWN
    assert shown[:-2] == [(one.task_id, 1, "cook", one.lease_time_us) for one in first[1:]]
    assert set(shown[-2:]) <= {(one.task_id, 1, "cook", one.lease_time_us) for one in later}
    assert ([one.task_id for one in its.held], its.many_held) == ([theirs.task_id], 1)


async def test_a_drain_is_shown(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    await store.drain_processor(NewDrain(oven.session_id, "it leaks"))

    (found,) = await sessions(store)

    assert (found.drain_time_us, found.drain_reason) == (clock.now_us(), "it leaks")


async def test_a_session_whose_row_cannot_be_read_hides_no_other(store: Store) -> None:
    bad, good = await a_processor(store), await a_processor(store)
    await tamper(store, "UPDATE session SET capabilities = '{' WHERE session_seq = :seq", seq=bad.seq)

    assert [(one.session_seq, one.capabilities) for one in await sessions(store)] == [
        (bad.seq, {}),
        (good.seq, {"cook": 0}),
    ]
    assert (await supply(store))["cook"].processors == 1


# ── capabilities ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_names_are_those_of_tasks_of_processors_and_of_pauses_in_order(store: Store) -> None:
    await added(store, a_task("b/task"), a_task("B.task"), a_task("b-task"))
    await a_processor(store, "a_processor", "b/task")
    await store.unregister((await a_processor(store, "gone")).seq)
    await store.pause(NewPause("paused", ""))

    assert list(await supply(store)) == ["B.task", "a_processor", "b-task", "b/task", "paused"]
    assert list(await supply(store, Page("a_processor", 2))) == ["b-task", "b/task"]
    assert list(await supply(store, Page("paused", 2))) == []


async def test_what_waits_is_told_apart_from_what_is_due(store: Store, clock: ManualClock) -> None:
    now = clock.now_us()
    eu = ["zone = eu"]
    await added(
        store, a_task(due_at=now - 7), a_task(priority=9, requires=eu), a_task(due_in=1), a_task(due_in=minutes(1))
    )
    await added(store, a_task("bake", due_in=seconds(5), priority=3), a_task("bake", due_in=seconds(4), requires=eu))

    found = await supply(store)

    assert [(one.due, one.later, one.first_due_us) for one in (found["cook"], found["bake"])] == [
        (2, 2, now - 7),
        (0, 2, now + seconds(4)),
    ]


async def test_what_waits_is_counted_up_to_a_limit(store: Store) -> None:
    for priority in (0, 5):
        await added(store, *(a_task(priority=priority) for _ in range(MOST_COUNTED // 2 + 10)))
        await added(
            store, *(a_task("bake", due_in=minutes(1), priority=priority) for _ in range(MOST_COUNTED // 2 - 10))
        )

    found = await supply(store)

    assert (found["cook"].due, found["bake"].later) == (MOST_COUNTED, MOST_COUNTED - 20)


async def test_what_runs_and_what_is_finished_does_not_wait(store: Store) -> None:
    oven = await a_processor(store)
    one, _ = await running(store, oven, a_task(), a_task(requires=[]))
    await end(store, succeeded(one))

    cook = (await supply(store))["cook"]

    assert (cook.due, cook.later, cook.first_due_us, cook.running) == (0, 0, None, 1)


async def test_what_runs_is_counted_up_to_a_limit_of_all(store: Store, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    oven = await a_processor(store, "cook", "bake")
    await running(store, oven, *(a_task(name) for name in ("cook", "bake", "bake")))
    assert [one.running for one in (await supply(store)).values()] == [2, 1]

    monkeypatch.setattr(listing, "MOST_RUNNING_COUNTED", 2)

    assert sum(one.running for one in (await supply(store)).values()) == 2


async def test_free_credits_are_what_processors_could_still_take_of_a_name(store: Store) -> None:
    oven = await a_processor(store, limits={"cook": 2, "bake": 0}, slots=5)
    await a_processor(store, "bake", slots=3)
    await running(store, oven, a_task("cook"))

    found = await supply(store)

    assert [(found[name].processors, found[name].free) for name in ("cook", "bake")] == [(1, 1), (2, 4 + 3)]


async def test_a_drained_processor_offers_nothing(store: Store) -> None:
    oven, _ = await a_processor(store, slots=5), await a_processor(store, slots=3)
    await store.drain_processor(NewDrain(oven.session_id, ""))

    cook = (await supply(store))["cook"]

    assert (cook.processors, cook.free) == (1, 3)


async def test_a_pause_is_shown_with_its_reason_until_it_ends(store: Store) -> None:
    pause = await store.pause(NewPause("cook", "why"))
    await added(store, a_task())
    assert (await supply(store))["cook"].pause == pause

    await store.resume("cook")

    assert (await supply(store))["cook"].pause is None
