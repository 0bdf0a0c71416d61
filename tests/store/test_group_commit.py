"""Everybody who waits while a commit is in flight shares the next one; each is answered for himself, after it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from taskq_server.core.errors import TaskqError
from taskq_server.core.task import EnqueueOutcome, NewTask, TaskState
from taskq_server.store.group import MOST_ITEMS_PER_COMMIT
from taskq_server.store.store import Store
from taskq_server.store.transaction import Transaction
from tests.store.conftest import Reopen
from tests.store.given import (
    Gate,
    a_task,
    added,
    outcomes,
    replace_verb,
    rows,
    the_task,
)


def transactions_of(store: Store) -> list[Transaction]:
    """The transactions that verbs run in from now on, each once."""
    seen: list[Transaction] = []
    add: Callable[..., Any] = store._add

    def note(tx: Transaction, items: list[Any]) -> Any:
        if not any(tx is one for one in seen):
            seen.append(tx)
        return add(tx, items)

    replace_verb(store, "_add", note)
    return seen


async def test_callers_who_wait_while_a_commit_is_in_flight_share_the_next_one(store: Store) -> None:
    transactions, gate = transactions_of(store), Gate()
    held = await gate.hold(store)
    waiting = [asyncio.create_task(store.add([a_task(), a_task()])) for _ in range(200)]
    await asyncio.sleep(0)

    gate.open()
    answers = await asyncio.gather(*waiting)
    await held

    assert len(transactions) == 1
    assert {len(answer) for answer in answers} == {2}
    assert len({one.task_id for answer in answers for one in answer}) == 400


async def test_a_commit_takes_only_so_many_items(store: Store) -> None:
    transactions, gate = transactions_of(store), Gate()
    held = await gate.hold(store)
    waiting = [asyncio.create_task(store.add([a_task() for _ in range(1_000)])) for _ in range(9)]
    await asyncio.sleep(0)

    gate.open()
    await asyncio.gather(held, *waiting)

    assert len(transactions) == math.ceil(9_000 / MOST_ITEMS_PER_COMMIT)


async def test_one_caller_alone_does_not_wait_for_others(store: Store) -> None:
    transactions = transactions_of(store)

    await store.add([a_task()])
    await store.add([a_task()])

    assert len(transactions) == 2


async def test_nobody_is_answered_before_the_commit(store: Store) -> None:
    gate = Gate()
    task = a_task()

    def add_and_wait(tx: Transaction, items: list[Any]) -> list[Any]:
        store._add(tx, [task])
        gate.pass_by(tx.connection)
        return items

    waiting = asyncio.create_task(store.write(add_and_wait, [None]))
    await gate.reached.wait()
    for _ in range(20):
        await asyncio.sleep(0)

    assert not waiting.done()
    assert await store.get([task.task_id]) == {}  # nor does anybody see it
    gate.open()
    await waiting
    assert (await the_task(store, task.task_id)).state is TaskState.SCHEDULED


async def test_what_was_answered_can_be_read_at_once(store: Store) -> None:
    for _ in range(100):
        task = a_task()
        await store.add([task])
        assert list(await store.get([task.task_id])) == [task.task_id]


async def test_an_item_that_fails_fails_only_its_caller(store: Store) -> None:
    add, gate = store._add, Gate()

    def add_what_can_be(tx: Transaction, items: list[Any]) -> list[Any]:
        answers = add(tx, items)
        assert all(item.route.name != "impossible" for item in items)
        return answers

    replace_verb(store, "_add", add_what_can_be)
    held = await gate.hold(store)
    waiting = [
        asyncio.create_task(store.add([a_task(), a_task("impossible" if i % 5 == 0 else "cook")])) for i in range(20)
    ]
    await asyncio.sleep(0)
    gate.open()

    answers = await asyncio.gather(*waiting, return_exceptions=True)
    await held

    assert [isinstance(answer, AssertionError) for answer in answers] == [i % 5 == 0 for i in range(20)]
    assert await rows(store, "SELECT count(*) AS n FROM task") == [{"n": 32}]


@pytest.mark.parametrize("bad", [a_task(due_at=1 << 63), a_task("\ud800"), a_task(content="x", headers={"\ud800": ""})])
async def test_a_value_that_the_driver_refuses_fails_only_its_caller(store: Store, bad: NewTask) -> None:
    gate = Gate()
    held = await gate.hold(store)
    waiting = [asyncio.create_task(store.add([task])) for task in (a_task(), bad, a_task())]
    await asyncio.sleep(0)
    gate.open()

    answers = await asyncio.gather(*waiting, return_exceptions=True)
    await held

    assert [isinstance(answer, list) for answer in answers] == [True, False, True]
    assert not isinstance(answers[1], TaskqError), "to try it again would be in vain"


async def test_a_verb_that_fails_leaves_nothing_of_itself(store: Store) -> None:
    def half(tx: Transaction, items: list[Any]) -> list[Any]:
        tx.connection.execute(text("DELETE FROM task"))
        tx.connection.execute(text("INSERT INTO meta VALUES ('half', 'done')"))
        raise ZeroDivisionError

    await added(store, a_task())
    told: list[bytes] = []
    store.on_change = told.extend

    with pytest.raises(ZeroDivisionError):
        await store.write(half, [None])

    assert await rows(store, "SELECT count(*) AS n FROM task") == [{"n": 1}]
    assert await rows(store, "SELECT * FROM meta WHERE key = 'half'") == []
    assert told == []


async def test_a_caller_who_leaves_before_his_transaction_begins_leaves_nothing_behind(store: Store) -> None:
    gate = Gate()
    held = await gate.hold(store)
    leaving, staying = a_task(), a_task()
    gone = asyncio.create_task(store.add([leaving]))
    stays = asyncio.create_task(store.add([staying]))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)

    gate.open()
    await asyncio.gather(held, stays)

    assert list(await store.get([leaving.task_id, staying.task_id])) == [staying.task_id]


async def test_a_caller_who_leaves_later_has_his_work_committed_and_harms_nobody(store: Store) -> None:
    gate = Gate()
    held = await gate.hold(store)
    beside = asyncio.create_task(store.add([a_task()]))
    await asyncio.sleep(0)
    held.cancel()

    gate.open()
    await beside

    await asyncio.gather(held, return_exceptions=True)
    assert held.cancelled()
    assert outcomes(await store.add([a_task()])) == [EnqueueOutcome.CREATED]


async def test_callers_who_leave_at_any_instant_leave_a_task_or_none_and_a_working_store(store: Store) -> None:
    tasks = [a_task() for _ in range(150)]
    for i, task in enumerate(tasks):
        caller = asyncio.create_task(store.add([task]))
        reader = asyncio.create_task(store.get([task.task_id]))
        for _ in range(i % 7):
            await asyncio.sleep(0)
        caller.cancel()
        reader.cancel()
        await asyncio.gather(caller, reader, return_exceptions=True)

    answers = await store.add(tasks)

    assert set(outcomes(answers)) <= {EnqueueOutcome.CREATED, EnqueueOutcome.EXISTING}
    assert await rows(store, "SELECT count(*) AS n FROM task") == [{"n": 150}]


async def test_closing_commits_what_waits(store: Store, reopen: Reopen) -> None:
    gate = Gate()
    held = await gate.hold(store)
    tasks = [a_task() for _ in range(20)]
    waiting = [asyncio.create_task(store.add([task])) for task in tasks]
    await asyncio.sleep(0)
    reopening = asyncio.create_task(reopen())
    await asyncio.sleep(0)

    gate.open()
    await asyncio.gather(held, *waiting)

    again = await reopening
    assert len(await again.get([task.task_id for task in tasks])) == 20


async def test_a_closed_store_refuses_instead_of_hanging(store: Store) -> None:
    await store.close()

    with pytest.raises(TaskqError):
        await asyncio.wait_for(store.add([a_task()]), 5)


async def test_closing_twice_is_closing_once(store: Store) -> None:
    await store.close()
    await store.close()
