"""A COMMIT whose answer is lost in a crash of PostgreSQL: what it cannot know, it does not say.

After a crash PostgreSQL gives the numbers of transactions that were not yet in its log to others, so `pg_xact_status`
may call a transaction committed of which nothing is left.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from taskq_server.clock import DatabaseClock
from taskq_server.core.errors import StorageUnavailable
from taskq_server.core.task import EnqueueOutcome
from taskq_server.store.migrate import to_head
from taskq_server.store.postgres.engine import engine_of
from taskq_server.store.postgres.store import Postgres
from tests.store.conftest import RULES
from tests.store.given import a_task, added, an_id
from tests.support.console import connect
from tests.support.postgres import PostgresProcess


@pytest.fixture
def process() -> Iterator[PostgresProcess]:
    """One of the test's own, which it may kill."""
    with PostgresProcess(fsync=False, restart_after_crash="on") as process:
        yield process


@pytest.fixture
async def store(process: PostgresProcess) -> Postgres:
    engine = engine_of(process.url(), settings={})
    async with engine.begin() as connection:
        await connection.run_sync(to_head)
    await engine.dispose()
    return await Postgres.open(process.url(), DatabaseClock(), RULES)


async def the_numbers_are_given_again(url: str) -> None:
    """Others commit, each with the next number."""
    async with asyncio.timeout(20):
        while True:
            try:
                other = await connect(url)
            except Exception:  # noqa: BLE001 - it recovers
                await asyncio.sleep(0.05)
                continue
            break
    for _ in range(20):
        await other.execute("INSERT INTO meta VALUES ('another', '') ON CONFLICT (key) DO UPDATE SET value = ''")
    await other.close()


@pytest.mark.parametrize("how", ["all of it is restarted", "one of its processes is killed"])
async def test_what_a_crash_has_undone_is_never_answered(
    process: PostgresProcess, store: Postgres, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    await added(store, a_task())
    lost, crashes = an_id(), []
    commit = AsyncConnection.commit

    async def crash_first(connection: AsyncConnection) -> None:
        if not crashes:
            crashes.append(how)
            pid = (await connection.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one()
            if how.startswith("all"):
                process.restart("immediate")
            else:
                os.kill(pid, signal.SIGKILL)
            await the_numbers_are_given_again(process.url())
        await commit(connection)

    enqueuing = asyncio.create_task(store.add([a_task(task_id=lost)]))
    monkeypatch.setattr(AsyncConnection, "commit", crash_first)
    with pytest.raises(StorageUnavailable):
        await enqueuing

    assert crashes
    (again,) = await store.add([a_task(task_id=lost)])
    assert again.outcome is EnqueueOutcome.CREATED, "nothing was left of it"
    await store.close()
