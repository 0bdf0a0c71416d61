"""A step of a bulk operation that has been done is done: whoever comes with it a second time moves nothing."""

from __future__ import annotations

import os

import pytest

from taskq_server.core.bulk_operation import Action, ActionKind, NewOperation
from taskq_server.store.store import Store
from taskq_server.store.verbs.bulk import MOST_A_BATCH
from tests.store.given import a_task, added, minutes


@pytest.mark.parametrize("by", ["ids", "filter"])
async def test_a_step_that_another_has_done_meanwhile_counts_nothing_and_skips_nothing(store: Store, by: str) -> None:
    task_ids = await added(store, *(a_task(due_in=minutes(5)) for _ in range(MOST_A_BATCH + 1)))
    which = (
        {"task_ids": tuple(task_ids), "place": len(task_ids)}
        if by == "ids"
        else {"filter": "state:SCHEDULED", "place": await store.last_number() + 1}
    )
    operation_id = os.urandom(16)
    await store.start_operation(NewOperation(operation_id, b"h" * 16, Action(ActionKind.CANCEL), **which))
    first, second = await store.next_steps()

    assert (await store.advance(first)).moved
    assert not (await store.advance(first)).moved, "as by another server that has found it too"
    found = await store.get_operation(operation_id)
    assert found is not None
    assert (found.done, found.skipped) == (MOST_A_BATCH, 0)

    assert (await store.advance(second)).ended
    found = await store.get_operation(operation_id)
    assert found is not None
    assert (found.done, found.skipped) == (MOST_A_BATCH + 1, 0)


async def test_an_operation_that_names_nothing_comes_to_its_end(store: Store) -> None:
    operation_id = os.urandom(16)
    await store.start_operation(NewOperation(operation_id, b"h" * 16, Action(ActionKind.CANCEL)))

    (only,) = await store.next_steps()

    assert (await store.advance(only)).ended
