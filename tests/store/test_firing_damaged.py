"""A schedule that cannot be read or used holds up no other, and is told of."""

from __future__ import annotations

from collections import Counter

import pytest
from structlog.testing import capture_logs

from taskq_server.clock import ManualClock
from taskq_server.core.recurring import Key
from taskq_server.core.schedule import Overlap
from taskq_server.store.store import Store
from tests.store.firings import firings, the_schedule
from tests.store.given import (
    a_processor,
    a_schedule,
    days,
    end,
    hours,
    lease,
    minutes,
    rows,
    seconds,
    succeeded,
    tamper,
)

BAD_ROWS = {
    "a rule that is no JSON": "rule = '{'",
    "a rule of a newer server": """rule = replace(rule, '"phase_us"', '"moon_us"')""",
    "crons that are none": """rule = replace(rule, '"crons":[]', '"crons"\\:5')""",
    "a span that is none": """rule = replace(rule, '"interval_us"\\:60000000', '"interval_us":"often"')""",
    "jitter that is none": """rule = replace(rule, '"jitter_us"\\:0', '"jitter_us":"some"')""",
    "a zone that is gone": """rule = replace(rule, '"UTC"', '"Gone/Zone"')""",
    "no next nominal time": "next_us = NULL",
    "headers that are none": """task = replace(task, '"name":', '"headers"\\:5,"name":')""",
    "a task that is no JSON": "task = 'x'",
}


@pytest.mark.parametrize("bad", BAD_ROWS.values(), ids=BAD_ROWS)
async def test_a_schedule_that_cannot_be_read_or_used_does_not_hold_up_the_others(
    store: Store, clock: ManualClock, bad: str
) -> None:
    for name in ("a", "bad", "z"):
        await store.create_schedule(a_schedule(name, every=minutes(1)))
    before = await rows(store, "SELECT rule, task, next_us FROM schedule WHERE name = 'bad'")
    await tamper(store, f"UPDATE schedule SET {bad} WHERE name = 'bad'")  # noqa: S608 - our own words
    assert await rows(store, "SELECT rule, task, next_us FROM schedule WHERE name = 'bad'") != before
    clock.advance(us=minutes(1))

    with capture_logs() as logged:
        await store.fire(0)

    assert [name for name, _ in await firings(store)] == ["a", "z"]
    assert [line["name"] for line in logged if line["log_level"] == "error"] == ["bad"]
    first_due_us = (await store.to_fire()).first_due_us
    assert first_due_us is not None and first_due_us > clock.now_us()


async def test_a_bad_schedule_with_a_firing_that_waits_holds_up_nobody_and_is_told_of_once_a_minute(
    store: Store, clock: ManualClock
) -> None:
    for name in ("bad", "good"):
        await store.create_schedule(a_schedule(name, every=minutes(1), overlap=Overlap.BUFFER_ALL, jitter=seconds(1)))
    for _ in range(2):
        clock.advance(us=minutes(1) + seconds(1))
        await store.fire(0)
    oven = await a_processor(store)
    for assignment in (await lease(store, oven)).assignments:
        await end(store, succeeded(assignment))
    await tamper(store, """UPDATE schedule SET rule = replace(rule, '"UTC"', '"Gone/Zone"') WHERE name = 'bad'""")

    told = []
    for _ in range(4):
        with capture_logs() as logged:
            await store.fire(0)
        told += [line["name"] for line in logged]
        clock.advance(us=seconds(0.25))

    assert told == ["bad"]
    assert Counter(name for name, _ in await firings(store)) == {"bad": 1, "good": 2}
    assert (await the_schedule(store, Key(None, "good"))).buffered == 0
    clock.advance(us=minutes(1))
    with capture_logs() as logged:
        await store.fire(0)
    assert "bad" in {line["name"] for line in logged}


async def test_what_was_postponed_is_not_fired_before_its_time(store: Store, clock: ManualClock) -> None:
    """A server that could not read it has put it off; one that can sees that it is days ahead."""
    made = await store.create_schedule(a_schedule(every=days(7), overlap=Overlap.ALLOW_ALL, jitter=hours(1)))
    await tamper(store, "UPDATE schedule SET next_due_us = :us", us=clock.now_us())

    fired = await store.fire(seconds(1))

    after = await the_schedule(store)
    assert fired.tasks == 0 == len(await firings(store))
    assert (after.next_us, after.next_due_us, after.missed) == (made.next_us, made.next_due_us, 0)


async def test_a_time_zone_that_is_gone_stops_its_schedule_aloud_and_no_other(store: Store, clock: ManualClock) -> None:
    for name in ("gone", "good"):
        await store.create_schedule(a_schedule(name, every=minutes(1)))
    await tamper(store, """UPDATE schedule SET rule = replace(rule, '"UTC"', '"Gone/Zone"') WHERE name = 'gone'""")
    clock.advance(us=minutes(1))

    await store.fire(0)

    assert [name for name, _ in await firings(store)] == ["good"]
    assert (await the_schedule(store, Key(None, "gone"))).next_due_us == clock.now_us() + minutes(1)
