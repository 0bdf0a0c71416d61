"""Pauses: nothing of a paused name is leased, and everything else goes on."""

from __future__ import annotations

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.matching import Demand
from taskq_server.core.task import TaskState
from taskq_server.store.store import Store
from taskq_server.store.verbs.pausing import NewPause, Pause
from tests.store.conftest import Reopen
from tests.store.given import (
    a_processor,
    a_retry,
    a_task,
    added,
    end,
    failed,
    lease,
    leased_ids,
    minutes,
    rows,
    running,
    seconds,
    statuses,
    succeeded,
    the_task,
)


async def paused(store: Store, name: str = "cook", reason: str = "") -> Pause:
    return await store.pause(NewPause(name, reason))


async def test_nothing_of_a_paused_name_is_leased_and_of_other_names_all(store: Store) -> None:
    oven = await a_processor(store, "cook", "bake")
    _, bread = await added(store, a_task("cook", priority=9), a_task("bake"))

    await paused(store, "cook")

    assert await leased_ids(store, oven) == [bread]


async def test_a_name_is_paused_whatever_labels_its_tasks_ask_for_and_no_name_that_is_longer(store: Store) -> None:
    oven = await a_processor(store, "cook", "cook.pasta", "coo", labels={"zone": "eu"})
    tasks = a_task("cook"), a_task("cook", requires=["zone = eu"]), a_task("cook.pasta"), a_task("coo")
    ids = await added(store, *tasks)

    await paused(store, "cook")

    assert await leased_ids(store, oven) == ids[2:]


async def test_what_runs_goes_on_and_a_retry_waits(store: Store) -> None:
    oven = await a_processor(store)
    one, two = await running(store, oven, a_task(), a_task(retry=a_retry(initial_delay_us=0)))

    await paused(store)

    assert (await end(store, succeeded(one))).state is TaskState.SUCCEEDED
    assert (await end(store, failed(two))).state is TaskState.SCHEDULED
    assert await leased_ids(store, oven) == []


async def test_tasks_are_still_enqueued_and_cancelled_and_expire(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    await paused(store)

    kept, gone, late = await added(store, a_task(), a_task(), a_task(expires_at=clock.now_us() + seconds(1)))
    await store.cancel([gone])
    clock.advance(1)
    await lease(store, oven)

    states = [(await the_task(store, task_id)).state for task_id in (kept, gone, late)]
    assert states == [TaskState.SCHEDULED, TaskState.CANCELLED, TaskState.FAILED]


async def test_what_has_waited_is_leased_once_it_is_resumed_in_its_order(store: Store) -> None:
    oven = await a_processor(store)
    await paused(store)
    low, high = await added(store, a_task(priority=1), a_task(priority=2))

    assert await leased_ids(store, oven) == []
    await store.resume("cook")

    assert await leased_ids(store, oven) == [high, low]


async def test_a_pause_that_is_repeated_keeps_its_time_and_takes_the_new_reason(
    store: Store, clock: ManualClock
) -> None:
    first = await paused(store, reason="the oven is hot")
    clock.advance(60)

    assert await paused(store, reason="it is on fire") == Pause("cook", "it is on fire", first.pause_time_us)
    assert first == Pause("cook", "the oven is hot", clock.now_us() - minutes(1))
    assert await rows(store, "SELECT * FROM pause") == [
        {"name": "cook", "reason": "it is on fire", "pause_time_us": first.pause_time_us}
    ]


async def test_to_resume_answers_the_pause_that_has_ended_and_the_second_time_nothing(store: Store) -> None:
    pause = await paused(store, reason="why")

    assert await store.resume("cook") == pause
    assert await store.resume("cook") is None
    assert await rows(store, "SELECT * FROM pause") == []


async def test_a_name_that_nobody_knows_may_be_paused_before_its_first_task(store: Store) -> None:
    await paused(store, "brand.new")
    oven = await a_processor(store, "brand.new")
    await added(store, a_task("brand.new"))

    assert await leased_ids(store, oven) == []


async def test_a_pause_survives_the_server(store: Store, reopen: Reopen) -> None:
    await paused(store)
    (task_id,) = await added(store, a_task())

    again = await reopen()

    assert again.next_due_us(again.routes) is None, "it is known from the start"
    oven = await a_processor(again)
    assert await leased_ids(again, oven) == []
    await again.resume("cook")
    assert await leased_ids(again, oven) == [task_id]


# ── when to come back ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_due_and_paused_is_no_reason_to_come_back(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store, "cook", "bake")
    await added(store, a_task("cook"), a_task("bake", due_in=minutes(5)))

    await paused(store, "cook")

    assert store.next_due_us(store.routes) == clock.now_us() + minutes(5)
    assert (await lease(store, oven)).next_due_us == clock.now_us() + minutes(5)
    await paused(store, "bake")
    assert store.next_due_us(store.routes) is None


async def test_a_resume_wakes_whoever_leases_and_what_waited_is_known_to_be_due(
    store: Store, clock: ManualClock
) -> None:
    woken: list[None] = []
    await added(store, a_task())
    store.on_scheduled = lambda: woken.append(None)
    await paused(store)
    assert woken == []

    await store.resume("cook")

    assert woken == [None]
    assert store.next_due_us(store.routes) == clock.now_us()


async def test_a_lease_learns_of_a_pause_that_this_server_has_not_heard_of(store: Store, clock: ManualClock) -> None:
    """Else the dispatcher would look again and again for what it may not lease."""
    oven = await a_processor(store)
    await added(store, a_task())
    await paused(store)
    store.memory.pauses.change(resumed=["cook"])
    assert store.next_due_us(store.routes) == clock.now_us()

    leased = await lease(store, oven)

    assert (leased.assignments, leased.next_due_us) == ([], None)
    assert store.next_due_us(store.routes) is None


async def test_a_pause_of_a_transaction_that_failed_is_none(store: Store) -> None:
    oven = await a_processor(store)
    (task_id,) = await added(store, a_task())

    def pause_and_fail(tx, items):  # type: ignore[no-untyped-def]
        store._pause(tx, [NewPause("cook", "")])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.write(pause_and_fail, [None])

    assert await leased_ids(store, oven) == [task_id]


async def test_seats_are_not_used_up_by_what_is_paused(store: Store) -> None:
    oven = await a_processor(store, "cook", "bake", slots=1)
    await added(store, a_task("cook", priority=9))
    (bread,) = await added(store, a_task("bake"))
    await paused(store, "cook")

    leased = await store.lease(Demand([oven.seats(store)]))

    assert [one.task_id for one in leased.assignments] == [bread]
    assert statuses(await store.end([succeeded(leased.assignments[0])]))
