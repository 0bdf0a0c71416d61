"""Rows that benchmarks write past the server are such as it would have left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from benchmarks import database as measured
from benchmarks import rows
from benchmarks.rows import NAMES, POSTGRES, SQLITE
from taskq_server.clock import ManualClock
from taskq_server.core.task import EnqueueOutcome, TaskState
from tests.store.conftest import Database, SQLiteFile
from tests.store.given import a_processor, a_task, lease, leased_ids, outcomes, the_task
from tests.store.given import rows as found_rows
from tests.support.console import Console

DAY_SECONDS = rows.DAY_US / 1_000_000

Fill = Callable[..., None]


@pytest.fixture
def fill(database: Database, clock: ManualClock) -> Iterator[Fill]:
    """Writes rows into the database, before a server is started on it."""
    if isinstance(database, SQLiteFile):
        file = measured.SQLiteFile(database.path.parent)
        yield partial(rows.fill, partial(file.ask, of=database.path.stem), SQLITE, clock.now_us())
    else:
        with Console(database.url) as console:
            yield partial(rows.fill, console.value, POSTGRES, clock.now_us())


async def test_what_waits_is_dispatched_when_its_day_has_come(
    fill: Fill, database: Database, clock: ManualClock
) -> None:
    fill(waiting=30)
    store = await database.open(clock)
    processor = await a_processor(store, *NAMES)
    assert await leased_ids(store, processor) == []
    clock.advance(DAY_SECONDS)
    assignments = (await lease(store, processor)).assignments
    assert len(assignments) == 30
    assert {assignment.route.name for assignment in assignments} == set(NAMES)
    assert {assignment.payload and assignment.payload.data for assignment in assignments} == {rows.PAYLOAD}


async def test_what_has_succeeded_is_kept_for_its_retention_and_then_pruned(
    fill: Fill, database: Database, clock: ManualClock
) -> None:
    fill(finished=30)
    store = await database.open(clock)
    ids = [bytes(row["task_id"]) for row in await found_rows(store, "SELECT task_id FROM task")]
    assert {(await the_task(store, task_id)).state for task_id in ids} == {TaskState.SUCCEEDED}
    assert (await store.prune(0)).tasks == 0
    clock.advance(us=rows.RETENTION_US)
    assert (await store.prune(0)).tasks == len(ids) == 30


async def test_new_tasks_come_after_them(fill: Fill, database: Database, clock: ManualClock) -> None:
    fill(waiting=3, finished=3)
    store = await database.open(clock)
    answers = await store.add([a_task(NAMES[0]) for _ in range(3)])
    assert outcomes(answers) == [EnqueueOutcome.CREATED] * 3
    processor = await a_processor(store, *NAMES)
    assert await leased_ids(store, processor) == [answer.task_id for answer in answers]
