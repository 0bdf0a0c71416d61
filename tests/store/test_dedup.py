"""At most one task holds a key; what a second one does is its policy."""

from __future__ import annotations

import asyncio

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.task import DedupConflict, DedupHold, EnqueueOutcome, Payload, TaskState
from taskq_server.store.store import Store
from tests.store.given import (
    NO_RETRY,
    a_processor,
    a_retry,
    a_task,
    added,
    an_id,
    end,
    failed,
    lease,
    leased_ids,
    minutes,
    outcomes,
    released,
    rows,
    running,
    seconds,
    succeeded,
    the_task,
)

CREATED, EXISTING = EnqueueOutcome.CREATED, EnqueueOutcome.EXISTING
REPLACED, REJECTED, CONFLICT = EnqueueOutcome.REPLACED, EnqueueOutcome.REJECTED, EnqueueOutcome.CONFLICT
REJECT, REPLACE, DEBOUNCE = DedupConflict.REJECT, DedupConflict.REPLACE, DedupConflict.DEBOUNCE


async def one(store: Store, **facts):  # type: ignore[no-untyped-def]
    (answer,) = await store.add([a_task(**{"key": "k", **facts})])
    return answer


# ── what a second task does ──────────────────────────────────────────────────────────────────────────────────────────


async def test_by_default_the_second_task_is_the_first(store: Store) -> None:
    first = await one(store, due_in=minutes(1))

    second = await one(store, due_in=minutes(9))

    assert (second.outcome, second.task_id, second.due_time_us) == (EXISTING, first.task_id, first.due_time_us)
    assert await rows(store, "SELECT count(*) AS n FROM task") == [{"n": 1}]


async def test_reject_says_who_holds_the_key(store: Store) -> None:
    first = await one(store)

    second = await one(store, on_conflict=REJECT)

    assert (second.outcome, second.task_id) == (REJECTED, first.task_id)
    assert await rows(store, "SELECT count(*) AS n FROM task") == [{"n": 1}]


async def test_replace_gives_the_waiting_task_the_new_payload_headers_and_due_time(
    store: Store, clock: ManualClock
) -> None:
    first = await one(store, payload=b"pasta", headers={"a": "1"}, due_in=minutes(9))

    second = await one(store, payload=b"pizza", headers={"b": "2"}, due_in=minutes(1), on_conflict=REPLACE)

    assert (second.outcome, second.task_id) == (REPLACED, first.task_id)
    assert second.due_time_us == clock.now_us() + minutes(1)
    task = await the_task(store, first.task_id)
    assert (task.payload, task.headers) == (Payload(b"pizza"), {"b": "2"})
    assert task.due_time_us == clock.now_us() + minutes(1)


async def test_a_replaced_payload_is_the_one_that_is_delivered(store: Store) -> None:
    await one(store, payload=b"pasta")
    await one(store, payload=b"pizza", on_conflict=REPLACE)

    (assignment,) = (await lease(store, await a_processor(store))).assignments

    assert assignment.payload == Payload(b"pizza")


async def test_debounce_moves_the_waiting_task_and_keeps_its_payload(store: Store, clock: ManualClock) -> None:
    first = await one(store, payload=b"pasta", due_in=minutes(1))

    second = await one(store, payload=b"pizza", due_in=minutes(9), on_conflict=DEBOUNCE)

    assert (second.outcome, second.task_id) == (REPLACED, first.task_id)
    task = await the_task(store, first.task_id)
    assert (task.payload, task.due_time_us) == (Payload(b"pasta"), clock.now_us() + minutes(9))


@pytest.mark.parametrize("policy", [REPLACE, DEBOUNCE])
async def test_a_task_that_is_moved_earlier_is_dispatched_earlier(
    store: Store, clock: ManualClock, policy: DedupConflict
) -> None:
    oven = await a_processor(store)
    first = await one(store, due_in=minutes(9))

    await one(store, due_in=minutes(1), on_conflict=policy)

    assert (await lease(store, oven)).next_due_us == clock.now_us() + minutes(1)
    clock.advance(us=minutes(1))
    assert await leased_ids(store, oven) == [first.task_id]


@pytest.mark.parametrize("policy", [REPLACE, DEBOUNCE])
async def test_a_task_that_is_moved_later_is_not_dispatched_at_its_old_time(
    store: Store, clock: ManualClock, policy: DedupConflict
) -> None:
    oven = await a_processor(store)
    first = await one(store, due_in=minutes(1))

    await one(store, due_in=minutes(9), on_conflict=policy)

    clock.advance(us=minutes(9) - 1)
    leased = await lease(store, oven)
    assert (leased.assignments, leased.next_due_us) == ([], clock.now_us() + 1)
    clock.advance(us=1)
    assert await leased_ids(store, oven) == [first.task_id]


