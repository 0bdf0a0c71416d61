"""Whatever two servers do to the same rows at once, in whichever orders: neither waits for the other in a circle."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import event

from taskq_server.core.task import (
    Assignment,
    DedupConflict,
    EndStatus,
    EnqueueOutcome,
    NewTask,
    Payload,
    Progress,
    TaskState,
)
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.verbs import living
from taskq_server.store.verbs.living import Advance, Sign
from tests.store.conftest import Servers
from tests.store.given import (
    LEASE,
    Processor,
    a_processor,
    a_retry,
    a_task,
    added,
    failed,
    lease,
    outcomes,
    rows,
    running,
    statuses,
    succeeded,
)

MANY = 300
ROUNDS = 4
CREATED, EXISTING = EnqueueOutcome.CREATED, EnqueueOutcome.EXISTING


@dataclass
class Pair:
    """Two servers on one database."""

    here: Postgres
    there: Postgres
    deadlocks: list[str]
    """What either was told by PostgreSQL when it had to undo one of two."""

    async def both(self, verb: str, items: list[Any]) -> tuple[list[Any], list[Any]]:
        """Each does the same at once, in the opposite order."""
        one, other = getattr(self.here, verb), getattr(self.there, verb)
        return await asyncio.gather(one(items), other(items[::-1]))


@pytest.fixture
async def pair(servers: Servers) -> AsyncIterator[Pair]:
    here, there = await servers(2)
    pair = Pair(here, there, [])
    for store in (here, there):

        @event.listens_for(store._engine.sync_engine, "handle_error")
        def note(context: Any) -> None:
            pair.deadlocks.append(str(context.original_exception))

    yield pair
    assert pair.deadlocks == []


async def test_new_ids(pair: Pair) -> None:
    for _ in range(ROUNDS):
        one, other = await pair.both("add", [a_task() for _ in range(MANY)])

        assert Counter(outcomes(one + other)) == {CREATED: MANY, EXISTING: MANY}


async def test_new_routes(pair: Pair) -> None:
    for i in range(ROUNDS):
        names = [f"{i} {number}" for number in range(MANY)]
        tasks, others = ([a_task(name) for name in order] for order in (names, names[::-1]))
        await asyncio.gather(added(pair.here, *tasks), added(pair.there, *others))

    named = await rows(pair.here, "SELECT route_id, name FROM route")
    assert len(named) == len({row["name"] for row in named}) == ROUNDS * MANY
    for store in (pair.here, pair.there):
        await store.look_around()
        assert {number: route.name for number, route in store.routes.items()} == {
            row["route_id"]: row["name"] for row in named
        }


@pytest.mark.parametrize("policy", DedupConflict)
async def test_new_keys(pair: Pair, policy: DedupConflict) -> None:
    for i in range(ROUNDS):
        keys = [f"{i} {number}" for number in range(MANY)]
        tasks, others = ([a_task(key=key, on_conflict=policy) for key in order] for order in (keys, keys[::-1]))
        one, other = await asyncio.gather(pair.here.add(tasks), pair.there.add(others))

        assert Counter(outcomes(one + other))[CREATED] == MANY
        assert {answer.task_id for answer in one} == {answer.task_id for answer in other}


@pytest.mark.parametrize("policy", [DedupConflict.REPLACE, DedupConflict.DEBOUNCE])
async def test_held_keys(pair: Pair, policy: DedupConflict) -> None:
    keys = [f"k{number}" for number in range(MANY)]
    await added(pair.here, *(a_task(key=key) for key in keys))
    for i in range(ROUNDS):
        orders = keys, keys[::-1]
        tasks, others = ([a_task(key=key, on_conflict=policy, due_in=i) for key in order] for order in orders)
        one, other = await asyncio.gather(pair.here.add(tasks), pair.there.add(others))

        assert set(outcomes(one + other)) == {EnqueueOutcome.REPLACED}


def holders(many: int) -> list[NewTask]:
    return [a_task(key=f"k{number}", retry=a_retry(max_attempts=99, initial_delay_us=0)) for number in range(many)]


async def test_keys_that_are_asked_for_while_their_holders_end(pair: Pair) -> None:
    oven = await a_processor(pair.here, slots=MANY)
    for _ in range(ROUNDS):
        held = await running(pair.here, oven, *holders(MANY))
        asked = [a_task(key=f"k{number}", on_conflict=DedupConflict.REPLACE) for number in reversed(range(MANY))]
        ended, answers = await asyncio.gather(pair.here.end([succeeded(one) for one in held]), pair.there.add(asked))

        assert set(statuses(ended)) == {EndStatus.ACCEPTED}
        assert set(outcomes(answers)) <= {CREATED, EXISTING}
        await pair.here.cancel([answer.task_id for answer in answers])


async def test_reports(pair: Pair) -> None:
    oven = await a_processor(pair.here, slots=MANY)
    held = await running(pair.here, oven, *holders(MANY))
    for _ in range(ROUNDS):
        one, other = await pair.both("end", [failed(one) for one in held])

        assert Counter(statuses(one + other)) == {EndStatus.ACCEPTED: MANY, EndStatus.ALREADY_ACCEPTED: MANY}
        held = await _again(pair, oven, held)


async def _again(pair: Pair, oven: Processor, held: list[Assignment]) -> list[Assignment]:
    await pair.here.look_around()
    leased = (await lease(pair.here, oven)).assignments
    assert len(leased) == len(held)
    return leased


async def test_cancels(pair: Pair) -> None:
    for _ in range(ROUNDS):
        ids = await added(pair.here, *(a_task(key=f"k{number}") for number in range(MANY)))
        one, other = await pair.both("cancel", ids)

        before = Counter(answer.state_before for answer in one + other)
        assert before == {TaskState.SCHEDULED: MANY, TaskState.CANCELLED: MANY}


async def test_cancels_and_reports(pair: Pair) -> None:
    oven = await a_processor(pair.here, slots=MANY)
    for _ in range(ROUNDS):
        held = await running(pair.here, oven, *(a_task() for _ in range(MANY)))
        ended, cancelled = await asyncio.gather(
            pair.here.end([succeeded(one) for one in held]), pair.there.cancel([one.task_id for one in held[::-1]])
        )

        won = {ending.task_id for ending in ended if ending.status is EndStatus.ACCEPTED}
        stopped = {
            one.task_id
            for one, answer in zip(held[::-1], cancelled, strict=True)
            if answer.state_before is TaskState.RUNNING
        }
        assert won ^ stopped == {one.task_id for one in held}


async def test_progress(pair: Pair) -> None:
    oven = await a_processor(pair.here, slots=MANY)
    held = await running(pair.here, oven, *(a_task() for _ in range(MANY)))
    for _ in range(ROUNDS):
        await pair.both(
            "save_progress",
            [Advance(oven.seq, one.task_id, one.attempt, Progress(0.5), Payload(b"so far")) for one in held],
        )

    assert await rows(pair.here, "SELECT count(*) AS n FROM task WHERE progress_fraction = 0.5") == [{"n": MANY}]


async def test_signs_of_life(pair: Pair) -> None:
    ovens = [await a_processor(pair.here) for _ in range(60)]
    signs = [Sign(oven.seq, LEASE) for oven in ovens]
    for _ in range(ROUNDS):
        answers = await asyncio.gather(
            pair.here.write(living.keep_alive, signs), pair.there.write(living.keep_alive, signs[::-1])
        )

        assert set(answers[0] + answers[1]) == {pair.here.server_seq}


async def test_goodbyes_and_moves(pair: Pair) -> None:
    for _ in range(ROUNDS):
        ovens = [await a_processor(pair.here, slots=5) for _ in range(20)]
        for oven in ovens:
            await running(pair.here, oven, *(a_task() for _ in range(5)))
        moved, _ = await asyncio.gather(
            pair.there.write(pair.there._take_over, [oven.session_id for oven in ovens]),
            pair.here.write(pair.here._unregister, [oven.seq for oven in ovens[::-1]]),
        )

        assert all(stored is None or len(stored.held) in (0, 5) for stored in moved)
        assert await rows(pair.here, "SELECT count(*) AS n FROM task WHERE state = 2") == [{"n": 0}]
        ids = await rows(pair.here, "SELECT task_id FROM task WHERE state = 1")
        await pair.here.cancel([row["task_id"] for row in ids])
