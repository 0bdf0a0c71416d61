"""What servers tell each other, when one of them is of another version or slow, or many come at once."""

from __future__ import annotations

import asyncio

from taskq_server.server import Server
from tests.conftest import StartServer
from tests.rpc.world import Neighbour
from tests.support.console import Console


async def test_a_signal_of_a_newer_server_is_passed_over(start_server: StartServer, postgres_url: str) -> None:
    server: Server = await start_server()
    with Console(postgres_url) as console:
        console.run("INSERT INTO signal (server_seq, session_seq, kind) SELECT max(server_seq), 1, 99 FROM server")

    await server.neighbours.tick()  # type: ignore[union-attr]

    assert not server.stopping.is_set()


async def test_processors_whose_server_is_gone_are_taken_over_together(start_server: StartServer) -> None:
    gone, stays = Neighbour(start_server), Neighbour(start_server)
    stays.clock = gone.clock
    await gone.begin()
    await stays.begin()
    processors = [stays.moved(await gone.registered(f"oven-{i}")) for i in range(20)]
    await gone.server.stop()
    transactions = []
    store = stays.server._store
    store._heartbeats._after_commit = transactions.append  # type: ignore[attr-defined]

    await asyncio.gather(*(processor.open() for processor in processors))

    assert len(transactions) < len(processors) / 2
    await stays.end()
    await gone.end()


async def test_two_streams_of_one_session_that_open_at_once_are_of_one_session(start_server: StartServer) -> None:
    gone, stays = Neighbour(start_server), Neighbour(start_server)
    stays.clock = gone.clock
    await gone.begin()
    await stays.begin()
    registered = await gone.registered(max_in_flight=1)
    await gone.server.stop()
    first, second = stays.moved(registered), stays.moved(registered)

    await asyncio.gather(first.open(), second.open())

    assert len(stays.server._sessions.all()) == 1
    await stays.end()
    await gone.end()
