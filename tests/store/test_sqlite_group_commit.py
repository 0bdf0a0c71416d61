"""On SQLite there is one queue for everything that is written: also different verbs share a commit."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest
from sqlalchemy import exc

from taskq_server.core.errors import StorageUnavailable
from taskq_server.core.task import EnqueueOutcome
from taskq_server.store.store import Store
from taskq_server.store.transaction import Transaction
from tests.store.conftest import SQLiteFile
from tests.store.given import Gate, a_processor, a_task, added, lease, running, succeeded


@pytest.fixture
def database(sqlite_database: SQLiteFile) -> SQLiteFile:
    return sqlite_database


async def test_different_verbs_share_a_commit_too(store: Store) -> None:
    oven = await a_processor(store)
    (assignment,) = await running(store, oven, a_task())
    gate = Gate()
    held = await gate.hold(store)
    seqs: list[Transaction] = []

    def note(tx: Transaction, items: list[Any]) -> list[Any]:
        seqs.append(tx)
        return items

    everything = [
        asyncio.create_task(one)
        for one in (
            store.add([a_task()]),
            store.write(note, [1]),
            store.end([succeeded(assignment)]),
            lease(store, oven),
            store.write(lambda tx, items: note(tx, items), [2]),
            store.reclaim(),
        )
    ]
    await asyncio.sleep(0)
    gate.open()
    answers = await asyncio.gather(*everything)
    await held

    assert answers[0][0].outcome is EnqueueOutcome.CREATED
    assert answers[1] == [1] and answers[4] == [2]
    assert len(seqs) == 2 and seqs[0] is seqs[1]


async def test_the_driver_saying_busy_is_unavailable_and_nothing_worse(store: Store, database: SQLiteFile) -> None:
    def busy(tx: Transaction, items: list[Any]) -> list[Any]:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode, error.sqlite_errorname = 5, "SQLITE_BUSY"
        raise exc.OperationalError("UPDATE", (), error)

    with pytest.raises(StorageUnavailable):
        await store.write(busy, [None])

    assert database.fatal == []
    await added(store, a_task())
