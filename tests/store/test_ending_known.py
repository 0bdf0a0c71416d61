"""A success whose task's number is still known is written without reading its row first, which nobody notices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.task import Assignment, Ending, EndStatus
from taskq_server.store.store import Store
from tests.store.conftest import RULES
from tests.store.given import (
    a_processor,
    a_task,
    end,
    failed,
    lease,
    released,
    rows,
    running,
    seconds,
    statements,
    statuses,
    succeeded,
)

ACCEPTED, ALREADY, LOST = EndStatus.ACCEPTED, EndStatus.ALREADY_ACCEPTED, EndStatus.LEASE_LOST


def unknown(ending: Ending) -> Ending:
    return replace(ending, seq=None)


def as_it_is(ending: Ending) -> Ending:
    return ending


@pytest.mark.parametrize("knowing", [as_it_is, unknown], ids=["known", "unknown"])
async def test_the_row_says_the_same_whether_its_number_was_known(
    store: Store, clock: ManualClock, knowing: Callable[[Ending], Ending]
) -> None:
    tasks = a_task(run_timeout=seconds(60)), a_task(retention=seconds(5)), a_task()
    first, second, third = await running(store, await a_processor(store), *tasks)
    clock.advance(us=seconds(1))

    endings = succeeded(first, b"42"), succeeded(second), succeeded(third, b"")
    assert statuses(await store.end([knowing(one) for one in endings])) == [ACCEPTED] * 3

    now = clock.now_us()
    retention = RULES.retention_us
    assert await rows(
        store,
        "SELECT state, finish_time_us, prune_time_us, run_deadline_us, last_outcome, result FROM task ORDER BY seq",
    ) == [
        dict(zip(_SEEN, values, strict=True))
        for values in (
            (3, now, now + retention, None, 1, b"42"),
            (3, now, now + seconds(5), None, 1, None),
            (3, now, now + retention, None, 1, b""),
        )
    ]


_SEEN = "state", "finish_time_us", "prune_time_us", "run_deadline_us", "last_outcome", "result"


async def test_a_batch_of_known_successes_reads_no_row(store: Store) -> None:
    assignments = await running(store, await a_processor(store, slots=50), *(a_task() for _ in range(50)))

    with statements() as said:
        await store.end([succeeded(one) for one in assignments])

    assert len(said) > 0
    assert not [statement for statement in said if "SELECT" in statement and "FROM task" in statement]


async def test_one_that_has_lost_its_lease_does_not_cost_the_others_theirs(store: Store) -> None:
    oven = await a_processor(store, slots=5)
    first, second, third = await running(store, oven, a_task(), a_task(), a_task())
    await end(store, released(second))
    (again,) = (await lease(store, oven)).assignments

    ended = await store.end([succeeded(first), succeeded(second), succeeded(third)])

    assert statuses(ended) == [ACCEPTED, LOST, ACCEPTED]
    await end(store, succeeded(again))


async def test_said_twice_at_once_it_is_accepted_and_then_already_accepted(store: Store) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())

    assert statuses(await store.end([succeeded(assignment), succeeded(assignment)])) == [ACCEPTED, ALREADY]


async def test_of_two_words_at_once_the_first_counts(store: Store) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())

    assert statuses(await store.end([failed(assignment, retryable=False), succeeded(assignment)])) == [ACCEPTED, LOST]
    assert (await rows(store, "SELECT state FROM task")) == [{"state": 4}]


@pytest.mark.parametrize("forge", [lambda one: replace(one, attempt=2), lambda one: replace(one, session_seq=99)])
async def test_a_known_number_opens_no_fence(store: Store, forge: Callable[[Ending], Ending]) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())

    assert statuses(await store.end([forge(succeeded(assignment))])) == [LOST]
    await end(store, succeeded(assignment))


async def test_a_key_is_free_again_though_the_number_of_its_holder_was_known(store: Store) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task(key="k"))

    await end(store, _told_its_number(assignment))

    assert await rows(store, "SELECT * FROM dedup") == []


def _told_its_number(assignment: Assignment) -> Ending:
    return replace(succeeded(assignment), seq=assignment.seq)
