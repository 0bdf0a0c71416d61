"""A restart changes nothing: what was answered is there, and goes on as if the server had never stopped.

After it, a session belongs to the server at which it opens its stream again, which takes it over: on PostgreSQL that
may be any.
"""

from __future__ import annotations

from dataclasses import replace

from taskq_server.clock import ManualClock
from taskq_server.core.task import EndStatus, EnqueueOutcome, TaskState
from taskq_server.store.store import Store
from taskq_server.store.verbs.living import Sign
from tests.store.conftest import Reopen
from tests.store.given import (
    LEASE,
    Processor,
    a_processor,
    a_retry,
    a_task,
    added,
    failed,
    hours,
    leased_ids,
    living_sessions,
    minutes,
    outcomes,
    rows,
    running,
    seconds,
    statuses,
    succeeded,
)


async def dump(store: Store) -> list[object]:
    tables = ("task", "attempt", "session", "route", "dedup")
    return [await rows(store, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]  # noqa: S608


async def a_bit_of_everything(store: Store, clock: ManualClock) -> Processor:
    oven = await a_processor(store, limits={"cook": 5, "bake": 0}, labels={"zone": "eu"}, name="oven")
    retry = a_retry(initial_delay_us=minutes(1))
    one, two, _three, four = await running(
        store,
        oven,
        a_task(retry=retry, key="a", payload=b"\x00", headers={"h": "1"}),
        a_task("bake", requires=["zone = eu"], key="b", ttl=hours(1)),
        a_task(run_timeout=hours(1)),
        a_task(),
    )
    await store.end([failed(one), succeeded(two, b"done")])
    await store.cancel([four.task_id])
    await added(
        store, a_task(due_in=minutes(5), expires_at=clock.now_us() + hours(2)), a_task("fry", due_in=minutes(9))
    )
    return oven


async def test_everything_stands_as_it_stood(store: Store, clock: ManualClock, reopen: Reopen) -> None:
    await a_bit_of_everything(store, clock)
    before, routes, hint = await dump(store), store.routes, store.next_due_us(store.routes)
    sessions = await living_sessions(store)

    again = await reopen()

    assert await dump(again) == before
    assert (again.routes, again.next_due_us(again.routes)) == (routes, hint)
    taken = [await again.take_over(stored.session.session_id) for stored in sessions]
    assert taken == [
        replace(stored, server_seq=again.server_seq, server_lives=now.server_lives)
        for stored, now in zip(sessions, taken, strict=True)
        if now is not None
    ]


async def test_running_tasks_keep_running_and_their_reports_are_taken(store: Store, reopen: Reopen) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task())

    again = await reopen()

    taken = await again.take_over(oven.session_id)
    assert taken is not None and [held.task_id for held in taken.held] == [assignment.task_id]
    assert await leased_ids(again, oven) == []
    assert statuses(await again.end([succeeded(assignment)])) == [EndStatus.ACCEPTED]


async def test_a_report_whose_answer_was_lost_with_the_server_is_already_accepted(store: Store, reopen: Reopen) -> None:
    oven = await a_processor(store)
    one, two = await running(store, oven, a_task(), a_task())
    await store.end([succeeded(one), failed(two)])

    again = await reopen()

    assert statuses(await again.end([succeeded(one), failed(two)])) == [EndStatus.ALREADY_ACCEPTED] * 2


async def test_an_enqueue_whose_answer_was_lost_with_the_server_finds_its_task(store: Store, reopen: Reopen) -> None:
    task, keyed = a_task(), a_task(key="k")
    await added(store, task, keyed)

    again = await reopen()

    answers = await again.add([task, keyed, a_task(key="k")])
    assert outcomes(answers) == [EnqueueOutcome.EXISTING] * 3
    assert answers[2].task_id == keyed.task_id


async def test_enqueue_order_goes_on_after_the_restart(store: Store, reopen: Reopen) -> None:
    before = await added(store, a_task(), a_task())
    again = await reopen()
    after = await added(again, a_task(), a_task())

    assert await leased_ids(again, await a_processor(again)) == before + after


async def test_a_session_lives_on_and_dies_at_its_time(store: Store, clock: ManualClock, reopen: Reopen) -> None:
    oven = await a_processor(store, alive_until=clock.now_us() + LEASE)
    (assignment,) = await running(store, oven, a_task())

    again = await reopen()

    await again.take_over(oven.session_id)
    assert await again.keep_alive(Sign(oven.seq, 2 * LEASE)) == again.server_seq
    clock.advance(us=2 * LEASE)
    assert (await again.reclaim()).dead == [oven.seq]
    assert await leased_ids(again, await a_processor(again)) == [assignment.task_id]


async def test_tasks_fall_due_expire_and_time_out_at_their_times(
    store: Store, clock: ManualClock, reopen: Reopen
) -> None:
    oven = await a_processor(store)
    (timed,) = await running(store, oven, a_task(run_timeout=seconds(5)))
    late, due = await added(
        store, a_task(due_in=seconds(9), expires_at=clock.now_us() + seconds(7)), a_task(due_in=seconds(6))
    )

    again = await reopen()

    await again.take_over(oven.session_id)
    assert (await again.reclaim()).next_us == clock.now_us() + seconds(5)
    clock.advance(5)
    assert [held.task_id for held in (await again.reclaim()).timed_out] == [timed.task_id]
    clock.advance(us=seconds(1) - 1)
    assert due not in await leased_ids(again, oven)
    clock.advance(us=1)
    assert due in await leased_ids(again, oven)
    clock.advance(1)
    await again.reclaim()
    assert (await again.get([late]))[late].state is TaskState.FAILED