@pytest.mark.parametrize(("policy", "outcome"), [(REPLACE, EXISTING), (DEBOUNCE, EXISTING), (REJECT, REJECTED)])
async def test_a_holder_that_runs_is_left_alone(store: Store, policy: DedupConflict, outcome: EnqueueOutcome) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task(key="k", payload=b"pasta"))

    answer = await one(store, payload=b"pizza", due_in=minutes(9), on_conflict=policy)

    assert (answer.outcome, answer.task_id) == (outcome, assignment.task_id)
    task = await the_task(store, assignment.task_id)
    assert (task.state, task.payload, task.due_time_us) == (
        TaskState.RUNNING,
        Payload(b"pasta"),
        assignment.due_time_us,
    )


async def test_a_holder_that_waits_for_a_retry_can_be_moved(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task(key="k", retry=a_retry(initial_delay_us=minutes(9))))
    await end(store, failed(assignment))

    answer = await one(store, due_in=0, on_conflict=DEBOUNCE)

    assert answer.outcome is REPLACED
    (again,) = (await lease(store, oven)).assignments
    assert (again.task_id, again.attempt, again.failed_attempts) == (assignment.task_id, 2, 1)


async def test_keys_of_other_scopes_do_not_meet(store: Store) -> None:
    answers = await store.add([a_task(key="k"), a_task("bake", key="k"), a_task(key="k", scope="kitchen")])

    assert outcomes(answers) == [CREATED] * 3


# ── how long a key is held ───────────────────────────────────────────────────────────────────────────────────────────


async def test_success_frees_the_key(store: Store) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task(key="k"))
    await end(store, succeeded(assignment))

    assert (await one(store)).outcome is CREATED


async def test_failure_for_good_frees_the_key(store: Store) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task(key="k", retry=NO_RETRY))
    await end(store, failed(assignment))

    assert (await one(store)).outcome is CREATED


@pytest.mark.parametrize("ending", [failed, released])
async def test_a_task_that_goes_back_keeps_its_key(store: Store, ending) -> None:  # type: ignore[no-untyped-def]
    (assignment,) = await running(store, await a_processor(store), a_task(key="k"))
    await end(store, ending(assignment))

    answer = await one(store)

    assert (answer.outcome, answer.task_id) == (EXISTING, assignment.task_id)


async def test_cancel_frees_the_key_of_a_waiting_task(store: Store) -> None:
    first = await one(store)
    await store.cancel([first.task_id])

    assert (await one(store)).outcome is CREATED


async def test_cancel_frees_the_key_of_a_running_task(store: Store) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task(key="k"))
    await store.cancel([assignment.task_id])

    assert (await one(store)).outcome is CREATED


async def test_expiry_frees_the_key(store: Store, clock: ManualClock) -> None:
    await one(store, due_in=minutes(5), expires_at=clock.now_us() + minutes(1))
    clock.advance(us=minutes(1))
    await store.reclaim()

    assert (await one(store)).outcome is CREATED


async def test_a_lost_task_that_is_given_up_frees_the_key(store: Store, clock: ManualClock) -> None:
    dying = await a_processor(store, alive_until=clock.now_us() + seconds(1))
    await running(store, dying, a_task(key="k", retry=NO_RETRY))
    clock.advance(1)
    await store.reclaim()

    assert (await one(store)).outcome is CREATED


async def test_a_ttl_holds_the_key_until_exactly_then_though_the_task_is_finished(
    store: Store, clock: ManualClock
) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task(key="k", ttl=minutes(1)))
    await end(store, succeeded(assignment))

    clock.advance(us=minutes(1) - 1)
    held = await one(store)
    clock.advance(us=1)
    free = await one(store)

    assert (held.outcome, held.task_id) == (EXISTING, assignment.task_id)
    assert free.outcome is CREATED


async def test_a_ttl_frees_the_key_though_the_task_is_unfinished(store: Store, clock: ManualClock) -> None:
    first = await one(store, ttl=minutes(1), due_in=minutes(9))
    clock.advance(us=minutes(1))

    second = await one(store, ttl=minutes(1), due_in=minutes(9))

    assert (first.outcome, second.outcome) == (CREATED, CREATED)
    third = await one(store)
    assert (third.outcome, third.task_id) == (EXISTING, second.task_id)


async def test_the_end_of_a_task_whose_hold_ran_out_does_not_free_the_next_holders_key(
    store: Store, clock: ManualClock
) -> None:
    oven = await a_processor(store)
    (old,) = await running(store, oven, a_task(key="k", ttl=minutes(1)))
    clock.advance(us=minutes(1))
    new = await one(store)

    await end(store, succeeded(old))

    answer = await one(store)
    assert (answer.outcome, answer.task_id) == (EXISTING, new.task_id)


async def test_both_holds_past_the_ttl_while_the_task_is_unfinished(store: Store, clock: ManualClock) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task(key="k", ttl=minutes(1), hold=DedupHold.BOTH))
    clock.advance(us=minutes(2))
    assert (await one(store)).outcome is EXISTING

    await end(store, succeeded(assignment))

    assert (await one(store)).outcome is CREATED


async def test_both_holds_past_the_end_of_the_task_until_the_ttl(store: Store, clock: ManualClock) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task(key="k", ttl=minutes(1), hold=DedupHold.BOTH))
    await end(store, succeeded(assignment))

    clock.advance(us=minutes(1) - 1)
    assert (await one(store)).outcome is EXISTING
    clock.advance(us=1)
    assert (await one(store)).outcome is CREATED


