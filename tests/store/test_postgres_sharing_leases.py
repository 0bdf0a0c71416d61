"""Several servers lease from one database: each task to one of them, and to no session that has ended or moved."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.matching import Demand
from taskq_server.core.task import Outcome, TaskState
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.verbs.living import Sign, StoredSession
from taskq_server.store.verbs.reclaiming import Reclaimed
from tests.store.conftest import Servers
from tests.store.given import (
    LEASE,
    Processor,
    a_processor,
    a_task,
    added,
    history,
    lease,
    leased_ids,
    the_task,
)
from tests.store.rivals import (
    LOCK_SESSION,
    LOCK_TASK,
    Stopped,
    holding,
    is_locked,
    somebody_waits,
    stopped_at,
    stopped_before_commit,
)
from tests.support.console import Console

TAKE = "UPDATE task SET state = 2"


def ids(leased: Any) -> list[bytes]:
    return [one.task_id for one in leased.assignments]


# ── a task to one ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_two_who_lease_at_once_take_different_tasks_and_do_not_wait_for_each_other(servers: Servers) -> None:
    here, there = await servers(2)
    tasks = await added(here, *(a_task() for _ in range(10)))
    await there.look_around()
    slow, quick = await a_processor(here, slots=4), await a_processor(there, slots=10)

    leasing = await stopped_before_commit(here, "_lease", lambda: lease(here, slow))
    taken_there = await leased_ids(there, quick)
    taken_here = ids(await leasing.goes_on())

    assert (taken_here, taken_there) == (tasks[:4], tasks[4:])


async def test_however_many_lease_at_once_each_task_is_leased_once_and_none_is_left(servers: Servers) -> None:
    stores = await servers(3)
    tasks = await added(stores[0], *(a_task(priority=i % 3) for i in range(300)))
    ovens = [await a_processor(store, slots=7) for store in stores]
    leased: list[bytes] = []

    async def work(store: Postgres, oven: Processor) -> None:
        while True:
            await store.look_around()
            found = await leased_ids(store, oven)
            if not found and store.next_due_us(store.routes) is None:
                break
            leased.extend(found)

    await asyncio.gather(*(work(store, oven) for store, oven in zip(stores, ovens, strict=True)))

    assert sorted(leased) == sorted(tasks)


async def test_a_lease_passes_over_a_task_that_another_has_locked_and_the_next_look_finds_it(
    servers: Servers, console: Console
) -> None:
    (here,) = await servers(1)
    locked, free = await added(here, a_task(priority=9), a_task())
    oven = await a_processor(here)

    with holding(console, LOCK_TASK, locked):
        assert await leased_ids(here, oven) == [free]

    await here.look_around()
    assert await leased_ids(here, oven) == [locked]


async def test_a_lease_locks_no_more_tasks_than_it_takes(servers: Servers, console: Console) -> None:
    (here,) = await servers(1)
    tasks = await added(here, *(a_task(priority=5 if i < 2 else 1) for i in range(8)), a_task(due_in=1))
    oven = await a_processor(here, slots=3)

    leasing = await stopped_before_commit(here, "_lease", lambda: lease(here, oven))

    assert [is_locked(console, LOCK_TASK, task_id) for task_id in tasks] == [True] * 3 + [False] * 6
    assert ids(await leasing.goes_on()) == tasks[:3]


async def test_a_lease_that_is_undone_leaves_its_tasks_to_others(servers: Servers) -> None:
    here, there = await servers(2)
    (task_id,) = await added(here, a_task())
    oven, hob = await a_processor(here), await a_processor(there)
    verb = here._lease

    def lease_and_fail(tx: Any, items: list[Any]) -> list[Any]:
        verb(tx, items)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await here.write(lease_and_fail, [Demand([oven.seats(here)])])
    await there.look_around()

    assert await leased_ids(there, hob) == [task_id]
    assert (await the_task(here, task_id)).attempt == 1


# ── to no session that has ended or moved ────────────────────────────────────────────────────────────────────────────

Leave = Callable[[Postgres, Processor], Awaitable[Any]]


async def unregisters(store: Postgres, session: Processor) -> None:
    await store.unregister(session.seq)


async def is_reclaimed(store: Postgres, session: Processor) -> Reclaimed:
    return await store.reclaim()


async def moves(store: Postgres, session: Processor) -> StoredSession | None:
    return await store.take_over(session.session_id)


async def a_lease_to(here: Postgres, session: Processor, *, after: bool) -> Stopped:
    """A lease that has locked what is due, and gives it to a session next; or `after` it has."""
    return await stopped_at(here, TAKE, lease(here, session), after=after)


@pytest.mark.parametrize("leaves", [unregisters, is_reclaimed, moves])
async def test_a_session_that_leaves_before_it_is_given_a_task_gets_none(
    servers: Servers, clock: ManualClock, leaves: Leave
) -> None:
    here, there = await servers(2)
    (task_id,) = await added(here, a_task())
    session = await a_processor(here, alive_until=clock.now_us() + LEASE)
    clock.advance(us=LEASE)

    leasing = await a_lease_to(here, session, after=False)
    await leaves(there, session)
    leased = await leasing.goes_on()

    assert ids(leased) == []
    task = await the_task(there, task_id)
    assert (task.state, task.attempt) == (TaskState.SCHEDULED, 0)
    assert here.next_due_us(here.routes) is not None, "it is still known to be due"
    assert await leased_ids(here, await a_processor(here)) == [task_id]


async def test_a_session_that_unregisters_while_it_is_given_a_task_gives_it_back(
    servers: Servers, console: Console
) -> None:
    here, there = await servers(2)
    (task_id,) = await added(here, a_task())
    session = await a_processor(here)

    leasing = await a_lease_to(here, session, after=True)
    leaving = asyncio.create_task(there.unregister(session.seq))
    await somebody_waits(console)
    leased = await leasing.goes_on()
    await leaving

    assert ids(leased) == [task_id]
    assert (await the_task(there, task_id)).state is TaskState.SCHEDULED
    assert await history(there, task_id) == [(1, Outcome.RELEASED)]


async def test_a_session_that_moves_while_it_is_given_a_task_takes_it_along(servers: Servers, console: Console) -> None:
    here, there = await servers(2)
    (task_id,) = await added(here, a_task())
    session = await a_processor(here)

    leasing = await a_lease_to(here, session, after=True)
    moving = asyncio.create_task(there.take_over(session.session_id))
    await somebody_waits(console)
    await leasing.goes_on()
    stored = await moving

    assert stored is not None
    assert [(held.task_id, held.attempt) for held in stored.held] == [(task_id, 1)]


async def test_a_session_that_is_being_given_a_task_is_not_reclaimed_in_that_instant(
    servers: Servers, clock: ManualClock
) -> None:
    here, there = await servers(2)
    (task_id,) = await added(here, a_task())
    session = await a_processor(here, alive_until=clock.now_us() + LEASE)
    clock.advance(us=LEASE)

    leasing = await a_lease_to(here, session, after=True)
    reclaimed = await there.reclaim()
    await leasing.goes_on()

    assert reclaimed.dead == []
    assert reclaimed.next_us is not None and reclaimed.next_us <= clock.now_us(), "it comes back at once"
    assert (await there.reclaim()).dead == [session.seq]
    assert await history(there, task_id) == [(1, Outcome.LOST)]


async def test_of_several_sessions_only_the_one_that_has_left_gets_nothing(servers: Servers) -> None:
    here, there = await servers(2)
    tasks = await added(here, *(a_task() for _ in range(4)))
    gone, stays = await a_processor(here, slots=2), await a_processor(here, slots=2)

    leasing = await stopped_at(here, TAKE, lease(here, gone, stays))
    await there.unregister(gone.seq)
    leased = (await leasing.goes_on()).assignments

    assert {one.session_seq for one in leased} == {stays.seq}
    assert len(leased) == 2
    left = await leased_ids(here, await a_processor(here))
    assert sorted([one.task_id for one in leased] + left) == sorted(tasks)


async def test_a_session_lives_on_while_it_is_given_a_task(servers: Servers) -> None:
    here, there = await servers(2)
    await added(here, a_task())
    session = await a_processor(here)

    leasing = await a_lease_to(here, session, after=True)

    assert await there.keep_alive(Sign(session.seq, LEASE)) == here.server_seq
    assert not leasing.done
    assert len(ids(await leasing.goes_on())) == 1


async def test_a_lease_waits_for_no_session_that_is_heard_of(servers: Servers, console: Console) -> None:
    here, there = await servers(2)
    (task_id,) = await added(here, a_task())
    session = await a_processor(here)

    hearing = await stopped_at(there, "UPDATE session", there.keep_alive(Sign(session.seq, LEASE)), after=True)

    assert await leased_ids(here, session) == [task_id]
    assert await hearing.goes_on() == here.server_seq
    assert not is_locked(console, LOCK_SESSION, session.seq)


async def test_a_server_leases_only_to_sessions_of_its_own(servers: Servers) -> None:
    here, there = await servers(2)
    (task_id,) = await added(here, a_task())
    await there.look_around()
    session = await a_processor(here)

    assert await leased_ids(there, session) == []
    assert await there.take_over(session.session_id) is not None
    assert await leased_ids(here, session) == []
    assert await leased_ids(there, session) == [task_id]
