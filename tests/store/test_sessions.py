"""Sessions: who lives, until when, and what becomes of what the dead held."""

from __future__ import annotations

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.task import RUN_TIMEOUT, EndStatus, Outcome, TaskState
from taskq_server.store.few import MOST_AT_ONCE
from taskq_server.store.store import Store
from taskq_server.store.verbs.living import Grace, Sign
from tests.store.given import (
    LEASE,
    NO_RETRY,
    a_processor,
    a_retry,
    a_task,
    added,
    end,
    failed,
    history,
    lease,
    leased_ids,
    living_sessions,
    minutes,
    released,
    rows,
    running,
    seconds,
    statuses,
    succeeded,
    the_task,
)


async def test_every_registration_is_a_new_session_though_the_name_is_the_same(store: Store) -> None:
    first = await a_processor(store, name="oven")
    second = await a_processor(store, name="oven")
    await store.unregister(first.seq)
    third = await a_processor(store, name="oven")

    assert len({first.seq, second.seq, third.seq}) == 3


async def test_the_number_of_a_session_is_never_used_again(store: Store, clock: ManualClock, reopen) -> None:  # type: ignore[no-untyped-def]
    gone = await a_processor(store)
    await store.unregister(gone.seq)
    clock.advance(9)
    await store.prune(0)
    assert await rows(store, "SELECT * FROM session") == []

    again = await reopen()

    assert (await a_processor(again)).seq > gone.seq


# ── living and dying ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_lives_until_the_last_microsecond_of_its_lease_and_no_longer(
    store: Store, clock: ManualClock
) -> None:
    oven = await a_processor(store, alive_until=clock.now_us() + LEASE)
    clock.advance(us=LEASE - 1)
    alive = await store.reclaim()
    clock.advance(us=1)
    dead = await store.reclaim()

    assert (alive.dead, alive.next_us) == ([], clock.now_us())
    assert (dead.dead, dead.next_us) == ([oven.seq], None)


async def test_the_tasks_of_a_dead_session_run_elsewhere(store: Store, clock: ManualClock) -> None:
    dying = await a_processor(store, alive_until=clock.now_us() + LEASE)
    ids = [one.task_id for one in await running(store, dying, *(a_task() for _ in range(3)))]
    clock.advance(us=LEASE)

    await store.reclaim()

    assert sorted(await leased_ids(store, await a_processor(store))) == sorted(ids)
    assert await history(store, ids[0]) == [(1, Outcome.LOST)]


async def test_however_many_die_at_once_all_of_them_are_reclaimed(store: Store, clock: ManualClock) -> None:
    dying = [await a_processor(store, name=f"p{i}", alive_until=clock.now_us() + LEASE) for i in range(7)]
    await added(store, *(a_task() for _ in range(MOST_AT_ONCE + 100)))
    await lease(store, *dying)
    clock.advance(us=LEASE)

    reclaimed = await store.reclaim()

    assert sorted(reclaimed.dead) == [one.seq for one in dying]
    assert await rows(store, "SELECT count(*) AS n FROM task WHERE state = 2") == [{"n": 0}]


async def test_one_sign_of_life_keeps_all_that_a_session_holds(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store, alive_until=clock.now_us() + LEASE)
    held = await running(store, oven, *(a_task() for _ in range(3)))
    for _ in range(10):
        clock.advance(us=LEASE - 1)
        assert await store.keep_alive(Sign(oven.seq, LEASE)) == store.server_seq
        assert (await store.reclaim()).dead == []

    assert statuses(await store.end([succeeded(one) for one in held])) == [EndStatus.ACCEPTED] * 3


async def test_a_sign_of_life_never_shortens_a_lease(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store, alive_until=clock.now_us() + LEASE)

    assert await store.keep_alive(Sign(oven.seq, 1)) == store.server_seq

    clock.advance(us=LEASE - 1)
    assert (await store.reclaim()).dead == []


async def test_a_late_sign_of_life_counts_as_long_as_nobody_has_ended_the_session(
    store: Store, clock: ManualClock
) -> None:
    oven = await a_processor(store, alive_until=clock.now_us() + LEASE)
    clock.advance(us=2 * LEASE)

    assert await store.keep_alive(Sign(oven.seq, LEASE)) == store.server_seq
    assert (await store.reclaim()).dead == []


