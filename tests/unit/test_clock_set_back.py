"""A database's clock that is set back, as after a fail-over, stops none of the loops that live by it."""

from __future__ import annotations

import asyncio

import pytest

from taskq_server.clock import SECOND_US, Alarm, DatabaseClock


@pytest.fixture
def clock() -> DatabaseClock:
    return DatabaseClock()


def set_back(clock: DatabaseClock, seconds: float) -> None:
    clock.heard(clock.now_us() - round(seconds * SECOND_US), clock.monotonic_us())


async def test_who_waits_for_a_moment_looks_again_when_the_clock_is_set_back(clock: DatabaseClock) -> None:
    waiting = asyncio.create_task(Alarm(clock).wait(clock.now_us() + SECOND_US // 2))
    await asyncio.sleep(0)

    set_back(clock, 3600)

    await asyncio.wait_for(waiting, 10)


async def test_a_clock_that_is_put_right_by_a_little_wakes_nobody(clock: DatabaseClock) -> None:
    until_us = clock.now_us() + SECOND_US // 2
    waiting = asyncio.create_task(Alarm(clock).wait(until_us))
    await asyncio.sleep(0)

    set_back(clock, 0.01)
    await waiting

    assert clock.now_us() >= until_us
