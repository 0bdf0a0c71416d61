"""What every test may ask for: a real server on a port of its own, in this process or in another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskq_server.clock import Clock
from taskq_server.config import Config
from taskq_server.server import Server
from tests.support.databases import Databases
from tests.support.pooler import Pooler
from tests.support.postgres_proxy import PostgresProxy
from tests.support.process import ServerProcess

StartServer = Callable[..., Awaitable[Server]]


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """Databases on a real PostgreSQL, for every test that asks."""
    with Databases() as databases:
        yield databases


@pytest.fixture
def postgres_url(databases: Databases) -> Iterator[str]:
    """A PostgreSQL database of the test's own, with the tables and nothing in them."""
    with databases.fresh() as url:
        yield url


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[PostgresProxy]:
    """A way to that database which can be held up and cut."""
    with PostgresProxy(postgres_url) as proxy:
        yield proxy


@pytest.fixture
def pooler(postgres_url: str) -> Iterator[Pooler]:
    """A way to that database on which each transaction may have another connection."""
    with Pooler(postgres_url) as pooler:
        yield pooler


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/taskq.db"


@pytest.fixture
async def start_server(database_url: str) -> AsyncIterator[StartServer]:
    """Starts servers in this process: `await start_server(clock=..., lease_duration=2)`; they stop with the test."""
    servers: list[Server] = []

    async def start(clock: Clock | None = None, **settings: Any) -> Server:
        given = {"listen": "127.0.0.1:0", "http_listen": "", "database_url": database_url, "stop_grace": 1.0}
        server = Server(Config(**{**given, **settings}), clock)
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        if not server.stopped:
            await server.stop()


@pytest.fixture
async def server(start_server: StartServer) -> Server:
    """A server with the system's clock and a lease of 30 s; `server.address` is where it listens."""
    return await start_server()


@pytest.fixture
def server_process(database_url: str) -> Iterator[ServerProcess]:
    """A server in a process of its own, which can be killed for real; already started."""
    process = ServerProcess(database_url)
    with process.log:
        process.start()
        yield process
        process.kill()