@pytest.mark.parametrize("how", ["reclaimed", "unregistered"])
async def test_an_ended_session_is_never_revived(store: Store, clock: ManualClock, how: str) -> None:
    oven = await a_processor(store, alive_until=clock.now_us() + LEASE)
    clock.advance(us=LEASE)
    await (store.reclaim() if how == "reclaimed" else store.unregister(oven.seq))

    assert await store.keep_alive(Sign(oven.seq, LEASE)) is None
    await store.spare(Grace(LEASE))

    assert await living_sessions(store) == []


async def test_an_unknown_session_does_not_live(store: Store) -> None:
    assert await store.keep_alive(Sign(99, LEASE)) is None


async def test_signs_of_life_that_share_a_commit_are_answered_each_for_itself(store: Store, clock: ManualClock) -> None:
    import asyncio

    oven, gone = await a_processor(store), await a_processor(store)
    await store.unregister(gone.seq)

    answers = await asyncio.gather(*(store.keep_alive(Sign(seq, 1)) for seq in (oven.seq, gone.seq, 99, oven.seq)))

    assert answers == [store.server_seq, None, None, store.server_seq]


async def test_to_spare_is_to_let_no_session_end_before_then(store: Store, clock: ManualClock) -> None:
    late = await a_processor(store, alive_until=clock.now_us() + 1)
    long = await a_processor(store, alive_until=clock.now_us() + minutes(9))
    clock.advance(us=seconds(60))

    await store.spare(Grace(LEASE))

    assert (await store.reclaim()).dead == []
    clock.advance(us=LEASE)
    assert (await store.reclaim()).dead == [late.seq]
    clock.advance(us=minutes(9))
    assert (await store.reclaim()).dead == [long.seq]


# ── goodbye ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_that_says_goodbye_gives_back_what_it_holds_at_no_cost(
    store: Store, clock: ManualClock
) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task(retry=NO_RETRY))
    clock.advance(5)

    await store.unregister(oven.seq)

    task = await the_task(store, assignment.task_id)
    assert (task.state, task.failed_attempts) == (TaskState.SCHEDULED, 0)
    assert task.due_time_us == assignment.due_time_us
    assert await history(store, assignment.task_id) == [(1, Outcome.RELEASED)]
    assert statuses(await store.end([succeeded(assignment)])) == [EndStatus.LEASE_LOST]


async def test_to_say_goodbye_twice_is_to_say_it_once(store: Store) -> None:
    oven = await a_processor(store)
    await store.unregister(oven.seq)
    await store.unregister(oven.seq)
    await store.unregister(99)

    assert await living_sessions(store) == []


# ── run timeouts ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_attempt_may_run_for_its_run_timeout_and_not_a_microsecond_longer(
    store: Store, clock: ManualClock
) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task(run_timeout=seconds(10), retry=a_retry(initial_delay_us=0)))
    clock.advance(us=seconds(10) - 1)
    before = await store.reclaim()
    clock.advance(us=1)
    after = await store.reclaim()

    assert (before.timed_out, before.next_us) == ([], clock.now_us())
    assert [(held.session_seq, held.task_id, held.attempt, held.name) for held in after.timed_out] == [
        (oven.seq, assignment.task_id, 1, "cook")
    ]
    assert after.dead == []
    task = await the_task(store, assignment.task_id)
    assert (task.state, task.failed_attempts) == (TaskState.SCHEDULED, 1)
    assert task.last_failure is not None
    assert (task.last_failure.error_type, task.last_failure.attempt) == (RUN_TIMEOUT, 1)
    assert await history(store, assignment.task_id) == [(1, Outcome.TIMED_OUT)]
    assert statuses(await store.end([succeeded(assignment)])) == [EndStatus.LEASE_LOST]


