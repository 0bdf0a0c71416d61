"""An alarm wakes its loop at the time it asked for, or earlier when somebody rings; no ring is lost."""

from __future__ import annotations

import asyncio

from taskq_server.clock import Alarm, ManualClock


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Loop:
    """A loop that waits at an alarm."""

    def __init__(self) -> None:
        self.clock = ManualClock(0)
        self.alarm = Alarm(self.clock)
        self.waiting: asyncio.Task[None] | None = None

    async def wait(self, until_us: int | None) -> None:
        self.waiting = asyncio.create_task(self.alarm.wait(until_us))
        await settle()

    async def woken(self) -> bool:
        assert self.waiting is not None
        await settle()
        return self.waiting.done()


async def test_it_wakes_at_its_time_and_not_before() -> None:
    loop = Loop()
    await loop.wait(10)

    loop.clock.advance(us=9)
    assert not await loop.woken()
    loop.clock.advance(us=1)
    assert await loop.woken()


async def test_a_time_that_is_past_is_not_waited_for() -> None:
    loop = Loop()
    loop.clock.advance(us=10)
    await loop.wait(10)

    assert await loop.woken()


async def test_without_a_time_it_waits_for_a_ring() -> None:
    loop = Loop()
    await loop.wait(None)
    loop.clock.advance(us=1 << 50)
    assert not await loop.woken()

    loop.alarm.ring()
    assert await loop.woken()


async def test_a_ring_for_an_earlier_time_wins() -> None:
    loop = Loop()
    await loop.wait(100)

    loop.alarm.ring(50)
    assert not await loop.woken()
    loop.clock.advance(us=49)
    assert not await loop.woken()
    loop.clock.advance(us=1)
    assert await loop.woken()


async def test_a_ring_for_a_later_time_does_not_put_off_the_waking() -> None:
    loop = Loop()
    await loop.wait(50)

    loop.alarm.ring(100)
    loop.clock.advance(us=50)

    assert await loop.woken()


async def test_of_many_rings_the_earliest_counts() -> None:
    loop = Loop()
    await loop.wait(None)
    for at in (70, 30, 90, 30, 50):
        loop.alarm.ring(at)

    loop.clock.advance(us=29)
    assert not await loop.woken()
    loop.clock.advance(us=1)
    assert await loop.woken()


async def test_a_ring_while_the_loop_is_at_work_is_not_lost() -> None:
    loop = Loop()
    loop.alarm.ring()

    await loop.wait(None)

    assert await loop.woken()


async def test_a_ring_for_later_while_the_loop_is_at_work_is_not_lost() -> None:
    loop = Loop()
    loop.alarm.ring(20)
    await loop.wait(100)
    assert not await loop.woken()

    loop.clock.advance(us=20)
    assert await loop.woken()


async def test_a_ring_wakes_once() -> None:
    loop = Loop()
    loop.alarm.ring()
    await loop.wait(None)
    assert await loop.woken()

    await loop.wait(None)
    assert not await loop.woken()


async def test_a_ring_in_the_moment_of_waking_is_not_lost() -> None:
    """The loop's wait is over, but the loop has not run on yet."""
    loop = Loop()
    await loop.wait(10)
    loop.clock.advance(us=10)
    loop.alarm.ring(0)
    assert await loop.woken()

    await loop.wait(None)
    woken = await loop.woken()

    assert woken or loop.alarm._rung_for_us > 0  # it was seen by this waking, or brings about the next


async def test_an_old_sleepers_time_does_not_wake_a_later_wait() -> None:
    loop = Loop()
    await loop.wait(10)
    loop.alarm.ring()
    assert await loop.woken()
    await loop.wait(100)

    loop.clock.advance(us=10)

    assert not await loop.woken()
    loop.clock.advance(us=90)
    assert await loop.woken()


async def test_two_loops_at_one_clock_do_not_disturb_each_other() -> None:
    one = Loop()
    two = Loop()
    two.clock = one.clock
    two.alarm = Alarm(one.clock)
    await one.wait(10)
    await two.wait(20)

    one.clock.advance(us=10)
    assert (await one.woken(), await two.woken()) == (True, False)
    two.alarm.ring()
    assert await two.woken()


async def test_a_loop_that_is_stopped_while_it_waits_lets_go() -> None:
    loop = Loop()
    await loop.wait(10)
    assert loop.waiting is not None
    loop.waiting.cancel()
    await asyncio.gather(loop.waiting, return_exceptions=True)

    assert loop.waiting.cancelled()
    loop.clock.advance(us=10)  # and nobody minds
