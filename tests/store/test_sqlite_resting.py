"""Heartbeats of processors without tasks: on SQLite they are answered from memory, and written before it matters."""

from __future__ import annotations

import asyncio

import pytest

from taskq_server.clock import Alarm, ManualClock
from taskq_server.core.errors import TaskqError
from taskq_server.housekeeper import Housekeeper
from taskq_server.session import Session, Sighting
from taskq_server.sessions import Sessions
from taskq_server.store.sqlite.store import SQLite
from taskq_server.store.verbs import living
from taskq_server.store.verbs.listing import Page
from taskq_server.store.verbs.living import Held, NewSession
from tests.store.conftest import SQLiteFile
from tests.store.given import LEASE, an_id, fails_with, living_sessions, rows, seconds, statements


@pytest.fixture
def database(sqlite_database: SQLiteFile) -> SQLiteFile:
    return sqlite_database


@pytest.fixture
async def sessions(store: SQLite, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Sessions:
    """Of the only server, in which all time passes by the one clock."""
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock.now_us() / seconds(1))
    return Sessions(store, clock, LEASE, round_seconds=2, alone=True)


@pytest.fixture
async def housekeeper(store: SQLite, sessions: Sessions, clock: ManualClock) -> Housekeeper:
    """One that has not been away."""
    housekeeper = Housekeeper(store, sessions, clock, Alarm(clock), lambda: None, LEASE, seconds(60), seconds(60))
    await housekeeper.tick()
    return housekeeper


async def an_oven(sessions: Sessions) -> Session:
    return await sessions.register(NewSession(an_id(), "oven", {"cook": 0}, {}, 5, "", "", LEASE))


async def alive_until_us(store: SQLite) -> int:
    return int((await rows(store, "SELECT alive_until_us FROM session"))[0]["alive_until_us"])


async def tick_until(housekeeper: Housekeeper, clock: ManualClock, time_us: int) -> None:
    """As its alarm would, again and again."""
    while (now_us := clock.now_us()) < time_us:
        next_us = await housekeeper.tick()
        clock.advance(us=max(1, min(next_us, time_us) - now_us))
    await housekeeper.tick()


async def test_it_is_answered_without_a_statement(sessions: Sessions, clock: ManualClock) -> None:
    oven = await an_oven(sessions)
    clock.advance(15)

    with statements() as said:
        pulse = await sessions.heartbeat(oven.session_id, [], draining=False)

    assert (pulse.alive, pulse.resting, said) == (True, True, [])


async def test_it_is_written_before_its_session_is_taken_for_dead_with_the_lease_that_it_was_promised(
    store: SQLite, sessions: Sessions, housekeeper: Housekeeper, clock: ManualClock
) -> None:
    oven = await an_oven(sessions)
    clock.advance(15)
    await sessions.heartbeat(oven.session_id, [], draining=False)
    promised_us = clock.now_us() + LEASE

    await tick_until(housekeeper, clock, promised_us - 1)
    assert await alive_until_us(store) == promised_us
    assert len(await living_sessions(store)) == 1

    await tick_until(housekeeper, clock, promised_us)
    assert await living_sessions(store) == []
    assert sessions.find(oven.session_id) is None


async def test_a_processor_that_rests_for_hours_lives_on(
    store: SQLite, sessions: Sessions, housekeeper: Housekeeper, clock: ManualClock
) -> None:
    oven = await an_oven(sessions)
    for _ in range(500):
        await tick_until(housekeeper, clock, clock.now_us() + seconds(18))
        assert (await sessions.heartbeat(oven.session_id, [], draining=False)).alive

    assert len(await living_sessions(store)) == 1


async def test_an_administrator_sees_when_it_came(store: SQLite, sessions: Sessions, clock: ManualClock) -> None:
    oven = await an_oven(sessions)
    clock.advance(15)
    await sessions.heartbeat(oven.session_id, [], draining=False)

    (stored,) = await store.list_sessions(Page(0, 1))

    assert sessions.as_heard(stored).alive_until_us == clock.now_us() + LEASE


@pytest.mark.parametrize("why", ["it holds a task", "it says that it holds one", "it drains", "it has drained"])
async def test_one_that_says_more_is_written_before_it_is_answered(
    store: SQLite, sessions: Sessions, clock: ManualClock, why: str
) -> None:
    oven = await an_oven(sessions)
    sightings = []
    if why == "it holds a task":
        oven.hold(Held(oven.seq, an_id(), 1, "cook"))
    elif why == "it says that it holds one":
        sightings = [Sighting(an_id(), 1)]
    elif why == "it has drained":
        await sessions.heartbeat(oven.session_id, [], draining=True)
    clock.advance(15)

    await sessions.heartbeat(oven.session_id, sightings, draining=why == "it drains")

    assert await alive_until_us(store) == clock.now_us() + LEASE


async def test_nobody_is_taken_for_dead_while_what_was_heard_cannot_be_written(
    store: SQLite, sessions: Sessions, housekeeper: Housekeeper, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    oven = await an_oven(sessions)
    clock.advance(15)
    await sessions.heartbeat(oven.session_id, [], draining=False)
    clock.advance(LEASE // seconds(1) - 15)
    housekeeper._last_tick_us = clock.now_us()  # it has not been away
    with monkeypatch.context() as patched:
        patched.setattr(living, "keep_alive", fails_with(TaskqError("disk full")))
        with pytest.raises(TaskqError):
            await housekeeper.tick()

    assert len(await living_sessions(store)) == 1
