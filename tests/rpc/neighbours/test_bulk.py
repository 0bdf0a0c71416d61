"""The same done to many tasks, where several servers share a database."""

from __future__ import annotations

import asyncio

import pytest

from taskq_server.bulk import LOOK_US
from tests.rpc.operations import CANCEL, RERUN, done, ended, get, later, reprioritise, reschedule, start
from tests.rpc.support import CANCELLED, SCHEDULED, span
from tests.rpc.world import Pair


async def test_a_processor_of_another_server_is_told_to_stop(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor()
    task_id = await here.scheduler.enqueue()
    await there.looks()
    task = await processor.take_one()

    await done(here, CANCEL, filter="state:RUNNING")
    await there.looks()

    stop = await processor.stream.next("cancel")
    assert [(one.task_id, one.attempt) for one in stop.attempts] == [(task.task_id, task.attempt)]
    assert (await there.scheduler.get(task_id)).state == CANCELLED


async def test_a_processor_of_another_server_is_given_what_is_due_by_now(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor()
    (task_id,) = await later(here, 1)

    await done(here, reschedule(delay=span(0)), filter="name:cook")
    await there.looks()

    task = await processor.take_one()
    assert task.task_id == task_id
    await processor.succeed(task)
    await done(here, RERUN, filter="state:SUCCEEDED")
    await there.looks()
    assert (await processor.take_one()).attempt == 2


async def test_what_one_server_does_not_go_on_with_another_takes_over_and_does_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    monkeypatch.setattr("taskq_server.store.verbs.bulk.MOST_A_BATCH", 2)
    ids = await later(here, 20)
    advance, many = here.server._store.advance, 0

    async def dies(step):  # type: ignore[no-untyped-def]
        nonlocal many
        many += 1
        if many > 3:
            await asyncio.Event().wait()
        return await advance(step)

    monkeypatch.setattr(here.server._store, "advance", dies)
    operation = await start(here, reprioritise(9), filter="name:cook")
    while (await get(there, operation.operation_id)).done_tasks < 6:
        pass
    assert await there.server.bulk.tick() > there.clock.now_us(), "while it moves it is the other's"
    assert (await get(there, operation.operation_id)).done_tasks == 6

    there.clock.advance(us=LOOK_US)

    assert (await ended(there, operation.operation_id)).done_tasks == 20
    assert {(await there.scheduler.get(one)).priority for one in ids} == {9}
    assert set(await there.scheduler.states(ids)) == {SCHEDULED}
