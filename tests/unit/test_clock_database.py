"""The time of a shared database, as far as a server has heard it: never off by more than a way there and back."""

from __future__ import annotations

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from taskq_server.clock import SECOND_US, DatabaseClock

WAYS = st.integers(0, 50_000)


class Machine:
    """A machine with a monotonic clock, and a database with one that may be set to any time."""

    def __init__(self) -> None:
        self.monotonic = 7 * SECOND_US
        self.database = 1_700_000_000 * SECOND_US
        self.clock = DatabaseClock(monotonic_us=lambda: self.monotonic)

    def go_on(self, us: int) -> None:
        self.monotonic += us
        self.database += us

    def ask(self, there: int, back: int) -> None:
        """A transaction, whose statement takes so long to come, and its answer to come back."""
        asked = self.monotonic
        self.go_on(there)
        heard = self.database
        self.go_on(back)
        self.clock.heard(heard, asked)


def test_before_it_has_heard_anything_it_is_this_machines() -> None:
    clock = DatabaseClock()

    assert abs(clock.now_us() - time.time_ns() // 1000) < SECOND_US


def test_between_two_answers_it_walks_on_with_this_machine() -> None:
    machine = Machine()
    machine.ask(0, 0)

    machine.go_on(123_456)

    assert machine.clock.now_us() == machine.database


@given(st.lists(st.tuples(WAYS, WAYS, st.integers(0, SECOND_US)), min_size=1))
def test_it_is_where_the_database_is_give_or_take_the_way_there_and_back(
    exchanges: list[tuple[int, int, int]],
) -> None:
    machine = Machine()
    for there, back, pause in exchanges:
        machine.ask(there, back)

        assert -back <= machine.clock.now_us() - machine.database <= there
        assert machine.clock.surely_us() <= machine.database
        machine.go_on(pause)


@given(st.lists(st.tuples(WAYS, WAYS), min_size=1), st.integers(-(10**12), 10**12))
def test_a_step_of_the_databases_clock_is_followed_at_the_next_answer(
    exchanges: list[tuple[int, int]], step: int
) -> None:
    machine = Machine()
    machine.ask(5, 5)
    machine.database += step
    for there, back in exchanges:
        machine.ask(there, back)

        assert -back <= machine.clock.now_us() - machine.database <= there


@given(st.lists(st.tuples(WAYS, WAYS), min_size=2))
def test_while_nobody_sets_a_clock_answers_make_it_only_better(exchanges: list[tuple[int, int]]) -> None:
    machine = Machine()
    worst = 1 << 60
    for there, back in exchanges:
        machine.ask(there, back)

        off = abs(machine.clock.now_us() - machine.database)
        assert off <= worst
        worst = off


async def test_a_sleeper_wakes_when_he_is_called() -> None:
    machine, wake = Machine(), asyncio.Event()
    sleeping = asyncio.create_task(machine.clock.sleep_until(machine.clock.now_us() + 3600 * SECOND_US, wake))
    await asyncio.sleep(0)

    wake.set()

    await asyncio.wait_for(sleeping, 5)


async def test_a_sleeper_whose_time_has_come_does_not_sleep() -> None:
    machine = Machine()

    await asyncio.wait_for(machine.clock.sleep_until(machine.clock.now_us(), asyncio.Event()), 5)
