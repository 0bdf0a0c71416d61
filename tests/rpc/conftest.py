"""A server whose clock stands still, over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from taskq_server.clock import ManualClock
from taskq_server.config import Config
from taskq_server.server import Server
from tests.conftest import StartServer
from tests.rpc.house import House
from tests.rpc.support import RawScheduler, span
from tests.rpc.world import Neighbour, Pair, World
from tests.support.databases import Databases

DATABASES = ["sqlite", "postgres"]


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What is promised over the wire holds whatever the database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/taskq.db"
    return request.getfixturevalue("postgres_url")  # type: ignore[no-any-return]


@pytest.fixture
async def world(start_server: StartServer) -> AsyncIterator[World]:
    """A server with a manual clock and a lease of 30 s, already started."""
    world = World(start_server)
    await world.begin()
    yield world
    await world.end()


@pytest.fixture
async def narrow_world(start_server: StartServer, tmp_path: Path) -> AsyncIterator[World]:
    """The same behind a Unix socket, whose buffers are small: a processor that does not read soon blocks its stream."""
    world = World(start_server)
    await world.begin(listen=f"unix:{tmp_path}/s")
    yield world
    await world.end()


@pytest.fixture
async def house(start_server: StartServer, database_url: str) -> AsyncIterator[House]:
    """A server that asks who calls, on a clock that stands; already started."""
    clock = ManualClock()
    server = await start_server(clock=clock, auth="required", max_streams=3)
    house = House(server, clock, database_url)
    async with house.stack:
        yield house


@pytest.fixture(params=["ring", "look"])
async def pair(request: pytest.FixtureRequest, start_server: StartServer, postgres_url: str) -> AsyncIterator[Pair]:
    """Two servers on PostgreSQL, already started; `database_url` must be its URL. Those that only look are behind a
    pooler, each transaction on any connection."""
    here, there = Neighbour(start_server), Neighbour(start_server)
    there.clock = here.clock
    rings = request.param == "ring"
    pooled = {} if rings else {"pgbouncer": True, "database_url": request.getfixturevalue("pooler").url}
    for world in (here, there):
        world.rings = rings
        await world.begin(**pooled)
    for world in (here, there):
        await world.server.neighbours.tick()  # type: ignore[union-attr]
    yield here, there
    for world in (here, there):
        await world.end()


@dataclass
class Target:
    """A server that a whole module of tests sends nonsense to."""

    server: Server
    channel: grpc.aio.Channel
    scheduler: RawScheduler
    database_url: str
    canary: str
    """A task that must outlive everything."""


@pytest.fixture(scope="module", params=DATABASES)
def module_database_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, databases: Databases
) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('target')}/taskq.db"
    else:
        with databases.fresh() as url:
            yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target(module_database_url: str) -> AsyncIterator[Target]:
    """One server for a module: with what hundreds of bad requests might leave behind."""
    url = module_database_url
    server = Server(Config(listen="127.0.0.1:0", http_listen="", database_url=url, stop_grace=1))
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        scheduler = RawScheduler(channel)
        canary = await scheduler.enqueue("canary", b"alive", delay=span(3600))
        yield Target(server, channel, scheduler, url, canary)
        assert not server.stopping.is_set(), "the server could not go on"
        assert (await scheduler.get(canary)).payload.data == b"alive"
    await server.stop()
