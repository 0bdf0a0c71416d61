"""The pair (session, attempt) is the fence: what comes from behind it changes nothing and is told so (promise 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.task import Assignment, Ending, EndStatus, NewTask, Outcome, Payload, Progress, TaskState
from taskq_server.store.store import Store
from taskq_server.store.verbs.living import Advance
from tests.store.given import (
    NO_RETRY,
    a_processor,
    a_retry,
    a_task,
    an_id,
    end,
    failed,
    few_variables,
    history,
    lease,
    not_received,
    released,
    rows,
    running,
    seconds,
    statuses,
    stopped,
    succeeded,
    the_task,
)

ACCEPTED, ALREADY, LOST, NOT_FOUND = (
    EndStatus.ACCEPTED,
    EndStatus.ALREADY_ACCEPTED,
    EndStatus.LEASE_LOST,
    EndStatus.NOT_FOUND,
)
Word = Callable[[Assignment], Ending]
EVERY_WORD: list[Word] = [succeeded, failed, released, stopped, not_received]


async def dump(store: Store) -> list[object]:
    return [await rows(store, f"SELECT * FROM {table} ORDER BY 1, 2") for table in ("task", "attempt", "dedup")]  # noqa: S608


@pytest.mark.parametrize("word", EVERY_WORD)
@pytest.mark.parametrize("policy", [NO_RETRY, a_retry(initial_delay_us=0)], ids=["final", "retried"])
async def test_the_same_word_again_is_already_accepted_and_changes_nothing(store: Store, word: Word, policy) -> None:  # type: ignore[no-untyped-def]
    (assignment,) = await running(store, await a_processor(store), a_task(retry=policy, key="k"))
    accepted = await end(store, word(assignment))
    before = await dump(store)

    (again,) = await store.end([word(assignment)])

    assert again.status is ALREADY
    assert (again.state, again.due_time_us) == (accepted.state, accepted.due_time_us)
    assert await dump(store) == before


@pytest.mark.parametrize("first", EVERY_WORD)
@pytest.mark.parametrize("second", EVERY_WORD)
async def test_another_word_on_the_same_attempt_is_too_late(store: Store, first: Word, second: Word) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())
    await end(store, first(assignment))
    before = await dump(store)

    (ended,) = await store.end([second(assignment)])

    assert ended.status is (ALREADY if first is second else LOST)
    assert await dump(store) == before


@pytest.mark.parametrize("first", EVERY_WORD)
@pytest.mark.parametrize("second", EVERY_WORD)
async def test_two_words_on_one_attempt_in_one_batch_are_as_if_one_came_after_the_other(
    store: Store, first: Word, second: Word
) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())

    one, two = await store.end([first(assignment), second(assignment)])

    assert one.status is ACCEPTED
    assert two.status is (ALREADY if first is second else LOST)
    assert (two.state, two.due_time_us) == (one.state, one.due_time_us)
    assert len(await history(store, assignment.task_id)) == (one.state is TaskState.SCHEDULED)


async def test_the_same_word_again_after_the_task_went_on_is_still_already_accepted(store: Store) -> None:
    oven = await a_processor(store)
    (first,) = await running(store, oven, a_task(retry=a_retry(initial_delay_us=0)))
    await end(store, failed(first))
    (second,) = (await lease(store, oven)).assignments
    assert statuses(await store.end([failed(first), succeeded(first)])) == [ALREADY, LOST]
    await end(store, succeeded(second))

    assert statuses(await store.end([failed(first), succeeded(first), succeeded(second)])) == [ALREADY, LOST, ALREADY]


@pytest.mark.parametrize("word", EVERY_WORD)
async def test_a_stale_attempt_of_the_same_session_changes_nothing(store: Store, word: Word) -> None:
    oven = await a_processor(store)
    (first,) = await running(store, oven, a_task())
    await end(store, released(first))
    (second,) = (await lease(store, oven)).assignments
    before = await dump(store)

    (ended,) = await store.end([word(first)])

    assert ended.status is (ALREADY if word is released else LOST)
    assert await dump(store) == before
    assert (await end(store, succeeded(second))).state is TaskState.SUCCEEDED


@pytest.mark.parametrize("word", EVERY_WORD)
async def test_a_foreign_session_changes_nothing(store: Store, word: Word) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())
    before = await dump(store)
    foreign = word(assignment)
    foreign.session_seq = (await a_processor(store, name="thief")).seq

    (ended,) = await store.end([foreign])

    assert (ended.status, ended.state) == (LOST, TaskState.RUNNING)
    assert await dump(store) == before


@pytest.mark.parametrize("session_seq", [0, -1, 99])
@pytest.mark.parametrize("attempt", [-1, 0, 1, 2, 1 << 40])
async def test_attempts_and_sessions_that_never_were_change_nothing(
    store: Store, session_seq: int, attempt: int
) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())
    before = await dump(store)
    made_up = succeeded(assignment)
    made_up.session_seq, made_up.attempt = session_seq, attempt

    (ended,) = await store.end([made_up])

    assert ended.status is LOST
    assert await dump(store) == before


@pytest.mark.parametrize("word", EVERY_WORD)
async def test_an_unknown_task_is_not_found(store: Store, word: Word) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())
    unknown = word(assignment)
    unknown.task_id = an_id()

    (ended,) = await store.end([unknown])

    assert (ended.status, ended.state) == (NOT_FOUND, None)


async def test_a_task_that_never_ran_takes_no_report(store: Store) -> None:
    oven = await a_processor(store)
    (other,) = await running(store, oven, a_task())
    waiting = a_task(due_in=1)
    await store.add([waiting])
    made_up = succeeded(other)
    made_up.task_id = waiting.task_id
    nothing = succeeded(other)
    nothing.task_id, nothing.attempt = waiting.task_id, 0

    assert statuses(await store.end([made_up, nothing])) == [LOST, LOST]
    assert (await the_task(store, waiting.task_id)).state is TaskState.SCHEDULED


async def test_a_pruned_task_is_not_found(store: Store, clock: ManualClock) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task(retention=seconds(1)))
    await end(store, succeeded(assignment))
    clock.advance(1)
    await store.prune(0)

    assert statuses(await store.end([succeeded(assignment)])) == [NOT_FOUND]


@pytest.mark.parametrize("word", EVERY_WORD)
async def test_a_session_whose_lease_ran_out_has_lost_its_attempts(
    store: Store, clock: ManualClock, word: Word
) -> None:
    late = await a_processor(store, alive_until=clock.now_us() + seconds(1))
    (assignment,) = await running(store, late, a_task())
    clock.advance(1)
    await store.reclaim()
    before = await dump(store)

    (ended,) = await store.end([word(assignment)])

    assert (ended.status, ended.state) == (LOST, TaskState.SCHEDULED)
    assert await dump(store) == before


async def test_a_report_after_the_lease_and_before_the_reclaim_is_still_taken(store: Store, clock: ManualClock) -> None:
    late = await a_processor(store, alive_until=clock.now_us() + seconds(1))
    (assignment,) = await running(store, late, a_task())
    clock.advance(5)

    assert (await end(store, succeeded(assignment))).state is TaskState.SUCCEEDED
    await store.reclaim()

    assert (await the_task(store, assignment.task_id)).state is TaskState.SUCCEEDED


@pytest.mark.parametrize("word", EVERY_WORD)
async def test_after_a_cancel_only_the_word_that_it_stopped_is_taken_for_the_same(store: Store, word: Word) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())
    await store.cancel([assignment.task_id])
    before = await dump(store)

    (ended,) = await store.end([word(assignment)])

    assert (ended.status, ended.state) == (ALREADY if word is stopped else LOST, TaskState.CANCELLED)
    assert await dump(store) == before


async def test_of_reports_that_race_exactly_one_is_accepted(store: Store) -> None:
    oven = await a_processor(store)
    assignments = await running(store, oven, *(a_task() for _ in range(20)))

    for assignment in assignments:
        answers = await asyncio.gather(
            *(store.end([word(assignment)]) for word in (succeeded, failed, released, succeeded, stopped))
        )
        assert sorted(statuses(one for (one,) in answers)).count(ACCEPTED) == 1


async def test_progress_and_checkpoints_from_behind_the_fence_are_dropped(store: Store) -> None:
    oven, hob = await a_processor(store), await a_processor(store, name="hob")
    (assignment,) = await running(store, oven, a_task())
    task_id, far, step = assignment.task_id, Progress(0.9, "far"), Payload(b"step")

    await store.save_progress(
        [
            Advance(hob.seq, task_id, 1, far, step),
            Advance(oven.seq, task_id, 2, far, step),
            Advance(oven.seq, an_id(), 1, far, step),
        ]
    )
    await end(store, released(assignment))
    await store.save_progress([Advance(oven.seq, task_id, 1, far, step)])

    assert (await the_task(store, task_id)).progress is None
    (again,) = (await lease(store, oven)).assignments
    assert again.checkpoint is None


def _keyed(start: int, many: int) -> list[NewTask]:
    return [a_task(key=f"k{i}") for i in range(start, start + many)]


async def test_a_report_of_any_size_is_answered(store: Store) -> None:
    """A request of 4 MiB may hold a hundred thousand results; a statement may not hold as many variables."""
    oven = await a_processor(store, slots=3_000)
    assignments = [one for start in (0, 1_000) for one in await running(store, oven, *_keyed(start, 1_000))]
    await few_variables(store)

    first = await store.end([succeeded(assignment) for assignment in assignments])
    again = await store.end([succeeded(assignment) for assignment in assignments])

    assert set(statuses(first)) == {ACCEPTED}
    assert set(statuses(again)) == {ALREADY}
    assert await rows(store, "SELECT * FROM dedup") == []


@pytest.mark.parametrize("word", EVERY_WORD)
async def test_an_accepted_word_said_again_by_another_session_is_not_its_own(store: Store, word: Word) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())
    await end(store, word(assignment))
    foreign = word(assignment)
    foreign.session_seq = (await a_processor(store, name="thief")).seq

    assert statuses(await store.end([foreign])) == [LOST]
    assert statuses(await store.end([word(assignment), foreign])) == [ALREADY, LOST]


async def test_history_tells_the_word_of_each_session_from_the_others(store: Store, clock: ManualClock) -> None:
    dying = await a_processor(store, alive_until=clock.now_us() + seconds(1))
    hob = await a_processor(store, name="hob")
    (first,) = await running(store, dying, a_task())
    clock.advance(1)
    await store.reclaim()
    (second,) = (await lease(store, hob)).assignments
    as_hob = failed(first)
    as_hob.session_seq = hob.seq
    await end(store, failed(second, retry_delay=0))

    assert statuses(await store.end([failed(first), as_hob, failed(second)])) == [LOST, LOST, ALREADY]
    assert await history(store, first.task_id) == [(1, Outcome.LOST), (2, Outcome.FAILED)]
