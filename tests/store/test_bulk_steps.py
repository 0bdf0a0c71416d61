"""A step of a bulk operation that has been done is done: whoever comes with it a second time moves nothing. And how the
steps of several operations are found."""

from __future__ import annotations

import os
from typing import Any

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.bulk_operation import Action, ActionKind, NewOperation, Operation
from taskq_server.core.task import Payload
from taskq_server.store.store import Store
from taskq_server.store.verbs.bulk import MOST_A_BATCH, MOST_BYTES_A_BATCH, MOST_TURNS
from taskq_server.store.verbs.listing import Page
from tests.store.given import a_task, added, minutes, seconds

CANCEL = Action(ActionKind.CANCEL)


async def started(store: Store, action: Action = CANCEL, **which: Any) -> Operation:
    return await store.start_operation(NewOperation(os.urandom(16), b"h" * 16, action, **which))


async def stored(store: Store, operation: Operation) -> Operation:
    found = await store.get_operation(operation.operation_id)
    assert found is not None
    return found


@pytest.mark.parametrize("by", ["ids", "filter"])
async def test_a_step_that_another_has_done_meanwhile_counts_nothing_and_skips_nothing(store: Store, by: str) -> None:
    task_ids = await added(store, *(a_task(due_in=minutes(5)) for _ in range(MOST_A_BATCH + 1)))
    which: dict[str, Any] = (
        {"task_ids": tuple(task_ids), "place": len(task_ids)}
        if by == "ids"
        else {"filter": "state:SCHEDULED", "place": await store.last_number() + 1}
    )
    operation = await started(store, **which)
    first, second = await store.next_steps(operation.operation_seq)

    assert (await store.advance(first)).moved
    assert not (await store.advance(first)).moved, "as by another server that has found it too"
    found = await stored(store, operation)
    assert (found.done, found.skipped) == (MOST_A_BATCH, 0)

    assert (await store.advance(second)).ended
    found = await stored(store, operation)
    assert (found.done, found.skipped) == (MOST_A_BATCH + 1, 0)


async def test_an_operation_that_names_nothing_comes_to_its_end(store: Store) -> None:
    operation = await started(store)

    (only,) = await store.next_steps(operation.operation_seq)

    assert (await store.advance(only)).ended


async def test_those_that_have_waited_longest_have_the_next_turns_and_the_spared_have_none(
    store: Store, clock: ManualClock
) -> None:
    task_ids = await added(store, *(a_task(due_in=minutes(5)) for _ in range(MOST_A_BATCH + 1)))
    named = {"task_ids": tuple(task_ids), "place": len(task_ids)}
    seqs = [(await started(store, **named)).operation_seq for _ in range(MOST_TURNS + 2)]
    clock.advance(us=seconds(1))
    await store.advance((await store.next_steps(seqs[1]))[0])

    assert [turn.operation_seq for turn in await store.turns()] == [seqs[0], *seqs[2:][: MOST_TURNS - 1]]
    spared = frozenset({seqs[0], seqs[2]})
    assert [turn.operation_seq for turn in await store.turns(spared)] == [*seqs[3:], seqs[1]][:MOST_TURNS]


async def test_what_keeps_an_operation_from_going_on_is_shown_until_it_goes_on(store: Store) -> None:
    task_ids = await added(store, *(a_task(due_in=minutes(5)) for _ in range(MOST_A_BATCH)))
    unknown = os.urandom(16)
    operation = await started(store, task_ids=(*task_ids, unknown), place=len(task_ids) + 1)
    first, last = await store.next_steps(operation.operation_seq)

    await store.note_trouble(operation.operation_seq, "no room")
    await store.note_trouble(operation.operation_seq, "no time")
    assert (await stored(store, operation)).skipped_samples == ("the operation waits: no time",)

    await store.advance(first)
    (skipped,) = (await stored(store, operation)).skipped_samples
    assert skipped.endswith("does not exist")
    await store.note_trouble(operation.operation_seq, "no room")
    assert (await stored(store, operation)).skipped_samples == ("the operation waits: no room", skipped)

    await store.advance(last)
    assert (await stored(store, operation)).skipped_samples == (skipped,)


async def test_a_payload_is_read_by_nobody_but_the_batch_and_bounds_it_all_the_same(store: Store) -> None:
    task_ids = await added(store, *(a_task(due_in=minutes(5)) for _ in range(9)))
    payload = Payload(b"x" * (MOST_BYTES_A_BATCH // 4))
    named = {"task_ids": tuple(task_ids), "place": len(task_ids)}
    operation = await started(store, Action(ActionKind.RERUN, payload), **named)

    steps = await store.next_steps(operation.operation_seq)

    assert [step.place - step.then for step in steps] == [4, 4, 1]
    for found in (await stored(store, operation), *await store.list_operations(Page(0, 9))):
        assert found.action.payload == Payload(b"")
