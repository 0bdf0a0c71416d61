"""What is done at one server wakes the other: by a ring, and when rings are lost, by a look."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from statistics import median

import pytest

from processor_client import Context, Processor
from scheduler_client import Handle, Scheduler
from tests.e2e.conftest import StartWorld
from tests.support.console import Console
from tests.support.postgres import PostgresProcess
from tests.support.waiting import until_async

ROUNDS = 3
HEARD_SECONDS = 0.4
UNHEARD_SECONDS = 1.5
"""A look a second, give or take a tenth; the walk itself; a look that was under way."""
NOISE_SECONDS = 1
"""Not part of a promise: on two cores that others load too, a process may wait for its turn as long as this."""
LEASE = "60s"
"""So that no heartbeat brings what a look should have found: there is one each 15 s."""
BACK_SECONDS = 5
"""By then a server has a connection for rings again."""

BELLS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = 'taskq' AND application_name LIKE 'taskq/%' "
    "AND query ~ 'LISTEN|pg_notify'"
)
SWALLOW = """
CREATE TABLE lost_ring (lost_time timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION public.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'INSERT INTO lost_ring DEFAULT VALUES';
ALTER DATABASE taskq SET search_path = public, pg_catalog;
"""


@dataclass(frozen=True, slots=True)
class Loss:
    """Of rings: how many were lost up to now, and its end."""

    count: Callable[[], int]
    end: Callable[[], None]


@contextmanager
def swallowed(postgres: PostgresProcess) -> Iterator[Loss]:
    """Who rings is told that it was done, and nobody hears it; from the servers' next connections on."""
    with Console(postgres.url("taskq")) as console:
        console.run(SWALLOW)
        yield Loss(
            lambda: int(console.value("SELECT count(*) FROM lost_ring")),
            lambda: console.run("DROP FUNCTION public.pg_notify"),
        )


@contextmanager
def hung_up(postgres: PostgresProcess) -> Iterator[Loss]:
    """Whatever connection a server has for rings is ended as soon as it is there."""
    over, times = threading.Event(), [0]

    def hang_up() -> None:
        with Console(postgres.url()) as console:
            while not over.wait(0.02):
                for (pid,) in console.rows(BELLS):
                    times[0] += bool(console.value("SELECT pg_terminate_backend($1)", pid))

    def end() -> None:
        over.set()
        thread.join()

    thread = threading.Thread(target=hang_up)
    thread.start()
    try:
        yield Loss(lambda: times[0], end)
    finally:
        end()


class Kitchen:
    """A processor of one server, which notes when its tasks begin and end."""

    def __init__(self, address: str) -> None:
        self.processor = Processor(address, name="kitchen", drain_timeout=1)
        self.processor.task("short")(self._short)
        self.processor.task("endless")(self._endless)
        self._noted: dict[tuple[str, str], float] = {}

    async def _short(self, ctx: Context) -> str:
        self._note("begun", ctx)
        await asyncio.sleep(0.1)
        self._note("ended", ctx)
        return ctx.task_id

    async def _endless(self, ctx: Context) -> None:
        self._note("begun", ctx)
        try:
            await asyncio.sleep(3600)
        finally:
            self._note("ended", ctx)

    def _note(self, what: str, ctx: Context) -> None:
        self._noted[what, ctx.task_id] = time.monotonic()

    async def when(self, what: str, task: Handle) -> float:
        key = what, task.task_id
        return await until_async(lambda: self._noted.get(key, 0.0), f"the task has {what}", 10)


Delays = dict[str, list[float]]


async def what_it_takes(scheduler: Scheduler, kitchen: Kitchen, instants: random.Random) -> Delays:
    """Until what is done at the scheduler's server has reached a processor of another, and the other way round."""
    began: list[float] = []
    cancelled: list[float] = []
    told: list[float] = []
    for _ in range(ROUNDS):
        await asyncio.sleep(instants.uniform(0, 0.5))
        endless = await scheduler.enqueue("endless")
        answered = time.monotonic()
        began.append(await kitchen.when("begun", endless) - answered)

        await asyncio.sleep(instants.uniform(0, 0.5))
        await scheduler.cancel(endless.task_id)
        answered = time.monotonic()
        cancelled.append(await kitchen.when("ended", endless) - answered)

        short = await scheduler.enqueue("short")
        assert await scheduler.result(short.task_id, timeout=10) == short.task_id
        told.append(time.monotonic() - await kitchen.when("ended", short))
    return {"began": began, "was cancelled": cancelled, "had its result told": told}


@pytest.mark.parametrize("lose", [swallowed, hung_up])
async def test_what_is_done_at_one_server_reaches_the_other_in_about_a_second_when_rings_are_lost_and_at_once_when_not(
    start_world: StartWorld,
    durable_postgres: PostgresProcess,
    seed: int,
    lose: Callable[[PostgresProcess], AbstractContextManager[Loss]],
) -> None:
    instants = random.Random(seed)
    with lose(durable_postgres) as loss, Console(durable_postgres.url()) as console:
        world = start_world(
            database_url=durable_postgres.url("taskq"), servers=2, lease_duration=LEASE, log_level="error"
        )
        here, there = world.servers
        kitchen = Kitchen(there.address)
        async with Scheduler(here.address) as scheduler, kitchen.processor:
            unheard = await what_it_takes(scheduler, kitchen, instants)
            lost = loss.count()
            loss.end()
            await until_async(lambda: len(console.rows(BELLS)) == 2, "both have connections for rings", BACK_SECONDS)
            heard = await what_it_takes(scheduler, kitchen, instants)

    print(f"{lost} rings were lost")
    for what in unheard:
        print(f"a task {what} after {max(unheard[what]):.2f} s at most, with rings after {max(heard[what]):.2f} s")
    assert lost >= ROUNDS
    assert max(map(max, unheard.values())) <= UNHEARD_SECONDS + NOISE_SECONDS
    assert max(map(median, heard.values())) <= HEARD_SECONDS
    assert all(server.stop() == 0 for server in world.servers)
