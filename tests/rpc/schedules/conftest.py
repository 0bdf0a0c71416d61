"""A server that fires what is due when a test lets it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conftest import StartServer
from tests.rpc.world import World
from tests.support.schedules import RawSchedules


@pytest.fixture
async def world(start_server: StartServer) -> AsyncIterator[World]:
    """As elsewhere, with a lease of an hour: processors need not be heard from one minute to the next."""
    world = World(start_server)
    await world.begin(lease_duration=3600)
    yield world
    await world.end()


@pytest.fixture
def schedules(world: World) -> RawSchedules:
    return RawSchedules(world.channel())
