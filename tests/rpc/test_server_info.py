"""What a server says of itself."""

from __future__ import annotations

import os

import pytest

from taskq.v1 import admin_service_pb2 as admin_pb2
from taskq_server.config import Config
from taskq_server.store import migrate
from tests.rpc.support import microseconds, soon
from tests.rpc.world import Pair, World


async def info(world: World) -> admin_pb2.GetServerInfoResponse:
    return await soon(world.admin.stub.GetServerInfo(admin_pb2.GetServerInfoRequest()))  # type: ignore[no-any-return]


async def test_a_server_says_what_it_is_since_when_and_on_what(world: World, database_url: str) -> None:
    began_us = world.clock.now_us()
    world.clock.advance(60)
    said = await info(world)
    assert said.version and said.python_version and said.grpc_version
    assert list(said.api_versions) == ["taskq.v1"]
    assert microseconds(said.start_time) == began_us
    assert microseconds(said.server_time) == began_us + 60_000_000
    assert said.database.kind == database_url.partition(":")[0]
    assert said.database.version[0].isdigit()
    assert said.database.schema_version == migrate.HEAD


async def test_every_setting_is_told_by_the_name_of_its_variable(world: World) -> None:
    said = (await info(world)).settings
    assert set(said) == {f"TASKQ_{name.upper()}" for name in Config.model_fields}
    assert said["TASKQ_LEASE_DURATION"] == "30.0"
    assert said["TASKQ_PGBOUNCER"] == "false"


def test_no_password_is_told() -> None:
    config = Config(database_url="postgresql://ann:s3cret@db.example/taskq?password=s3cret")
    assert "s3cret" not in str(config.told())
    assert "db.example" in config.told()["TASKQ_DATABASE_URL"]


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_all_servers_that_live_on_the_database_are_named(pair: Pair) -> None:
    here, there = pair
    servers = (await info(here)).servers
    assert [one.name.rpartition(":")[2] for one in servers] == [str(os.getpid())] * 2
    await there.server.stop()
    assert len((await info(here)).servers) == 1
