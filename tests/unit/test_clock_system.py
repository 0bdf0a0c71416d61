"""Time goes on: forward steps are followed, backward steps met at half speed, and it never goes back."""

from __future__ import annotations

import asyncio
import sys
import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq_server.clock import SECOND_US, SystemClock


class Machine:
    """A machine whose clocks are set by hand."""

    def __init__(self, wall_us: int = 1_000 * SECOND_US) -> None:
        self.wall = wall_us
        self.monotonic = 5
        self.clock = SystemClock(wall_us=lambda: self.wall, monotonic_us=lambda: self.monotonic)

    def run(self, us: int) -> int:
        self.wall += us
        self.monotonic += us
        return self.clock.now_us()


def test_it_tells_the_wall_clocks_time() -> None:
    machine = Machine()

    assert machine.clock.now_us() == machine.wall
    assert machine.run(7 * SECOND_US) == machine.wall
    assert machine.run(1) == machine.wall


def test_a_step_forward_is_followed_at_once() -> None:
    machine = Machine()
    machine.wall += 3_600 * SECOND_US

    assert machine.clock.now_us() == machine.wall


def test_a_step_backward_does_not_take_time_back_and_does_not_stop_it() -> None:
    machine = Machine()
    before = machine.clock.now_us()
    machine.wall -= 3_600 * SECOND_US

    assert machine.clock.now_us() == before
    assert machine.run(10 * SECOND_US) == before + 5 * SECOND_US


def test_a_step_backward_is_met_in_as_long_as_the_step_was() -> None:
    machine = Machine()
    machine.wall -= 60 * SECOND_US
    for _ in range(119):
        machine.run(SECOND_US)
        assert machine.clock.now_us() > machine.wall
    machine.run(SECOND_US)

    assert machine.clock.now_us() == machine.wall
    assert machine.run(SECOND_US) == machine.wall


def test_it_moves_on_though_it_is_asked_every_microsecond() -> None:
    machine = Machine()
    before = machine.clock.now_us()
    machine.wall -= 3_600 * SECOND_US
    for _ in range(1_000):
        machine.run(1)

    assert machine.clock.now_us() == before + 500


def test_a_clock_that_is_slewed_is_followed() -> None:
    machine = Machine()
    for _ in range(100):
        machine.monotonic += 1_000
        machine.wall += 999
        machine.clock.now_us()

    assert abs(machine.clock.now_us() - machine.wall) <= 1_000


def test_it_never_answers_less_than_it_was_told_to() -> None:
    machine = Machine()
    machine.clock.not_before(machine.wall + 50 * SECOND_US)

    assert machine.clock.now_us() == machine.wall + 50 * SECOND_US
    machine.clock.not_before(0)
    assert machine.run(SECOND_US) >= machine.wall + 49 * SECOND_US


def test_it_may_start_at_a_time_that_was_reached_before() -> None:
    clock = SystemClock(500, wall_us=lambda: 400, monotonic_us=lambda: 1)

    assert clock.now_us() == 500


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(-(10**10), 10**10))))
def test_it_never_goes_back_and_is_never_behind_the_wall_clock(moves: list[tuple[int, int]]) -> None:
    machine = Machine(10**15)
    told = [machine.clock.now_us()]
    for walked, step in moves:
        machine.wall += step
        told.append(machine.run(walked))
        assert told[-1] >= machine.wall

    assert all(earlier <= later for earlier, later in pairwise(told))


def test_threads_that_ask_together_do_not_make_it_run_ahead_or_back() -> None:
    ticks = iter(range(1 << 40))
    clock = SystemClock(1 << 30, wall_us=lambda: 0, monotonic_us=lambda: next(ticks))
    went_back: list[tuple[int, int]] = []

    def ask() -> None:
        told = [clock.now_us() for _ in range(3_000)]
        went_back.extend((earlier, later) for earlier, later in pairwise(told) if later < earlier)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert went_back == []
    assert clock.now_us() - (1 << 30) <= next(ticks)


async def test_a_sleeper_wakes_at_its_time() -> None:
    clock = SystemClock()
    until = clock.now_us() + 20_000

    await asyncio.wait_for(clock.sleep_until(until, asyncio.Event()), 30)

    assert clock.now_us() >= until


async def test_a_sleeper_wakes_when_it_is_woken() -> None:
    wake = asyncio.Event()
    sleeper = asyncio.create_task(SystemClock().sleep_until(1 << 60, wake))
    await asyncio.sleep(0)
    wake.set()

    await asyncio.wait_for(sleeper, 30)


@pytest.mark.parametrize("time_us", [0, -5])
async def test_a_time_that_is_past_is_not_slept_for(time_us: int) -> None:
    await asyncio.wait_for(SystemClock().sleep_until(time_us, asyncio.Event()), 30)


async def test_a_step_of_the_wall_clock_does_not_make_a_sleeper_late() -> None:
    machine = Machine()
    sleeper = asyncio.create_task(machine.clock.sleep_until(machine.wall + 3_600 * SECOND_US, asyncio.Event()))
    await asyncio.sleep(0)
    machine.wall += 3_600 * SECOND_US

    await asyncio.wait_for(sleeper, 30)
