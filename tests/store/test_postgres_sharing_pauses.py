"""A pause or a drain holds on every server from the moment at which it is committed, whatever was under way there."""

from __future__ import annotations

import asyncio

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.errors import StorageUnavailable
from taskq_server.store.sql import SignalKind
from taskq_server.store.verbs.draining import NewDrain
from taskq_server.store.verbs.listing import Page
from taskq_server.store.verbs.pausing import NewPause
from tests.store.conftest import Servers
from tests.store.given import a_processor, a_task, added, lease, leased_ids, running
from tests.store.rivals import somebody_waits, stopped_at, stopped_before_commit
from tests.store.test_postgres_sharing_leases import TAKE, ids
from tests.store.test_postgres_sharing_signals import heard
from tests.support.console import Console

COOK = NewPause("cook", "")


# ── pauses ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_server_that_has_not_heard_of_a_pause_leases_nothing_all_the_same(
    servers: Servers, clock: ManualClock
) -> None:
    here, there = await servers(2)
    oven = await a_processor(there)
    await added(there, a_task())
    await here.pause(COOK)
    assert there.next_due_us(there.routes) == clock.now_us()

    leased = await lease(there, oven)

    assert (leased.assignments, leased.next_due_us) == ([], None)
    assert there.next_due_us(there.routes) is None, "nor does it look again for nothing"


@pytest.mark.parametrize("where", ["FROM pause", TAKE])
async def test_a_pause_waits_for_the_leases_that_may_not_have_seen_it(
    servers: Servers, console: Console, where: str
) -> None:
    here, there = await servers(2)
    oven = await a_processor(there)
    (task_id,) = await added(there, a_task())
    leasing = await stopped_at(there, where, lease(there, oven), after=True)

    pausing = asyncio.create_task(here.pause(COOK))
    await somebody_waits(console)
    assert not pausing.done()
    taken = ids(await leasing.goes_on())
    await pausing

    assert taken == [task_id], "it was leased before the pause was answered"
    await added(there, a_task())
    assert await leased_ids(there, oven) == []


async def test_a_lease_that_begins_while_a_pause_is_being_committed_sees_it(servers: Servers, console: Console) -> None:
    here, there = await servers(2)
    oven = await a_processor(there)
    await added(there, a_task())
    pausing = await stopped_before_commit(here, "_pause", lambda: here.pause(COOK))

    leasing = asyncio.create_task(lease(there, oven))
    await somebody_waits(console)
    await pausing.goes_on()

    assert ids(await leasing) == []


async def test_leases_of_several_servers_do_not_wait_for_each_other(servers: Servers) -> None:
    here, there = await servers(2)
    ours, theirs = await a_processor(here), await a_processor(there)
    await added(here, a_task())
    leasing = await stopped_before_commit(here, "_lease", lambda: lease(here, ours))
    (bread,) = await added(there, a_task())

    assert await leased_ids(there, theirs) == [bread]

    assert len(ids(await leasing.goes_on())) == 1


async def test_a_look_around_finds_what_was_paused_and_tells_what_was_resumed(
    servers: Servers, clock: ManualClock
) -> None:
    here, there = await servers(2)
    await added(there, a_task())

    await here.pause(COOK)
    assert not (await there.look_around()).resumed
    assert there.next_due_us(there.routes) is None

    await here.resume("cook")
    assert (await there.look_around()).resumed
    assert there.next_due_us(there.routes) == clock.now_us()
    assert not (await there.look_around()).resumed


async def test_a_look_that_began_before_a_resume_here_does_not_undo_it(servers: Servers, clock: ManualClock) -> None:
    here, _ = await servers(2)
    await added(here, a_task())
    await here.pause(COOK)
    looking = await stopped_at(here, "SELECT pause.name AS name", here.look_around(), after=True)

    await here.resume("cook")
    await looking.goes_on()

    assert here.next_due_us(here.routes) == clock.now_us()


async def test_a_pause_that_cannot_wait_any_longer_says_so_and_is_none(servers: Servers, console: Console) -> None:
    here, there = await servers(2)
    oven = await a_processor(there)
    await added(there, a_task())
    leasing = await stopped_at(there, TAKE, lease(there, oven))

    with pytest.raises(StorageUnavailable):
        await here.pause(COOK)  # PostgreSQL lets it wait for two seconds

    assert len(ids(await leasing.goes_on())) == 1
    assert console.rows("SELECT * FROM pause") == []
    assert here.memory.pauses.names == frozenset()


# ── drains ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_drain_is_told_to_the_server_that_pushes_to_the_session_and_to_no_other(servers: Servers) -> None:
    here, there, elsewhere = await servers(3)
    oven = await a_processor(here)

    await there.drain_processor(NewDrain(oven.session_id, "why"))

    assert await heard(here) == [(oven.seq, SignalKind.DRAINED, None, None)]
    assert [await heard(there), await heard(elsewhere)] == [[], []]


async def test_a_server_that_has_not_heard_of_a_drain_leases_nothing_to_the_session_all_the_same(
    servers: Servers,
) -> None:
    here, there = await servers(2)
    oven, other = await a_processor(here), await a_processor(here)
    (task_id,) = await added(here, a_task())

    await there.drain_processor(NewDrain(oven.session_id, ""))

    assert await leased_ids(here, oven) == []
    assert await leased_ids(here, other) == [task_id]


async def test_a_drain_waits_for_the_lease_that_is_under_way(servers: Servers, console: Console) -> None:
    here, there = await servers(2)
    oven = await a_processor(here)
    (task_id,) = await added(here, a_task())
    leasing = await stopped_at(here, TAKE, lease(here, oven), after=True)

    draining = asyncio.create_task(there.drain_processor(NewDrain(oven.session_id, "")))
    await somebody_waits(console)
    assert not draining.done()
    assert ids(await leasing.goes_on()) == [task_id]
    assert await draining

    await added(here, a_task())
    assert await leased_ids(here, oven) == []


async def test_a_lease_that_waits_for_a_drain_gives_the_session_nothing(servers: Servers, console: Console) -> None:
    """It has seen before that the session is open; what it sees when it has the session's row counts."""
    here, there = await servers(2)
    oven = await a_processor(here)
    await added(here, a_task())
    leasing = await stopped_at(here, TAKE, lease(here, oven))
    assert await there.drain_processor(NewDrain(oven.session_id, ""))

    assert ids(await leasing.goes_on()) == []


async def test_the_end_of_a_disconnected_session_is_told_with_its_cause_before_it(servers: Servers) -> None:
    """A server that does not know the cause passes it over, and hears of the end."""
    here, there = await servers(2)
    oven = await a_processor(here)
    (held,) = await running(here, oven, a_task())

    assert await there.disconnect(oven.seq) == 1

    told = await heard(here)
    assert [kind for _, kind, *_ in told[:2]] == [SignalKind.DISCONNECTED, SignalKind.ENDED]
    assert {task_id for _, _, task_id, _ in told[2:]} <= {held.task_id}


# ── what is seen ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_is_shown_with_its_server_whichever_is_asked(servers: Servers) -> None:
    here, there = await servers(2)
    oven = await a_processor(here)

    (by_here,), (by_there,) = await here.list_sessions(Page(0, 9)), await there.list_sessions(Page(0, 9))

    assert by_here == by_there
    assert (by_here.session_seq, by_here.server_name) == (oven.seq, here._presence.name)
