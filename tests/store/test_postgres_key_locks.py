"""Keys are locked while they are asked for, and the instance has room for only so many locks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from taskq_server.clock import DatabaseClock
from taskq_server.store.migrate import to_head
from taskq_server.store.postgres.engine import engine_of
from taskq_server.store.postgres.store import Postgres
from tests.store.conftest import RULES
from tests.store.given import a_task
from tests.support.postgres import PostgresProcess


@pytest.fixture
def small_url() -> Iterator[str]:
    """Of an instance with room for about two thousand locks."""
    with PostgresProcess(fsync=False, max_connections=30) as process:
        yield process.url()


async def test_servers_that_enqueue_thousands_of_keys_at_once_find_room_for_their_locks(small_url: str) -> None:
    engine = engine_of(small_url, settings={})
    async with engine.begin() as connection:
        await connection.run_sync(to_head)
    await engine.dispose()
    stores = [await Postgres.open(small_url, DatabaseClock(), RULES) for _ in range(2)]

    calls = [
        stores[server].add([a_task(key=f"{server} {call} {i}") for i in range(1_000)])
        for server in range(2)
        for call in range(4)
    ]
    await asyncio.gather(*calls)

    for store in stores:
        await store.close()
