"""Servers that fire schedules of every second are killed with -9 again and again: every second is fired once."""

from __future__ import annotations

import random
from typing import Any

import grpc
import pytest

from taskq.v1 import schedule_service_pb2 as schedule_pb2
from taskq.v1 import schedule_service_pb2_grpc
from tests.e2e.conftest import StartWorld
from tests.support import truth
from tests.support.waiting import let_pass
from tests.support.world import World

KILLS = 6
SECOND = 1_000_000
SCHEDULES = ("a", "b", "c")


def stub_of(channel: grpc.Channel) -> Any:
    return schedule_service_pb2_grpc.ScheduleServiceStub(channel)


def create(world: World) -> None:
    """Schedules that fire each second, beside each other, and make up for every second that they miss."""
    with grpc.insecure_channel(world.server.address) as channel:
        for i, name in enumerate(SCHEDULES):
            schedule = schedule_pb2.Schedule(name=name, task={"name": "nobody"})
            schedule.recurrence.interval.seconds = 1
            schedule.recurrence.phase.FromMilliseconds(333 * i)
            schedule.overlap, schedule.catch_up = schedule_pb2.OVERLAP_ALLOW_ALL, schedule_pb2.CATCH_UP_ALL
            stub_of(channel).CreateSchedule(schedule_pb2.CreateScheduleRequest(schedule=schedule), timeout=10)


def pause(world: World) -> dict[str, schedule_pb2.Schedule]:
    """From its answer on nothing fires; how the schedules stand then."""
    with grpc.insecure_channel(world.server.address) as channel:
        request = [schedule_pb2.PauseScheduleRequest(name=name) for name in SCHEDULES]
        return {one.name: stub_of(channel).PauseSchedule(one, timeout=10).schedule for one in request}


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_schedules_of_every_second_fire_every_second_once_though_their_servers_are_killed(
    request: pytest.FixtureRequest, start_world: StartWorld, kind: str, seed: int
) -> None:
    given = {"log_level": "warning"}
    if kind == "postgres":
        given |= {"database_url": request.getfixturevalue("durable_postgres_url"), "servers": 2}
    world, instants = start_world(**given), random.Random(seed)
    create(world)

    for i in range(KILLS):
        let_pass(instants.uniform(0.3, 2))
        killed = world.servers[i % len(world.servers)]
        killed.kill()
        let_pass(instants.uniform(0, 0.5))
        killed.start()
    let_pass(2)
    paused = pause(world)

    found = truth.rows(
        world.database_url,
        "SELECT schedule.name, task.nominal_us FROM task "
        "JOIN schedule ON schedule.schedule_seq = task.schedule_seq ORDER BY 1, 2",
    )
    for name, schedule in paused.items():
        fired = [nominal_us for of, nominal_us in found if of == name]
        first, last = schedule.create_time.ToMicroseconds(), schedule.last_firing.nominal_time.ToMicroseconds()
        assert fired == list(range(fired[0], fired[-1] + SECOND, SECOND)), (
            "no second is missing, and none is there twice"
        )
        assert first < fired[0] <= first + SECOND and fired[-1] == last
        assert len(fired) == schedule.counters.fired >= KILLS
        assert (schedule.counters.missed, schedule.counters.skipped) == (0, 0)
