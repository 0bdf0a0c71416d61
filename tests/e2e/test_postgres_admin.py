"""What an administrator says to one server reaches the sessions of another within a second, by the real clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.conftest import StartWorld
from tests.support.raw import RawAdmin, RawProcessor, RawScheduler, a_task, connected
from tests.support.waiting import until

REACHED_SECONDS = {"ring": 1.0, "look": 2.5}
"""A ring takes a twentieth of a second, a look comes after a second; the rest is for a loaded machine."""


@dataclass
class Pair:
    """An administrator and a scheduler at one server, a processor at the other."""

    admin: RawAdmin
    scheduler: RawScheduler
    processor: RawProcessor
    limit_seconds: float

    def reached(self, done: Callable[[], None], seen: Callable[[], bool], what: str) -> None:
        """Fails unless what was `done` is `seen` soon after its answer."""
        done()
        answered = time.monotonic()
        until(seen, what)
        took = time.monotonic() - answered
        assert took < self.limit_seconds, f"{what} took {took:.2f} s"


@pytest.fixture(params=["ring", "look"])
def pair(request: pytest.FixtureRequest, start_world: StartWorld, postgres_url: str) -> Iterator[Pair]:
    """Servers that hear each other's rings, and servers that only look, as behind PgBouncer."""
    settings = {} if request.param == "ring" else {"pgbouncer": "true"}
    world = start_world(database_url=postgres_url, servers=2, **settings)
    one, other = world.servers
    with connected(one.address) as here, connected(other.address) as there:
        processor = RawProcessor(there, "work")
        processor.open_stream()
        scheduler = RawScheduler(here)
        scheduler.enqueue(a_task())
        processor.succeed(processor.take())  # the servers know of each other
        yield Pair(RawAdmin(here), scheduler, processor, REACHED_SECONDS[request.param])
        processor.close()


def test_a_pause_holds_at_once_and_a_resume_reaches_the_other_server(pair: Pair) -> None:
    for _ in range(3):
        pair.admin.pause("work")
        task = a_task()
        pair.scheduler.enqueue(task)
        with pytest.raises(AssertionError, match="no task was pushed"):
            pair.processor.take(seconds=1.5)

        pair.reached(lambda: pair.admin.resume("work"), lambda: not pair.processor.received.empty(), "a task is pushed")

        taken = pair.processor.take()
        assert (taken.task_id, taken.attempt) == (task.task_id, 1)
        pair.processor.succeed(taken)


def test_a_drain_reaches_the_processor_of_the_other_server(pair: Pair) -> None:
    session_id = pair.processor.session_id

    pair.reached(lambda: pair.admin.drain(session_id), pair.processor.drained.is_set, "its processor is told")

    pair.scheduler.enqueue(a_task())
    with pytest.raises(AssertionError, match="no task was pushed"):
        pair.processor.take(seconds=1.5)
    assert pair.processor.heartbeat().drain
    assert not pair.processor.ended.is_set()


def test_a_disconnect_reaches_the_processor_of_the_other_server(pair: Pair) -> None:
    session_id = pair.processor.session_id

    pair.reached(lambda: pair.admin.disconnect(session_id), pair.processor.ended.is_set, "its stream ends")

    assert pair.admin.processors() == []
