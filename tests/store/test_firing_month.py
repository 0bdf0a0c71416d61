"""A month of schedules, each firing once, whatever dies."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.recurring import Key
from taskq_server.core.schedule import Overlap, Recurrence
from taskq_server.store.store import Store
from taskq_server.store.transaction import Transaction
from tests.store.conftest import RULES
from tests.store.firings import fire_all, firings, nominal_times, the_schedule
from tests.store.given import a_schedule, days, minutes, replace_verb, seconds
from tests.store.mortal import Home, PostgresHome, SQLiteHome
from tests.support.databases import Databases

ZONES = "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Santiago"


@pytest.fixture(params=["sqlite", "postgres"])
async def home(request: pytest.FixtureRequest, empty_sqlite: Path, databases: Databases) -> AsyncIterator[Home]:
    """A database whose server may die."""
    home = SQLiteHome(RULES, empty_sqlite) if request.param == "sqlite" else PostgresHome(RULES, databases)
    yield home
    await home.leave()


class Dies(Exception):
    """The server is gone."""


def dies_before_commit(store: Store, home: Home) -> None:
    """The next round of firing does all its work, and then its server dies."""
    fire = store._fire

    def work_and_die(tx: Transaction, items: list[int]) -> list[Any]:
        fire(tx, items)
        raise Dies

    replace_verb(store, "_fire", work_and_die)


def a_hundred() -> list[Any]:
    """Schedules of all hours of the day, in zones whose clocks change in that month."""
    new = []
    for i in range(100):
        zone = ZONES[i % len(ZONES)]
        if i < 60:
            new.append(
                a_schedule(f"daily-{i}", crons=(f"{i % 2 * 30} {i % 24} * * *",), zone=zone, overlap=Overlap.ALLOW_ALL)
            )
        elif i < 90:
            new.append(
                a_schedule(f"hours-{i}", crons=(f"{i % 2 * 30} */6 * * *",), zone=zone, overlap=Overlap.ALLOW_ALL)
            )
        else:
            jitter = seconds(i) if i == 99 else 0
            new.append(a_schedule(f"hourly-{i}", every=minutes(60), overlap=Overlap.ALLOW_ALL, jitter=jitter))
    return new


async def test_a_month_of_a_hundred_schedules_with_servers_that_die_fires_everything_once(home: Home) -> None:
    # given the March in which Europe and America change their clocks, and Lord Howe and Santiago soon after
    clock = ManualClock(1_709_251_200_000_000)
    store = await home.open(clock)
    instants = random.Random(31)
    schedules = [await store.create_schedule(one) for one in a_hundred()]
    began_us, ends_us = clock.now_us(), clock.now_us() + days(31)
    deaths: Counter[str] = Counter()

    # when each is fired at its time, and a server in fifty dies in the midst of it, or right after it
    while (to_fire := await store.to_fire()).first_due_us is not None and to_fire.first_due_us <= ends_us:
        clock.advance(us=max(0, to_fire.first_due_us - clock.now_us()))
        fate = instants.choices(["lives", "before", "after"], [100, 1, 1])[0]
        if fate == "before":
            dies_before_commit(store, home)
            with contextlib.suppress(Dies):
                await store.fire(seconds(1))
        else:
            await fire_all(store, seconds(1))
        if fate != "lives":
            deaths[fate] += 1
            home.die()
            store = await home.go_on(clock)

    # then there is one task for each nominal time of each schedule
    clock.advance(us=max(0, ends_us - clock.now_us()))
    fired = Counter(await firings(store))
    expected = {
        (one.definition.name, nominal_us)
        for one in schedules
        for nominal_us in nominal_times(one, began_us, ends_us + seconds(1))
        if Recurrence(one.definition.rule, one.schedule_id).due_us(nominal_us) <= ends_us
    }
    assert min(deaths.values()) >= 5, deaths
    assert max(fired.values()) == 1
    assert expected <= set(fired) and len(fired.keys() - expected) < 100, "but for the second after"
    for one in schedules:
        now = await the_schedule(store, Key(one.schedule_id))
        of_it = sum(1 for name, _ in fired if name == one.definition.name)
        assert (now.fired, now.missed, now.skipped) == (of_it, 0, 0)


async def test_what_was_not_committed_is_fired_by_the_next_server_once(home: Home) -> None:
    clock = ManualClock()
    store = await home.open(clock)
    made = await store.create_schedule(a_schedule(every=minutes(1)))
    clock.advance(us=minutes(1))
    dies_before_commit(store, home)

    with pytest.raises(Dies):
        await store.fire(0)
    home.die()
    store = await home.go_on(clock)

    assert await firings(store) == []
    assert await fire_all(store) == 1
    assert await firings(store) == [("nightly", made.next_us)]
