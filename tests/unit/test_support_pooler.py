"""The pooler breaks what PgBouncer in transaction mode breaks, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from taskq_server.store.postgres.engine import engine_of
from tests.support.console import Console
from tests.support.pooler import SIZE, Pooler
from tests.support.postgres import PostgresProcess
from tests.support.waiting import until_async


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresProcess]:
    with PostgresProcess(fsync=False) as postgres:
        yield postgres


@pytest.fixture(params=["tcp", "socket"])
def pooler(postgres: PostgresProcess, request: pytest.FixtureRequest) -> Iterator[Pooler]:
    with Pooler(postgres.url() if request.param == "tcp" else postgres.socket_url()) as pooler:
        yield pooler


@pytest.fixture
async def client(pooler: Pooler) -> AsyncIterator[asyncpg.Connection]:
    client = await asyncpg.connect(pooler.url, statement_cache_size=0, timeout=10)
    yield client
    await client.close(timeout=10)


async def pid(client: asyncpg.Connection) -> int:
    async with client.transaction():
        return await client.fetchval("SELECT pg_backend_pid()")  # type: ignore[no-any-return]


async def test_no_two_transactions_of_a_client_share_a_connection(pooler: Pooler, client: asyncpg.Connection) -> None:
    pids = [await pid(client) for _ in range(40)]
    assert all(one != other for one, other in pairwise(pids))
    assert set(pids) == pooler.backends
    assert len(pooler.backends) == SIZE
    assert pooler.transactions == 40


async def test_all_statements_of_a_transaction_share_one(client: asyncpg.Connection) -> None:
    async with client.transaction():
        pids = {await client.fetchval("SELECT pg_backend_pid() + $1", 0) for _ in range(10)}
    assert len(pids) == 1


async def test_statements_without_a_transaction_are_one_each(client: asyncpg.Connection) -> None:
    await client.execute("CREATE TEMP TABLE mine (n int)")
    with pytest.raises(asyncpg.UndefinedTableError):
        await client.execute("SELECT * FROM mine")


async def test_a_failed_transaction_keeps_its_connection_until_it_is_rolled_back(
    pooler: Pooler, client: asyncpg.Connection
) -> None:
    await client.execute("BEGIN")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await client.execute("SELECT 1/0")
    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        await client.execute("SELECT 1")
    await client.execute("ROLLBACK")
    assert pooler.transactions == 1


async def test_a_prepared_statement_does_not_outlive_its_transaction(client: asyncpg.Connection) -> None:
    async with client.transaction():
        statement = await client.prepare("SELECT 1", name="mine")
        assert await statement.fetchval() == 1
    with pytest.raises(asyncpg.InvalidSQLStatementNameError):
        async with client.transaction():
            await statement.fetchval()


async def test_a_setting_does_not_outlive_its_transaction(client: asyncpg.Connection) -> None:
    await client.execute("SET lock_timeout = '7s'")
    async with client.transaction():
        assert await client.fetchval("SHOW lock_timeout") == "0"


async def test_the_settings_that_pgbouncer_tracks_do(pooler: Pooler) -> None:
    settings = {"application_name": "it's me", "timezone": "Asia/Tokyo"}
    client = await asyncpg.connect(pooler.url, server_settings=settings, statement_cache_size=0)
    for _ in range(SIZE):
        async with client.transaction():
            assert await client.fetchval("SHOW application_name") == "it's me"
            assert await client.fetchval("SHOW timezone") == "Asia/Tokyo"
    await client.execute("SET timezone = 'UTC'")
    async with client.transaction():
        assert await client.fetchval("SHOW timezone") == "UTC"
    await client.close()


async def test_notifications_do_not_arrive(client: asyncpg.Connection, postgres: PostgresProcess) -> None:
    heard: list[object] = []
    await client.add_listener("news", lambda *news: heard.append(news))
    with Console(postgres.url()) as console:
        console.run("NOTIFY news")
    await client.execute("SELECT 1")  # by another connection than that which listens
    assert heard == []
    client._listeners.clear()  # or its close would wonder


@pytest.mark.parametrize("setting", ["statement_timeout", "jit"])
async def test_other_settings_are_refused_at_the_start(pooler: Pooler, setting: str) -> None:
    with pytest.raises(asyncpg.ProtocolViolationError, match=f"unsupported startup parameter: {setting}"):
        await asyncpg.connect(pooler.url, server_settings={setting: "off"})


async def test_what_the_server_refuses_the_client_is_told(pooler: Pooler) -> None:
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(f"{pooler.url.rpartition('/')[0]}/nowhere")


async def test_more_clients_than_connections_take_turns(pooler: Pooler) -> None:
    clients = [await asyncpg.connect(pooler.url, statement_cache_size=0) for _ in range(3 * SIZE)]

    async def work(client: asyncpg.Connection) -> None:
        for _ in range(5):
            await pid(client)

    await asyncio.gather(*(work(client) for client in clients))
    assert pooler.transactions == 5 * len(clients)
    assert len(pooler.backends) == SIZE
    for client in clients:
        await client.close()


async def test_who_leaves_in_the_midst_of_a_transaction_takes_its_locks_with_it(
    pooler: Pooler, client: asyncpg.Connection, postgres: PostgresProcess
) -> None:
    await client.execute("CREATE TABLE IF NOT EXISTS locked (n int)")
    leaver = await asyncpg.connect(pooler.url, statement_cache_size=0)
    await leaver.execute("BEGIN; LOCK TABLE locked")
    leaver.terminate()
    await client.execute("SET LOCAL lock_timeout = '10s'; LOCK TABLE locked")


async def test_a_statement_can_be_cancelled(pooler: Pooler, client: asyncpg.Connection) -> None:
    with pytest.raises(TimeoutError):
        await client.execute("SELECT pg_sleep(60)", timeout=0.1)
    assert await client.execute("SELECT 1") == "SELECT 1"


async def test_when_the_server_restarts_the_client_is_cut_off_and_the_next_is_served(
    pooler: Pooler, postgres: PostgresProcess
) -> None:
    client = await asyncpg.connect(pooler.url, statement_cache_size=0)
    await client.execute("BEGIN")
    await asyncio.to_thread(postgres.restart)
    await until_async(client.is_closed, "the client is cut off")
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await client.execute("COMMIT")

    client = await asyncpg.connect(pooler.url, statement_cache_size=0)
    assert await pid(client) > 0
    await client.close()


async def test_the_servers_own_engine_works_once_it_knows_of_the_pooler(pooler: Pooler) -> None:
    with pytest.raises(DBAPIError, match="unsupported startup parameter"):
        await engine_of(pooler.url).connect()

    engine = engine_of(pooler.url, pooler=True)
    async with engine.connect() as connection:
        for number in range(10):
            async with connection.begin():
                assert (await connection.execute(text("SELECT CAST(:n AS int)"), {"n": number})).scalar() == number
    await engine.dispose()
