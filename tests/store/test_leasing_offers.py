"""Whoever stores what is due leases it in the same transaction, to seats that are on offer."""

from __future__ import annotations

from typing import Any

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.matching import Demand
from taskq_server.core.task import DedupConflict
from taskq_server.store.store import Store
from taskq_server.store.verbs.leasing import Leased
from tests.store.given import (
    Processor,
    a_processor,
    a_task,
    added,
    end,
    lease,
    leased_ids,
    rows,
    seconds,
    statements,
    succeeded,
)


class Offered:
    """An offer of a processor's seats, and what came of it."""

    def __init__(self, store: Store, processor: Processor, slots: int | None = None, ahead: int = 0) -> None:
        self.settled: list[Leased | None] = []
        self.offer = store.offer(Demand([processor.seats(store, slots)], ahead), self.settled.append)

    async def taken(self) -> list[bytes]:
        """The tasks that were leased by it."""
        await self.offer.withdraw()
        return [one.task_id for leased in self.settled if leased is not None for one in leased.assignments]


async def a_known_processor(store: Store) -> Processor:
    """One whose route the store knows: an offer can only be of routes that are known."""
    processor = await a_processor(store)
    await added(store, a_task())
    (first,) = (await lease(store, processor)).assignments
    await end(store, succeeded(first))
    return processor


async def test_what_is_due_is_stored_and_leased_by_one_commit(store: Store) -> None:
    oven = await a_known_processor(store)
    offered = Offered(store, oven)

    with statements() as said:
        ids = await added(store, a_task(), a_task())

    assert await offered.taken() == ids
    assert len([statement for statement in said if "BEGIN" in statement or "pg_current_xact_id" in statement]) == 1
    assert store.next_due_us(store.routes) is None, "and nothing calls for another look"


async def test_an_offer_is_taken_once_and_only_for_as_many_seats_as_it_has(store: Store) -> None:
    oven = await a_known_processor(store)
    offered = Offered(store, oven, slots=2)

    first = await added(store, *(a_task() for _ in range(3)))
    (later,) = await added(store, a_task())

    assert await offered.taken() == first[:2]
    assert len(offered.settled) == 1
    assert await leased_ids(store, oven) == [first[2], later]


async def test_what_was_withdrawn_is_not_taken(store: Store) -> None:
    oven = await a_known_processor(store)
    offered = Offered(store, oven)
    await offered.offer.withdraw()

    (task_id,) = await added(store, a_task())

    assert offered.settled == []
    assert await leased_ids(store, oven) == [task_id]


async def test_what_is_due_later_leaves_the_offer_as_it_is(store: Store, clock: ManualClock) -> None:
    oven = await a_known_processor(store)
    offered = Offered(store, oven, ahead=seconds(1))

    await added(store, a_task(due_in=seconds(1) + 1))
    assert offered.settled == []
    (soon,) = await added(store, a_task(due_in=seconds(1)))

    assert await offered.taken() == [soon]
    assert (await rows(store, "SELECT lease_time_us FROM task WHERE state = 2")) == [
        {"lease_time_us": clock.now_us() + seconds(1)}
    ]


async def test_more_urgent_tasks_that_wait_already_come_first(store: Store) -> None:
    oven = await a_known_processor(store)
    (waits,) = await added(store, a_task(priority=5))
    offered = Offered(store, oven, slots=1)

    (new,) = await added(store, a_task())

    assert await offered.taken() == [waits]
    assert await leased_ids(store, oven) == [new]


async def test_a_transaction_that_fails_settles_the_offer_and_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    oven = await a_known_processor(store)
    offered = Offered(store, oven)

    def fail(*_: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr(type(store._sql), "take", fail)  # type: ignore[attr-defined]
        await store.add([a_task()])

    assert await offered.taken() == []
    assert offered.settled == [None]
    assert await rows(store, "SELECT * FROM task WHERE state <> 3") == []
    (task_id,) = await added(store, a_task())
    assert await leased_ids(store, oven) == [task_id]


async def test_the_seats_of_a_processor_that_has_ended_are_not_given_away(store: Store) -> None:
    oven = await a_known_processor(store)
    offered = Offered(store, oven)
    await store.unregister(oven.seq)

    await added(store, a_task())

    assert await offered.taken() == []
    assert await rows(store, "SELECT state FROM task WHERE state = 2") == []


async def test_who_may_have_locked_the_tasks_of_others_takes_no_offer(store: Store) -> None:
    oven = await a_known_processor(store)
    offered = Offered(store, oven)

    await store.add([a_task(key="k", on_conflict=DedupConflict.REPLACE)])

    assert offered.settled == []
    assert len(await leased_ids(store, oven)) == 1
