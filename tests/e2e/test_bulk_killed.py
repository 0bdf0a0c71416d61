"""Servers that do the same to many tasks are killed with -9 in the middle of it: it is done to each, once."""

from __future__ import annotations

import random
from typing import Any

import grpc
import pytest

from taskq.v1 import admin_service_pb2_grpc
from taskq.v1 import bulk_operation_pb2 as bulk_pb2
from taskq.v1.scheduler_service_pb2 import NewTask
from tests.e2e.conftest import StartWorld
from tests.support import truth
from tests.support.raw import RawScheduler, connected
from tests.support.waiting import let_pass, until
from tests.support.world import World

TASKS, AT_ONCE = 30_000, 1_000
MOST_KILLS = 5
ID = "01935000-0000-7000-8000-00000000000b"
GOING_ON, DONE = bulk_pb2.BULK_OPERATION_STATE_RUNNING, bulk_pb2.BULK_OPERATION_STATE_SUCCEEDED


def enqueue(world: World) -> None:
    """Tasks that nobody runs."""
    later = NewTask(name="nobody")
    later.delay.seconds = 3_600
    with connected(world.server.address) as channel:
        for _ in range(TASKS // AT_ONCE):
            RawScheduler(channel).enqueue(*[later] * AT_ONCE)


def start(world: World, action: bulk_pb2.BulkAction) -> None:
    request = bulk_pb2.StartBulkOperationRequest(operation_id=ID, filter="name:nobody", action=action)
    with connected(world.server.address) as channel:
        admin_service_pb2_grpc.AdminServiceStub(channel).StartBulkOperation(request, timeout=20)


def standing(world: World) -> bulk_pb2.BulkOperation:
    """As the last server tells it."""
    with connected(world.servers[-1].address) as channel:
        stub = admin_service_pb2_grpc.AdminServiceStub(channel)
        return stub.GetBulkOperation(bulk_pb2.GetBulkOperationRequest(operation_id=ID), timeout=20).operation


def ended(world: World) -> bulk_pb2.BulkOperation | None:
    try:
        operation = standing(world)
    except grpc.RpcError:
        return None
    return None if operation.state == GOING_ON else operation


CANCEL = bulk_pb2.BulkAction(cancel=bulk_pb2.CancelAction())
ACTIONS = [("sqlite", CANCEL), ("postgres", CANCEL)]


@pytest.mark.parametrize(("kind", "action"), ACTIONS, ids=[kind for kind, _ in ACTIONS])
def test_what_is_done_to_many_is_done_to_each_once_though_the_servers_at_it_are_killed(
    request: pytest.FixtureRequest, start_world: StartWorld, kind: str, action: bulk_pb2.BulkAction, seed: int
) -> None:
    """On PostgreSQL the server that is at it is not started again: the other takes over."""
    given: dict[str, Any] = {"log_level": "warning"}
    if kind == "postgres":
        given |= {"database_url": request.getfixturevalue("durable_postgres_url"), "servers": 2}
    world, instants = start_world(**given), random.Random(seed)
    enqueue(world)
    start(world, action)

    kills, seen = 0, []
    while kills < (1 if kind == "postgres" else MOST_KILLS):
        let_pass(instants.uniform(0.05, 0.5))
        seen.append(standing(world).done_tasks)
        world.server.kill()
        kills += 1
        if kind == "sqlite":
            world.server.start()

    operation = until(lambda: ended(world), "the end of the operation", seconds=60)
    print(f"{kills} kills after {seen} of {TASKS:,}")
    assert (operation.state, operation.matched_tasks) == (DONE, TASKS)
    assert (operation.done_tasks, operation.skipped_tasks) == (TASKS, 0), "what is done twice would be skipped"
    assert truth.rows(world.database_url, "SELECT state, count(*) FROM task GROUP BY state") == [(5, TASKS)]
    assert seen[0] < TASKS, "it was killed in the middle"
