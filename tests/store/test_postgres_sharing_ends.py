"""Several servers end attempts at once: each ends once, by whoever was first, and everybody else is told so."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from typing import Any

from taskq_server.clock import ManualClock
from taskq_server.core.task import EndStatus, Outcome, TaskState
from taskq_server.store.verbs.living import Sign
from taskq_server.store.verbs.pruning import MOST_TASKS_PER_PRUNE
from tests.store.conftest import Servers
from tests.store.given import (
    LEASE,
    a_processor,
    a_retry,
    a_task,
    added,
    days,
    end,
    failed,
    history,
    lease,
    leased_ids,
    rows,
    running,
    seconds,
    statuses,
    succeeded,
    the_task,
)
from tests.store.rivals import LOCK_SESSION, LOCK_TASK, holding, somebody_waits, stopped_at, stopped_before_commit
from tests.support.console import Console

KEPT = a_retry(max_attempts=99, initial_delay_us=0)


async def after(turns: int, work: Awaitable[Any]) -> Any:
    for _ in range(turns):
        await asyncio.sleep(0)
    return await work


# ── a report, a cancel, a reclaim ────────────────────────────────────────────────────────────────────────────────────


async def test_a_cancel_that_comes_while_a_report_is_written_is_too_late(servers: Servers, console: Console) -> None:
    here, there = await servers(2)
    (held,) = await running(here, await a_processor(here), a_task())

    reporting = await stopped_before_commit(here, "_end", lambda: here.end([succeeded(held)]))
    cancelling = asyncio.create_task(there.cancel([held.task_id]))
    await somebody_waits(console)

    assert statuses(await reporting.goes_on()) == [EndStatus.ACCEPTED]
    assert [answer.state_before for answer in await cancelling] == [TaskState.SUCCEEDED]


async def test_a_report_that_comes_while_a_cancel_is_written_is_too_late(servers: Servers, console: Console) -> None:
    here, there = await servers(2)
    (held,) = await running(here, await a_processor(here), a_task())

    cancelling = await stopped_before_commit(there, "_cancel", lambda: there.cancel([held.task_id]))
    reporting = asyncio.create_task(here.end([succeeded(held)]))
    await somebody_waits(console)

    assert [answer.state_before for answer in await cancelling.goes_on()] == [TaskState.RUNNING]
    assert statuses(await reporting) == [EndStatus.LEASE_LOST]
    assert (await the_task(here, held.task_id)).state is TaskState.CANCELLED


async def test_the_same_report_at_two_servers_is_accepted_once(servers: Servers, console: Console) -> None:
    here, there = await servers(2)
    (held,) = await running(here, await a_processor(here), a_task(retry=KEPT))

    first = await stopped_before_commit(here, "_end", lambda: here.end([failed(held)]))
    second = asyncio.create_task(there.end([failed(held)]))
    await somebody_waits(console)

    assert statuses(await first.goes_on()) == [EndStatus.ACCEPTED]
    assert statuses(await second) == [EndStatus.ALREADY_ACCEPTED]
    assert await history(here, held.task_id) == [(1, Outcome.FAILED)]


async def test_an_attempt_that_is_being_reported_does_not_run_into_its_timeout(
    servers: Servers, clock: ManualClock
) -> None:
    here, there = await servers(2)
    reported, slow = await running(
        here, await a_processor(here), *(a_task(run_timeout=seconds(1), retry=KEPT) for _ in range(2))
    )
    clock.advance(1)

    reporting = await stopped_before_commit(here, "_end", lambda: here.end([succeeded(reported)]))
    reclaimed = await there.reclaim()

    assert [held.task_id for held in reclaimed.timed_out] == [slow.task_id]
    assert reclaimed.next_us is not None and reclaimed.next_us <= clock.now_us(), "should the report be undone"
    assert statuses(await reporting.goes_on()) == [EndStatus.ACCEPTED]
    assert (await there.reclaim()).timed_out == []


async def test_what_a_dead_session_has_just_reported_is_not_taken_back(servers: Servers, clock: ManualClock) -> None:
    here, there = await servers(2)
    session = await a_processor(here, alive_until=clock.now_us() + LEASE)
    reported, lost = await running(here, session, a_task(), a_task())
    clock.advance(us=LEASE)

    reporting = await stopped_before_commit(here, "_end", lambda: here.end([succeeded(reported)]))
    assert (await there.reclaim()).dead == [], "whoever reports is at the session"

    assert statuses(await reporting.goes_on()) == [EndStatus.ACCEPTED]
    assert (await there.reclaim()).dead == [session.seq]
    assert (await the_task(here, reported.task_id)).state is TaskState.SUCCEEDED
    assert await history(here, lost.task_id) == [(1, Outcome.LOST)]


async def test_a_session_that_is_being_heard_of_in_the_last_instant_lives(servers: Servers, clock: ManualClock) -> None:
    here, there = await servers(2)
    session = await a_processor(here, alive_until=clock.now_us() + LEASE)
    other = await a_processor(here, alive_until=clock.now_us() + LEASE)
    clock.advance(us=LEASE)

    hearing = await stopped_at(here, "UPDATE session", here.keep_alive(Sign(session.seq, LEASE)), after=True)
    reclaimed = await there.reclaim()

    assert reclaimed.dead == [other.seq]
    assert await hearing.goes_on() == here.server_seq
    assert (await there.reclaim()).dead == []


async def test_however_reports_cancels_and_reclaims_race_each_attempt_ends_once(
    servers: Servers, clock: ManualClock
) -> None:
    here, there, elsewhere = await servers(3)
    for i in range(20):
        session = await a_processor(here, alive_until=clock.now_us() + seconds(1))
        held = await running(here, session, *(a_task(run_timeout=seconds(1), retry=KEPT) for _ in range(6)))
        clock.advance(1)

        reported, cancelled, reclaimed = await asyncio.gather(
            after(i % 5, here.end([succeeded(one) for one in held[:4]])),
            after(i % 3, there.cancel([one.task_id for one in held[2:]])),
            after(i % 7, elsewhere.reclaim()),
        )

        ends = Counter(one.task_id for one in reported if one.status is EndStatus.ACCEPTED)
        for one, answer in zip(held[2:], cancelled, strict=True):
            ends[one.task_id] += answer.state_before is TaskState.RUNNING
        ended = await rows(here, "SELECT task_id, attempt, state FROM task WHERE session_seq = :seq", seq=session.seq)
        taken_back = await rows(
            here,
            "SELECT task_id, outcome FROM attempt JOIN task ON task_seq = seq WHERE attempt.session_seq = :seq",
            seq=session.seq,
        )
        ends.update(row["task_id"] for row in taken_back)
        assert ends == dict.fromkeys((one.task_id for one in held), 1)
        assert {row["attempt"] for row in ended} == {1}
        assert all(row["state"] != TaskState.RUNNING for row in ended)
        assert reclaimed.dead in ([], [session.seq])
        await there.reclaim()
        await here.cancel([one.task_id for one in held])


# ── what housekeepers do at once ─────────────────────────────────────────────────────────────────────────────────────


async def test_two_who_reclaim_at_once_take_each_thing_back_once(servers: Servers, clock: ManualClock) -> None:
    here, there = await servers(2)
    dying = await a_processor(here, alive_until=clock.now_us() + LEASE)
    living = await a_processor(here)
    (lost,) = await running(here, dying, a_task())
    (timed_out,) = await running(here, living, a_task(run_timeout=LEASE, retry=KEPT))
    (expired,) = await added(here, a_task(due_in=days(1), expires_at=clock.now_us() + LEASE))
    clock.advance(us=LEASE)

    first = await stopped_before_commit(here, "_reclaim", here.reclaim)
    second = await there.reclaim()
    reclaimed = await first.goes_on()

    assert (second.dead, second.timed_out) == ([], [])
    assert reclaimed.dead == [dying.seq]
    assert [held.task_id for held in reclaimed.timed_out] == [timed_out.task_id]
    assert await history(here, lost.task_id) == [(1, Outcome.LOST)]
    assert await history(here, timed_out.task_id) == [(1, Outcome.TIMED_OUT)]
    assert (await the_task(here, expired)).state is TaskState.FAILED
    assert ((await there.reclaim()).dead, (await here.reclaim()).dead) == ([], [])


async def test_however_many_reclaim_at_once_nobody_is_reclaimed_twice(servers: Servers, clock: ManualClock) -> None:
    stores = await servers(3)
    dying = [await a_processor(stores[i % 3], alive_until=clock.now_us() + LEASE) for i in range(12)]
    for i, session in enumerate(dying):
        await running(stores[i % 3], session, a_task(), a_task())
    clock.advance(us=LEASE)

    reclaimed = [one for _ in range(3) for one in await asyncio.gather(*(store.reclaim() for store in stores))]

    assert sorted(seq for one in reclaimed for seq in one.dead) == sorted(session.seq for session in dying)
    assert await rows(stores[0], "SELECT count(*) AS n FROM attempt WHERE outcome = 5") == [{"n": 24}]


async def test_what_one_is_leasing_another_does_not_expire(servers: Servers, clock: ManualClock) -> None:
    here, there = await servers(2)
    (task_id,) = await added(here, a_task(expires_at=clock.now_us() + 5))
    oven = await a_processor(here)

    leasing = await stopped_before_commit(here, "_lease", lambda: leased_ids(here, oven))
    clock.advance(us=5)
    reclaimed = await there.reclaim()

    assert reclaimed.next_us is not None and reclaimed.next_us <= clock.now_us(), "should the lease be undone"
    assert await leasing.goes_on() == [task_id]
    await there.reclaim()
    assert (await the_task(here, task_id)).state is TaskState.RUNNING


async def test_two_who_prune_at_once_prune_different_tasks(servers: Servers, clock: ManualClock) -> None:
    here, there = await servers(2)
    oven = await a_processor(here, slots=2_000)
    many = MOST_TASKS_PER_PRUNE + 100
    held = await running(here, oven, *(a_task(retry=KEPT, retention=0) for _ in range(many)))
    await here.end([failed(one) for one in held])
    await here.end([succeeded(one) for one in (await lease(here, oven)).assignments])

    first = await stopped_at(here, "DELETE FROM session", here.prune(0), after=True)
    second = await there.prune(0)

    assert (second.tasks, (await first.goes_on()).tasks) == (100, MOST_TASKS_PER_PRUNE)
    assert (await here.prune(0)).tasks == 0
    assert await rows(here, "SELECT count(*) AS n FROM task") == [{"n": 0}]
    assert await rows(here, "SELECT count(*) AS n FROM attempt") == [{"n": 0}]


async def test_pruning_waits_for_nobody(servers: Servers, console: Console, clock: ManualClock) -> None:
    (here,) = await servers(1)
    session = await a_processor(here)
    one, other = await running(here, session, a_task(retention=0), a_task(retention=0))
    await end(here, succeeded(one))
    await end(here, succeeded(other))
    await here.unregister(session.seq)
    clock.advance(us=days(9))

    with (
        holding(console, LOCK_TASK, one.task_id),
        Console(console.url) as another,
        holding(another, LOCK_SESSION, session.seq),
    ):
        assert (await here.prune(0)).tasks == 1

    assert (await here.prune(0)).tasks == 1
    assert await rows(here, "SELECT * FROM session") == []
