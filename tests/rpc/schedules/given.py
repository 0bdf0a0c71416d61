"""What the tests of schedules do and look at."""

from __future__ import annotations

from taskq.v1 import schedule_service_pb2 as schedule_pb2
from tests.rpc.support import microseconds
from tests.rpc.world import World
from tests.support.schedules import RawSchedules, tasks_of

MINUTE = 60_000_000


async def fire(world: World, seconds: float = 0) -> int:
    """Moves the clock, and lets the server fire what is due by then."""
    await world.renews()
    world.clock.advance(seconds)
    return await world.server.firer.tick()


def until(world: World, made: schedule_pb2.Schedule) -> float:
    """How many seconds it is until a schedule fires."""
    return (microseconds(made.next_fire_time) - world.clock.now_us()) / 1e6


async def nominal_times(world: World, name: str = "nightly") -> list[int]:
    """The nominal times of all tasks of a schedule, as their headers say."""
    return [one.nominal_us for one in await tasks_of(world.server._store, name)]


async def counted(schedules: RawSchedules) -> tuple[int, int, int]:
    counters = (await schedules.get(name="nightly")).counters
    return counters.fired, counters.skipped, counters.overlapped
