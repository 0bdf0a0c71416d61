"""A lease whose answer is lost counts: its tasks are found, and go to whoever is there."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from taskq_server.store.postgres import lane
from tests.conftest import StartServer
from tests.rpc.support import RUNNING
from tests.rpc.world import LEASE_SECONDS, World
from tests.support.postgres_proxy import PostgresProxy


@pytest.fixture
def database_url(proxy: PostgresProxy) -> str:
    return proxy.url


@pytest.fixture
async def world(start_server: StartServer) -> AsyncIterator[World]:
    world = World(start_server)
    await world.begin()
    yield world
    await world.end()


async def test_what_was_leased_by_a_commit_that_nobody_could_look_up_is_given_again(
    world: World, proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LOOK_SECONDS", 0)  # as if the database were away for longer
    processor = await world.processor("unlucky", max_in_flight=1)
    proxy.cut_at_commit(before=False, after=b"unlucky")
    task_id = await world.scheduler.enqueue()
    while proxy.is_armed or (await world.scheduler.get(task_id)).state != RUNNING:
        await processor.heartbeat()
    world.clock.advance(1)  # the dispatcher tries again
    await world.dispatched()

    await world.let_pass(LEASE_SECONDS * 0.75, processor)

    await world.dispatched()
    assert (await world.scheduler.get(task_id)).attempt == 2
    assert (await processor.take_one()).task_id == task_id