async def test_each_attempt_has_its_run_timeout_anew(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    await added(store, a_task(run_timeout=seconds(10), retry=a_retry(initial_delay_us=0)))
    await lease(store, oven)
    clock.advance(10)
    await store.reclaim()
    clock.advance(3)
    await lease(store, oven)
    clock.advance(us=seconds(10) - 1)
    assert (await store.reclaim()).timed_out == []
    clock.advance(us=1)
    assert len((await store.reclaim()).timed_out) == 1


@pytest.mark.parametrize("word", [succeeded, failed, released])
async def test_only_what_runs_has_a_deadline(store: Store, clock: ManualClock, word) -> None:  # type: ignore[no-untyped-def]
    (assignment,) = await running(store, await a_processor(store), a_task(run_timeout=seconds(10)))
    deadlines = "SELECT run_deadline_us FROM task"
    assert await rows(store, deadlines) == [{"run_deadline_us": clock.now_us() + seconds(10)}]

    await end(store, word(assignment))

    assert await rows(store, deadlines) == [{"run_deadline_us": None}]


async def test_a_task_that_runs_no_more_runs_into_no_timeout(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task(run_timeout=seconds(10)))
    await end(store, succeeded(assignment))
    clock.advance(99)

    reclaimed = await store.reclaim()

    assert (reclaimed.timed_out, (await the_task(store, assignment.task_id)).state) == ([], TaskState.SUCCEEDED)


async def test_a_timeout_is_no_lost_lease_and_counts_as_a_failure(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    policy = a_retry(max_attempts=5, initial_delay_us=0)
    (assignment,) = await running(store, oven, a_task(run_timeout=seconds(1), retry=policy))
    for _ in range(5):
        clock.advance(1)
        await store.reclaim()
        await lease(store, oven)

    task = await the_task(store, assignment.task_id)
    assert (task.state, task.failed_attempts, task.attempt) == (TaskState.FAILED, 5, 5)


async def test_more_timeouts_than_fit_into_one_round_say_to_come_back_at_once(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store, slots=MOST_AT_ONCE * 2)
    await added(store, *(a_task(run_timeout=seconds(1), retry=NO_RETRY) for _ in range(MOST_AT_ONCE + 10)))
    await lease(store, oven)
    clock.advance(1)

    first = await store.reclaim()
    second = await store.reclaim()

    assert first.next_us is not None and first.next_us <= clock.now_us()
    assert len(first.timed_out) + len(second.timed_out) == MOST_AT_ONCE + 10
    assert await rows(store, "SELECT DISTINCT state FROM task") == [{"state": TaskState.FAILED}]


async def test_a_dead_session_and_a_timeout_at_the_same_instant_end_the_attempt_once(
    store: Store, clock: ManualClock
) -> None:
    dying = await a_processor(store, alive_until=clock.now_us() + seconds(5))
    (assignment,) = await running(store, dying, a_task(run_timeout=seconds(5)))
    clock.advance(5)

    await store.reclaim()

    assert await history(store, assignment.task_id) == [(1, Outcome.LOST)]
    assert (await the_task(store, assignment.task_id)).failed_attempts == 1


async def test_what_sessions_hold_is_known_to_who_takes_them_up(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store, limits={"cook": 3, "bake": 0}, labels={"zone": "eu"}, slots=7)
    hob = await a_processor(store, name="hob")
    gone = await a_processor(store, name="gone")
    (assignment,) = await running(store, oven, a_task())
    await store.unregister(gone.seq)

    one, two = sorted(await living_sessions(store), key=lambda stored: stored.session_seq)

    assert (one.session_seq, two.session_seq) == (oven.seq, hob.seq)
    assert one.session.session_id == oven.session_id
    assert one.session.capabilities == {"cook": 3, "bake": 0}
    assert (one.session.labels, one.session.max_in_flight) == ({"zone": "eu"}, 7)
    assert [(held.task_id, held.attempt, held.name) for held in one.held] == [(assignment.task_id, 1, "cook")]
    assert two.held == []


async def test_a_reclaim_that_had_to_wait_for_the_disk_ends_no_session(store: Store, clock: ManualClock) -> None:
    # given a session whose heartbeats wait behind the same commit as the reclaim
    await a_processor(store, alive_until=clock.now_us() + LEASE)
    asked_us = clock.now_us() + LEASE
    clock.advance(us=LEASE + 2_000_000)

    (waited,) = await store.write(store._reclaim, [asked_us])
    assert waited.dead == []

    # when nothing was heard of it by the next time, it is dead
    assert len((await store.reclaim()).dead) == 1
