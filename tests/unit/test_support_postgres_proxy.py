"""The proxy before PostgreSQL: a COMMIT that is cut was heard or was not, as was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from taskq_server.store.postgres.engine import engine_of
from tests.support.console import Console
from tests.support.postgres import PostgresProcess
from tests.support.postgres_conversation import Conversation
from tests.support.postgres_proxy import PostgresProxy
from tests.support.postgres_wire import Message
from tests.support.waiting import until, until_async

LOST = (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)
"""What a client is told when its connection is cut."""
INSERT = "INSERT INTO kept VALUES ($1)"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresProcess]:
    with PostgresProcess(fsync=False) as postgres:
        yield postgres


@pytest.fixture(scope="module")
def console(postgres: PostgresProcess) -> Iterator[Console]:
    """Past the proxy."""
    with Console(postgres.url()) as console:
        console.run("CREATE TABLE kept (row int UNIQUE DEFERRABLE INITIALLY DEFERRED); CREATE TABLE other (row int)")
        yield console


@pytest.fixture
def proxy(postgres: PostgresProcess, console: Console) -> Iterator[PostgresProxy]:
    console.run("TRUNCATE kept, other")
    with PostgresProxy(postgres.url()) as proxy:
        yield proxy


Connect = Callable[[], Awaitable[asyncpg.Connection]]


@pytest.fixture
async def connect(proxy: PostgresProxy) -> AsyncIterator[Connect]:
    connections: list[asyncpg.Connection] = []

    async def connect() -> asyncpg.Connection:
        connections.append(await asyncpg.connect(proxy.url, timeout=10))
        return connections[-1]

    yield connect
    for connection in connections:
        connection.terminate()


@pytest.fixture
async def client(connect: Connect) -> asyncpg.Connection:
    return await connect()


async def insert(client: asyncpg.Connection, row: int, commit: str = "COMMIT;") -> None:
    await client.execute("BEGIN;")
    await client.execute(INSERT, row)
    await client.execute(commit)


def kept(console: Console) -> list[int]:
    return [row for (row,) in console.rows("SELECT row FROM kept ORDER BY row")]


async def test_what_is_not_to_be_cut_passes(client: asyncpg.Connection, proxy: PostgresProxy, console: Console) -> None:
    await insert(client, 1)
    assert len(await client.fetchval("SELECT repeat('x', 5000000)")) == 5_000_000
    assert kept(console) == [1]
    assert proxy.cuts == 0


@pytest.mark.parametrize("commit", ["COMMIT;", "commit", "/* no */ SELECT 1; END"])
@pytest.mark.parametrize("before", [True, False])
async def test_a_commit_that_is_cut_is_heard_or_is_not(
    client: asyncpg.Connection, proxy: PostgresProxy, console: Console, before: bool, commit: str
) -> None:
    proxy.cut_at_commit(before=before)
    with pytest.raises(LOST):
        await insert(client, 1, commit)
    assert (proxy.cuts, proxy.is_armed) == (1, False)
    assert kept(console) == ([] if before else [1])


@pytest.mark.parametrize("before", [True, False])
async def test_a_commit_that_is_prepared_and_executed_is_one_too(
    client: asyncpg.Connection, proxy: PostgresProxy, console: Console, before: bool
) -> None:
    commit = await client.prepare("COMMIT")
    await client.execute("BEGIN;")
    await client.execute(INSERT, 1)
    proxy.cut_at_commit(before=before)
    with pytest.raises(LOST):
        await commit.fetch()
    assert kept(console) == ([] if before else [1])


@pytest.mark.parametrize("before", [True, False])
async def test_only_the_transaction_that_said_the_words_is_cut(
    client: asyncpg.Connection, proxy: PostgresProxy, console: Console, before: bool
) -> None:
    await insert(client, 1)  # from here on, the words stand in a prepared statement
    proxy.cut_at_commit(before=before, after=b"INSERT INTO kept")
    async with client.transaction():
        await client.execute("INSERT INTO other VALUES (1)")
    assert proxy.is_armed
    with pytest.raises(LOST):
        await insert(client, 2)
    assert kept(console) == ([1] if before else [1, 2])


async def test_it_is_cut_once(connect: Connect, proxy: PostgresProxy, console: Console) -> None:
    proxy.cut_at_commit(before=True)
    with pytest.raises(LOST):
        await insert(await connect(), 1)
    await insert(await connect(), 1)
    assert kept(console) == [1]


async def test_a_commit_that_fails_is_not_the_one_that_is_cut_after(
    client: asyncpg.Connection, proxy: PostgresProxy, console: Console
) -> None:
    await insert(client, 1)
    proxy.cut_at_commit(before=False)
    with pytest.raises(asyncpg.UniqueViolationError):
        await insert(client, 1)
    assert proxy.is_armed
    with pytest.raises(LOST):
        await insert(client, 2)
    assert kept(console) == [1, 2]


@pytest.mark.parametrize("before", [True, False])
async def test_what_the_servers_own_engine_commits_is_cut(proxy: PostgresProxy, console: Console, before: bool) -> None:
    engine = engine_of(proxy.url)
    proxy.cut_at_commit(before=before, after=b"INSERT INTO kept")
    with pytest.raises((DBAPIError, OSError)):
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO kept VALUES (CAST(:row AS int))"), [{"row": 1}, {"row": 2}])
    await engine.dispose()
    assert kept(console) == ([] if before else [1, 2])


async def test_a_black_hole_lets_nothing_pass_until_it_heals(connect: Connect, proxy: PostgresProxy) -> None:
    client = await connect()
    proxy.black_hole()
    with pytest.raises(TimeoutError):
        await client.fetchval("SELECT 1", timeout=0.1)
    newcomer = asyncio.create_task(connect())
    assert await asyncio.wait([newcomer], timeout=0.1) == (set(), {newcomer})
    assert not client.is_closed()

    proxy.heal()
    assert await (await newcomer).fetchval("SELECT 1") == 1
    assert await (await connect()).fetchval("SELECT 1") == 1


async def test_all_connections_can_be_cut(connect: Connect, proxy: PostgresProxy, console: Console) -> None:
    clients = [await connect() for _ in range(3)]
    await clients[0].execute("BEGIN; LOCK TABLE kept")
    assert proxy.cut_all() == 3
    await until_async(lambda: all(client.is_closed() for client in clients), "all are cut off")
    until(lambda: kept(console) == [], "the server has let go of the lock")
    assert await (await connect()).fetchval("SELECT 1") == 1


async def test_who_is_in_a_black_hole_can_be_cut_off(connect: Connect, proxy: PostgresProxy) -> None:
    client = await connect()
    proxy.black_hole()
    assert proxy.cut_all() == 1
    await until_async(client.is_closed, "it is cut off")


async def test_newcomers_can_be_refused_while_those_who_are_there_stay(connect: Connect, proxy: PostgresProxy) -> None:
    client = await connect()
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connect()
    assert await client.fetchval("SELECT 1") == 1
    proxy.heal()
    assert await (await connect()).fetchval("SELECT 1") == 1


async def test_a_statement_can_be_cancelled_through_it(client: asyncpg.Connection) -> None:
    with pytest.raises(TimeoutError):
        await client.execute("SELECT pg_sleep(60)", timeout=0.1)
    assert await client.fetchval("SELECT 1") == 1


async def test_a_server_that_is_away_hangs_up(connect: Connect, postgres: PostgresProcess) -> None:
    client = await connect()
    await asyncio.to_thread(postgres.stop)
    await until_async(client.is_closed, "it is cut off")
    with pytest.raises(LOST):
        await connect()
    await asyncio.to_thread(postgres.start)
    assert await (await connect()).fetchval("SELECT 1") == 1


def test_a_word_that_only_looks_like_a_commit_is_none() -> None:
    said = Conversation()
    assert not said.asks(Message(b"Q", b"INSERT INTO kept SELECT 'COMMIT'\0"))
    assert not said.asks(Message(b"P", b"s\0COMMIT\0\0\0"))
    assert not said.asks(Message(b"B", b"p\0s\0\0\0"))
    assert said.asks(Message(b"E", b"p\0\0\0\0\0"))
    assert not said.asks(Message(b"E", b"other\0\0\0\0\0"))
