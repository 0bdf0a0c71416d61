"""Sessions that an administrator drains or ends: they get nothing more, and nobody is to blame for what they held."""

from __future__ import annotations

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.task import EndStatus, Outcome, TaskState
from taskq_server.store.store import Store
from taskq_server.store.verbs.draining import NewDrain
from taskq_server.store.verbs.living import Sign
from tests.store.conftest import Reopen
from tests.store.given import (
    LEASE,
    NO_RETRY,
    a_processor,
    a_task,
    added,
    an_id,
    end,
    history,
    leased_ids,
    rows,
    running,
    statuses,
    succeeded,
    the_task,
)


async def test_a_drained_session_gets_nothing_more_and_others_all(store: Store) -> None:
    drained, other = await a_processor(store), await a_processor(store)
    ids = await added(store, a_task(), a_task())

    assert await store.drain_processor(NewDrain(drained.session_id, ""))

    assert await leased_ids(store, drained) == []
    assert await leased_ids(store, drained, other) == ids


async def test_what_a_drained_session_holds_it_goes_on_with(store: Store) -> None:
    oven = await a_processor(store)
    (held,) = await running(store, oven, a_task())

    await store.drain_processor(NewDrain(oven.session_id, ""))

    assert await store.keep_alive(Sign(oven.seq, LEASE)) is not None
    assert (await end(store, succeeded(held))).state is TaskState.SUCCEEDED


async def test_a_drain_that_is_repeated_keeps_its_time_and_takes_the_new_reason(
    store: Store, clock: ManualClock
) -> None:
    oven = await a_processor(store)
    began_us = clock.now_us()
    await store.drain_processor(NewDrain(oven.session_id, "one"))
    clock.advance(60)

    assert await store.drain_processor(NewDrain(oven.session_id, "two"))

    found = await rows(store, "SELECT drain_time_us, drain_reason FROM session")
    assert found == [{"drain_time_us": began_us, "drain_reason": "two"}]


async def test_who_takes_a_drained_session_over_learns_of_it(store: Store, reopen: Reopen) -> None:
    oven, other = await a_processor(store), await a_processor(store)
    await store.drain_processor(NewDrain(oven.session_id, "it leaks"))
    (task_id,) = await added(store, a_task())

    again = await reopen()

    found = [await again.take_over(one.session_id) for one in (oven, other)]
    assert [stored and stored.drain_reason for stored in found] == ["it leaks", None]
    assert await leased_ids(again, oven) == []
    assert await leased_ids(again, other) == [task_id]


async def test_a_session_that_has_ended_cannot_be_drained(store: Store) -> None:
    oven = await a_processor(store)
    await store.unregister(oven.seq)

    assert not await store.drain_processor(NewDrain(oven.session_id, ""))
    assert not await store.drain_processor(NewDrain(an_id(), ""))


@pytest.mark.parametrize("times", [1, 4])
async def test_what_a_disconnected_session_held_goes_to_others_at_no_cost_however_often(
    store: Store, times: int
) -> None:
    """More often than its processors may die."""
    (task_id,) = await added(store, a_task(retry=NO_RETRY))
    for _ in range(times):
        oven = await a_processor(store)
        assert await leased_ids(store, oven) == [task_id]
        assert await store.disconnect(oven.seq) == 1

    found = await the_task(store, task_id)
    assert (found.state, found.failed_attempts) == (TaskState.SCHEDULED, 0)
    assert await history(store, task_id) == [(n, Outcome.RELEASED) for n in range(1, times + 1)]
    assert await leased_ids(store, await a_processor(store)) == [task_id]


async def test_a_disconnected_session_has_ended(store: Store) -> None:
    oven = await a_processor(store)
    (held,) = await running(store, oven, a_task())
    await store.disconnect(oven.seq)

    assert await store.keep_alive(Sign(oven.seq, LEASE)) is None
    assert await store.take_over(oven.session_id) is None
    assert statuses(await store.end([succeeded(held)])) == [EndStatus.LEASE_LOST]
    assert await leased_ids(store, oven) == []


async def test_to_disconnect_a_session_again_releases_nothing(store: Store) -> None:
    oven, other = await a_processor(store), await a_processor(store)
    await running(store, oven, a_task(), a_task())
    await running(store, other, a_task())

    assert [await store.disconnect(one.seq) for one in (oven, oven, other)] == [2, 0, 1]
