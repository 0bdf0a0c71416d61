"""Every firing once, on every database, whatever dies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from taskq_server.clock import ManualClock
from taskq_server.core.recurring import FiringOutcome, Key, Schedule, firing_task_id
from taskq_server.core.schedule import CatchUp, Overlap, Recurrence, tzdata_version
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.store import Store
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs import firing as verb
from taskq_server.store.verbs import firing_round
from taskq_server.store.verbs.firing import MOST_OF_ONE, Followed
from taskq_server.store.verbs.firing_by_hand import Trigger
from taskq_server.store.verbs.schedules import ToFire
from taskq_server.store.verbs.scheduling import Deletion, SchedulePause
from tests.store.conftest import RULES, Reopen, Servers
from tests.store.given import (
    Gate,
    a_processor,
    a_schedule,
    a_task,
    added,
    days,
    end,
    hours,
    lease,
    minutes,
    replace_verb,
    rows,
    seconds,
    succeeded,
    tamper,
)
from tests.store.mortal import Home, PostgresHome, SQLiteHome
from tests.store.rivals import somebody_waits, stopped_before_commit
from tests.support.console import Console
from tests.support.databases import Databases

ZONES = "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Santiago"
NIGHTLY = Key(None, "nightly")


async def firings(store: Store) -> list[tuple[str, int]]:
    """The name and the nominal time of every firing that is a task, as often as there is one."""
    found = await rows(
        store,
        "SELECT schedule.name AS name, task.nominal_us AS nominal_us FROM task "
        "JOIN schedule ON schedule.schedule_seq = task.schedule_seq ORDER BY 2, 1",
    )
    return [(row["name"], row["nominal_us"]) for row in found]


async def the_schedule(store: Store, key: Key = NIGHTLY) -> Schedule:
    found = await store.get_schedule(key)
    assert found is not None
    return found


async def fire_all(store: Store, ahead: int = 0) -> int:
    """Fires until nothing is left that is due; answers how many tasks that made."""
    tasks = 0
    while True:
        fired = await store.fire(ahead)
        tasks += fired.tasks
        if not fired.more:
            return tasks


def nominal_times(schedule: Schedule, after_us: int, until_us: int) -> list[int]:
    recurrence = Recurrence(schedule.definition.rule, schedule.schedule_id)
    found: list[int] = []
    while (next_us := recurrence.next_after(after_us)) is not None and next_us <= until_us:
        found.append(next_us)
        after_us = next_us
    return found


# ── a month ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── one firing is one row ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_firing_its_task_and_the_step_of_its_schedule_are_one(store: Store, clock: ManualClock) -> None:
    made = await store.create_schedule(a_schedule(every=minutes(1), payload=b"x"))
    assert made.next_us is not None
    clock.advance(us=minutes(1))

    fired = await store.fire(0)

    task_id = firing_task_id(made.schedule_id, made.next_us)
    after = await the_schedule(store)
    assert fired.tasks == 1
    assert (after.next_us, after.last_us, after.last_task_id) == (made.next_us + minutes(1), made.next_us, task_id)
    assert await rows(store, "SELECT nominal_us, outcome, task_id FROM firing") == [
        {"nominal_us": made.next_us, "outcome": int(FiringOutcome.FIRED), "task_id": task_id}
    ]
    assert (await store.get([task_id]))[task_id].due_time_us == made.next_us


async def test_a_schedule_that_went_back_in_time_fires_nothing_a_second_time(store: Store, clock: ManualClock) -> None:
    """As if a backup of the one table had been restored."""
    made = await store.create_schedule(a_schedule(every=minutes(1), catch_up=CatchUp.ALL, overlap=Overlap.ALLOW_ALL))
    for _ in range(3):
        clock.advance(us=minutes(1))
        await store.fire(0)
    await tamper(store, "UPDATE schedule SET next_us = :us, next_due_us = :us", us=made.next_us)

    assert await fire_all(store) == 0
    assert len(await firings(store)) == 3 == (await the_schedule(store)).fired


async def test_firing_ahead_waits_while_something_might_come_between(store: Store, clock: ManualClock) -> None:
    await store.create_schedule(a_schedule("skips", every=seconds(10)))
    await store.create_schedule(a_schedule("allows", every=seconds(10), overlap=Overlap.ALLOW_ALL))
    clock.advance(us=seconds(10) - clock.now_us() % seconds(10) - seconds(0.5))
    assert await fire_all(store, seconds(1)) == 2, "nothing is unfinished yet"

    clock.advance(us=seconds(10))
    assert await fire_all(store, seconds(1)) == 1
    assert [name for name, _ in await firings(store)].count("skips") == 1
    clock.advance(us=seconds(0.5))
    await fire_all(store, seconds(1))
    assert (await the_schedule(store, Key(None, "skips"))).skipped == 1


async def test_overlap_is_decided_by_what_is_unfinished_so_that_a_crash_leaves_nothing_to_be_reset(
    store: Store, clock: ManualClock, reopen: Reopen
) -> None:
    await store.create_schedule(a_schedule(every=minutes(1)))
    oven = await a_processor(store)
    clock.advance(us=minutes(1))
    await store.fire(0)
    await lease(store, oven)

    store = await reopen()
    clock.advance(us=minutes(1))
    await store.fire(0)
    assert (await the_schedule(store)).skipped == 1
    await store.disconnect(oven.seq)
    other = await a_processor(store)
    (again,) = (await lease(store, other)).assignments
    await end(store, succeeded(again))
    clock.advance(us=minutes(1))
    await store.fire(0)

    assert (await the_schedule(store)).fired == 2


@pytest.mark.parametrize("policy", CatchUp)
@pytest.mark.parametrize("overlap", [Overlap.ALLOW_ALL, Overlap.CANCEL_OTHER])
async def test_a_server_that_runs_misses_nothing_however_long_the_jitter(
    store: Store, clock: ManualClock, policy: CatchUp, overlap: Overlap
) -> None:
    """Neither with a window that is shorter than the jitter."""
    put_off = a_schedule(every=minutes(5), jitter=minutes(4), window=seconds(15), catch_up=policy, overlap=overlap)
    made = await store.create_schedule(put_off)
    began_us = clock.now_us()

    for _ in range(10):
        due_us = (await store.to_fire()).first_due_us
        assert due_us is not None
        clock.advance(us=due_us - clock.now_us())
        await fire_all(store)

    after = await the_schedule(store)
    assert (after.fired, after.missed, after.skipped) == (10, 0, 0)
    fired = [nominal_us for _, nominal_us in await firings(store)]
    assert fired == nominal_times(made, began_us, clock.now_us())


async def test_a_flood_of_missed_firings_comes_in_batches(store: Store, clock: ManualClock) -> None:
    await store.create_schedule(a_schedule(every=seconds(1), catch_up=CatchUp.ALL, overlap=Overlap.ALLOW_ALL))
    clock.advance(us=seconds(2_500))

    first = await store.fire(0)
    rest = await fire_all(store)

    assert (first.tasks, first.more) == (MOST_OF_ONE, True)
    assert first.tasks + rest == 2_500 == len(set(await firings(store)))


async def test_a_flood_of_one_schedule_does_not_keep_others_waiting(store: Store, clock: ManualClock) -> None:
    flood = a_schedule("flood", every=seconds(1), catch_up=CatchUp.ALL, overlap=Overlap.ALLOW_ALL)
    await store.create_schedule(flood)
    for i in range(10):
        await store.create_schedule(a_schedule(f"s{i}", every=minutes(60)))
    clock.advance(us=minutes(60))

    await store.fire(0)

    assert len({name for name, _ in await firings(store)}) == 11


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.BUFFER_ONE, Overlap.CANCEL_OTHER])
async def test_firings_that_come_to_nothing_are_met_in_batches_too(
    store: Store, clock: ManualClock, overlap: Overlap
) -> None:
    await store.create_schedule(a_schedule(every=seconds(1), catch_up=CatchUp.ALL, overlap=overlap))
    clock.advance(us=seconds(250))

    first = await store.fire(0)
    skipped_first = (await the_schedule(store)).skipped
    await fire_all(store)

    after = await the_schedule(store)
    assert first.more and skipped_first < MOST_OF_ONE
    assert after.fired + after.skipped + after.buffered == 250 and after.missed == 0


async def test_a_round_has_no_more_payload_than_a_transaction_bears(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firing_round, "MOST_BYTES_PER_FIRE", 5_000)
    for name in ("a", "b"):
        await store.create_schedule(
            a_schedule(name, every=seconds(1), catch_up=CatchUp.ALL, overlap=Overlap.ALLOW_ALL, payload=b"x" * 1_000)
        )
    clock.advance(us=seconds(20))

    first = await store.fire(0)

    assert (first.tasks, first.more) == (5, True)
    assert await fire_all(store) == 40 - 5
    assert len(set(await firings(store))) == 40


@pytest.mark.parametrize("policy", CatchUp)
async def test_a_round_that_takes_long_ends_and_the_next_goes_on(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, policy: CatchUp
) -> None:
    for i in range(5):
        await store.create_schedule(a_schedule(f"s{i}", every=seconds(4), catch_up=policy, overlap=Overlap.ALLOW_ALL))
    clock.advance(us=seconds(40) - clock.now_us() % seconds(4))
    monkeypatch.setattr(firing_round, "monotonic", itertools.count().__next__)

    first = await store.fire(0)
    rest = await fire_all(store)

    late, on_time = 10 - 3, 3
    fires = {CatchUp.SKIP: on_time, CatchUp.LAST: on_time, CatchUp.FIRST: 1 + on_time, CatchUp.ALL: late + on_time}
    assert (first.tasks, first.more) == (1, True)
    assert first.tasks + rest == 5 * fires[policy] == len(set(await firings(store)))
    for i in range(5):
        after = await the_schedule(store, Key(None, f"s{i}"))
        assert after.fired + after.missed == 10


async def test_many_that_are_to_be_cancelled_are_so_in_batches_and_then_the_other_fires(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (verb, firing_round):
        monkeypatch.setattr(room, "MOST_CANCELLED", 10)
    made = await store.create_schedule(a_schedule(every=seconds(1), catch_up=CatchUp.ALL, overlap=Overlap.ALLOW_ALL))
    clock.advance(us=seconds(35))
    assert await fire_all(store) == 35
    await tamper(store, "UPDATE schedule SET overlap = :to", to=int(Overlap.CANCEL_OTHER))
    clock.advance(us=seconds(1))

    rounds = [await store.fire(0) for _ in range(4)]

    assert [(one.tasks, one.more) for one in rounds] == [(0, True), (0, True), (0, True), (1, False)]
    after = await the_schedule(store)
    assert (after.unfinished, after.fired, after.missed) == (1, 36, 0)
    assert made.next_us is not None and after.last_us == made.next_us + seconds(35)


async def test_many_that_are_due_at_once_are_all_fired(store: Store, clock: ManualClock) -> None:
    for i in range(1_050):
        await store.create_schedule(a_schedule(f"s{i}", every=minutes(1)))
    clock.advance(us=minutes(1))

    assert await fire_all(store) == 1_050
    assert (await store.to_fire()).first_due_us == (await the_schedule(store, Key(None, "s7"))).next_due_us


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


async def test_what_fires_beside_what_is_enqueued_for_later_is_due_all_the_same(
    store: Store, clock: ManualClock
) -> None:
    """Both may be stored by one transaction, into the same place."""
    await store.create_schedule(a_schedule(every=minutes(1)))
    clock.advance(us=minutes(1))
    gate = Gate()
    held = await gate.hold(store)

    both = asyncio.gather(store.fire(0), store.add([a_task(due_in=hours(1))]))
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(held, both)

    due_us = store.next_due_us(store.routes)
    assert due_us is not None and due_us <= clock.now_us()


async def test_another_time_zone_database_computes_anew_what_is_to_come(store: Store, clock: ManualClock) -> None:
    made = await store.create_schedule(a_schedule(crons=("30 2 * * *",), zone="Europe/Berlin"))
    await tamper(store, "UPDATE schedule SET tzdata = '1999a', next_us = next_us + 1, next_due_us = next_due_us + 1")

    assert (await store.follow_zones()).many == 1
    assert await store.follow_zones() == Followed(0, None)

    after = await the_schedule(store)
    assert (after.next_us, after.next_due_us, after.tzdata) == (made.next_us, made.next_due_us, tzdata_version())


async def test_another_time_zone_database_is_followed_past_pages_of_what_cannot_be_read(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "MOST_SCHEDULES_PER_FIRE", 2)
    for name in ("bad", "fine", "worse", "worst", "well"):
        await store.create_schedule(a_schedule(name, crons=("30 2 * * *",)))
    await tamper(store, "UPDATE schedule SET tzdata = '1999a'")
    await tamper(store, "UPDATE schedule SET rule = '{' WHERE name IN ('bad', 'worse', 'worst')")
    due = "SELECT name, next_due_us FROM schedule ORDER BY name"
    before = await rows(store, due)

    many, last_seq = 0, 0
    while (followed := await store.follow_zones(last_seq)).last_seq is not None:
        many, last_seq = many + followed.many, followed.last_seq

    assert many == 2
    followed_now = await rows(store, f"SELECT name FROM schedule WHERE tzdata = '{tzdata_version()}' ORDER BY 1")  # noqa: S608
    assert [row["name"] for row in followed_now] == ["fine", "well"]
    assert await rows(store, due) == before, "a server that can read the others fires them at their time"


async def test_firings_are_pruned_with_their_tasks(store: Store, clock: ManualClock) -> None:
    await store.create_schedule(a_schedule(every=minutes(1), retention=seconds(1)))
    oven = await a_processor(store)
    clock.advance(us=minutes(1))
    await store.fire(0)
    (assignment,) = (await lease(store, oven)).assignments
    await end(store, succeeded(assignment))
    clock.advance(us=seconds(1))

    assert (await store.prune(0)).tasks == 1

    assert await rows(store, "SELECT * FROM firing") == []
    after = await the_schedule(store)
    assert after.last_task_id == assignment.task_id and after.fired == 1
    assert await rows(store, "SELECT pruned_until_us FROM schedule") == [{"pruned_until_us": after.last_us}]


async def test_a_deleted_schedule_leaves_its_tasks_which_are_pruned_as_ever(store: Store, clock: ManualClock) -> None:
    await store.create_schedule(a_schedule(every=minutes(1), overlap=Overlap.BUFFER_ALL, retention=seconds(1)))
    oven = await a_processor(store)
    for _ in range(3):
        clock.advance(us=minutes(1))
        await store.fire(0)
    assert len(await rows(store, "SELECT * FROM firing")) == 3

    await store.delete_schedule(Deletion(NIGHTLY))

    assert await store.to_fire() == ToFire(None, False)
    (assignment,) = (await lease(store, oven)).assignments
    await end(store, succeeded(assignment))
    clock.advance(us=seconds(1))
    assert (await store.prune(0)).tasks == 1
    assert await rows(store, "SELECT * FROM firing") == []


async def test_tasks_without_a_schedule_are_nobodys_firings(store: Store, clock: ManualClock) -> None:
    await store.create_schedule(a_schedule(every=minutes(1)))
    await added(store, a_task(), a_task())

    assert (await the_schedule(store)).unfinished == 0


# ── several servers ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_two_servers_that_fire_at_once_make_one_task_each_time(servers: Servers, clock: ManualClock) -> None:
    here, there = await servers(2)
    for i in range(20):
        await here.create_schedule(a_schedule(f"s{i}", every=minutes(1), overlap=Overlap.ALLOW_ALL))
    clock.advance(us=minutes(1))
    firing = await stopped_before_commit(here, "_fire", lambda: here.fire(0))

    passed_over = await there.fire(0)
    fired = await firing.goes_on()
    after = await there.fire(0)

    assert (fired.tasks, passed_over.tasks, after.tasks) == (20, 0, 0)
    assert passed_over.first_due_us is not None and passed_over.first_due_us <= clock.now_us(), "it looks again"
    assert len(await firings(there)) == 20


async def test_schedules_that_another_server_is_at_follow_the_time_zone_database_too(
    servers: Servers, clock: ManualClock, console: Console
) -> None:
    here, there = await servers(2)
    await here.create_schedule(a_schedule(crons=("30 2 * * *",), overlap=Overlap.ALLOW_ALL))
    await tamper(here, "UPDATE schedule SET tzdata = '1999a'")
    trigger = Trigger(NIGHTLY, b"t" * 16)
    triggering = await stopped_before_commit(here, "_trigger", lambda: here.trigger_schedule(trigger))

    following = asyncio.create_task(there.follow_zones())
    await somebody_waits(console)
    await triggering.goes_on()

    assert (await following).last_seq is not None
    assert (await the_schedule(there)).tzdata == tzdata_version()


async def test_a_pause_at_one_server_holds_at_another_that_is_about_to_fire(
    servers: Servers, clock: ManualClock, console: Console
) -> None:
    here, there = await servers(2)
    await here.create_schedule(a_schedule(every=minutes(1)))
    clock.advance(us=minutes(1))
    firing = await stopped_before_commit(here, "_fire", lambda: here.fire(0))

    pausing = asyncio.create_task(there.pause_schedule(SchedulePause(NIGHTLY, "why")))
    await somebody_waits(console)
    await firing.goes_on()
    paused = await pausing

    assert paused.fired == 1, "whoever is at it ends first"
    clock.advance(us=minutes(5))
    assert (await here.fire(0)).tasks == (await there.fire(0)).tasks == 0


async def test_a_trigger_through_two_servers_fires_once(servers: Servers, clock: ManualClock) -> None:
    here, there = await servers(2)
    made = await here.create_schedule(a_schedule(every=minutes(1)))
    trigger = Trigger(Key(made.schedule_id), b"t" * 16)

    first, second = await here.trigger_schedule(trigger), await there.trigger_schedule(trigger)

    assert first.nominal_us == second.nominal_us
    assert len(await firings(here)) == 1


async def test_another_server_finds_what_there_is_to_fire(servers: Servers, clock: ManualClock) -> None:
    here, there = await servers(2)
    made = await here.create_schedule(a_schedule(every=minutes(1)))

    assert isinstance(there, Postgres)
    assert (await there.look_around()).to_fire == ToFire(made.next_due_us, False)