@pytest.mark.parametrize("policy", [REPLACE, DEBOUNCE])
async def test_a_finished_task_that_still_holds_its_key_is_not_changed(store: Store, policy: DedupConflict) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task(key="k", ttl=minutes(1), payload=b"pasta"))
    await end(store, succeeded(assignment))

    answer = await one(store, payload=b"pizza", due_in=minutes(3), on_conflict=policy)

    assert (answer.outcome, answer.task_id) == (EXISTING, assignment.task_id)
    assert (await the_task(store, assignment.task_id)).payload == Payload(b"pasta")
    assert (await the_task(store, assignment.task_id)).state is TaskState.SUCCEEDED


async def test_a_ttl_holds_the_key_even_when_the_task_is_pruned(store: Store, clock: ManualClock) -> None:
    (assignment,) = await running(
        store, await a_processor(store), a_task(key="k", ttl=minutes(9), retention=seconds(1))
    )
    await end(store, succeeded(assignment))
    clock.advance(1)
    assert (await store.prune(0)).tasks == 1

    answer = await one(store)

    assert (answer.outcome, answer.task_id) == (EXISTING, assignment.task_id)


# ── ids and keys in one batch, and races ─────────────────────────────────────────────────────────────────────────────


async def test_two_in_one_batch_with_one_key_make_one_task(store: Store) -> None:
    answers = await store.add([a_task(key="k"), a_task(key="k"), a_task(key="k", on_conflict=REJECT)])

    assert outcomes(answers) == [CREATED, EXISTING, REJECTED]
    assert {answer.task_id for answer in answers} == {answers[0].task_id}


async def test_a_task_is_replaced_and_moved_within_the_batch_that_makes_it(store: Store, clock: ManualClock) -> None:
    answers = await store.add(
        [
            a_task(key="k", payload=b"pasta", due_in=minutes(5)),
            a_task(key="k", payload=b"pizza", due_in=minutes(6), on_conflict=REPLACE),
            a_task(key="k", payload=b"salad", due_in=minutes(1), on_conflict=DEBOUNCE),
        ]
    )

    assert outcomes(answers) == [CREATED, REPLACED, REPLACED]
    task = await the_task(store, answers[0].task_id)
    assert (task.payload, task.due_time_us) == (Payload(b"pizza"), clock.now_us() + minutes(1))


async def test_the_same_id_again_is_the_same_task_though_others_hold_the_key_now(
    store: Store, clock: ManualClock
) -> None:
    task_id = an_id()
    (assignment,) = await running(store, await a_processor(store), a_task(key="k", task_id=task_id))
    await end(store, succeeded(assignment))
    await one(store)

    again = await one(store, task_id=task_id, on_conflict=REPLACE)
    other = await one(store, task_id=task_id, content="other", on_conflict=REJECT)

    assert (again.outcome, again.task_id) == (EXISTING, task_id)
    assert (other.outcome, other.task_id) == (CONFLICT, task_id)


async def test_a_retried_enqueue_with_a_key_finds_its_task_whatever_its_policy(store: Store) -> None:
    for policy in DedupConflict:
        new = a_task(key=f"k{policy}", on_conflict=policy)

        assert outcomes(await store.add([new])) == [CREATED]
        assert outcomes(await store.add([new])) == [EXISTING]
        assert outcomes(await store.add([new, new])) == [EXISTING, EXISTING]


async def test_a_task_that_conflicts_by_its_id_takes_no_key(store: Store) -> None:
    task_id = an_id()

    answers = await store.add(
        [a_task(task_id=task_id), a_task(task_id=task_id, content="other", key="k"), a_task(key="k")]
    )

    assert outcomes(answers) == [CREATED, CONFLICT, CREATED]
    assert await rows(store, "SELECT task_id FROM dedup") == [{"task_id": answers[2].task_id}]


async def test_of_callers_who_race_for_a_key_exactly_one_wins_and_all_learn_who(store: Store) -> None:
    answers = [answer for (answer,) in await asyncio.gather(*(store.add([a_task(key="k")]) for _ in range(20)))]

    assert sorted(outcomes(answers)) == [CREATED] + [EXISTING] * 19
    assert len({answer.task_id for answer in answers}) == 1


async def test_an_end_and_a_new_task_with_its_key_at_once_leave_one_of_two_linear_outcomes(store: Store) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task(key="k"))
    for _ in range(30):
        _, (answer,) = await asyncio.gather(store.end([succeeded(assignment)]), store.add([a_task(key="k")]))
        unfinished = await rows(store, "SELECT task_id FROM task WHERE state < 3")
        if answer.outcome is CREATED:
            assert unfinished == [{"task_id": answer.task_id}]
        else:
            assert (answer.task_id, unfinished) == (assignment.task_id, [])
            await added(store, a_task(key="k"))
        (assignment,) = (await lease(store, oven)).assignments
