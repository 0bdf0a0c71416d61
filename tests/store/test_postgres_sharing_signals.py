"""What a server does to a session of another is left for that one to hear, and for no other; and which servers live."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.task import Assignment, EndStatus
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.sql import SignalKind
from taskq_server.store.verbs.living import Grace, Sign
from taskq_server.store.verbs.servers import LONGEST_SERVER_LEASE_US, Renewed
from tests.store.conftest import PostgresDatabase, Servers
from tests.store.given import (
    LEASE,
    NO_RETRY,
    Processor,
    a_processor,
    a_retry,
    a_task,
    an_id,
    end,
    failed,
    leased_ids,
    not_received,
    released,
    running,
    seconds,
    statuses,
    succeeded,
)
from tests.store.rivals import somebody_waits, stopped_at, stopped_before_commit
from tests.support.console import Console

Heard = list[tuple[int, SignalKind, bytes | None, int | None]]


async def heard(store: Postgres) -> Heard:
    """What was left for a server, which forgets it."""
    signals = (await store.look_around()).signals
    await store.forget([signal.signal_seq for signal in signals])
    return [(signal.session_seq, signal.kind, signal.task_id, signal.attempt) for signal in signals]


# ── what is said, and to whom ────────────────────────────────────────────────────────────────────────────────────────

Deed = Callable[[Postgres, Processor, Assignment], Awaitable[Any]]
DEEDS: dict[str, tuple[Deed, SignalKind]] = {
    "a success": (lambda store, _, held: store.end([succeeded(held)]), SignalKind.SETTLED),
    "a failure": (lambda store, _, held: store.end([failed(held)]), SignalKind.SETTLED),
    "a release": (lambda store, _, held: store.end([released(held)]), SignalKind.SETTLED),
    "a push that did not arrive": (lambda store, _, held: store.end([not_received(held)]), SignalKind.SETTLED),
    "a cancel": (lambda store, _, held: store.cancel([held.task_id]), SignalKind.CANCELLED),
    "a timeout": (lambda store, _, held: store.reclaim(), SignalKind.REVOKED),
}
on_each_deed = pytest.mark.parametrize(("deed", "kind"), DEEDS.values(), ids=DEEDS.keys())


@pytest.mark.parametrize("retry", [NO_RETRY, a_retry()], ids=["the last attempt", "not the last"])
@on_each_deed
async def test_the_end_of_an_attempt_is_told_to_the_server_that_pushes_to_its_session(
    servers: Servers, clock: ManualClock, deed: Deed, kind: SignalKind, retry: Any
) -> None:
    here, there, elsewhere = await servers(3)
    session = await a_processor(here)
    (held,) = await running(here, session, a_task(run_timeout=seconds(1), retry=retry))
    clock.advance(1)

    await deed(there, session, held)

    assert [await heard(there), await heard(elsewhere)] == [[], []]
    assert await heard(here) == [(session.seq, kind, held.task_id, 1)]
    assert await heard(here) == []


@on_each_deed
async def test_what_a_server_does_to_its_own_sessions_is_told_to_nobody(
    servers: Servers, clock: ManualClock, console: Console, deed: Deed, kind: SignalKind
) -> None:
    here, _ = await servers(2)
    session = await a_processor(here)
    (held,) = await running(here, session, a_task(run_timeout=seconds(1)))
    clock.advance(1)

    await deed(here, session, held)
    await here.unregister(session.seq)

    assert console.rows("SELECT * FROM signal") == []


async def test_what_changes_nothing_is_told_to_nobody(servers: Servers, console: Console) -> None:
    here, there = await servers(2)
    session = await a_processor(here)
    held, waits = await running(here, session, a_task(), a_task())
    await end(here, succeeded(held))
    await end(here, released(waits))

    await there.cancel([held.task_id, waits.task_id])
    await there.keep_alive(Sign(session.seq, LEASE))
    await there.unregister(999)

    assert console.rows("SELECT * FROM signal") == []


async def test_a_report_that_comes_too_late_still_says_that_its_processor_has_let_go(servers: Servers) -> None:
    here, there = await servers(2)
    session = await a_processor(here)
    (held,) = await running(here, session, a_task())
    await here.cancel([held.task_id])

    await there.end([succeeded(held)])

    assert await heard(here) == [(session.seq, SignalKind.SETTLED, held.task_id, 1)]


async def test_the_end_of_a_session_is_told_to_the_server_that_pushes_to_it(servers: Servers) -> None:
    here, there = await servers(2)
    session = await a_processor(here)
    (held,) = await running(here, session, a_task())

    await there.unregister(session.seq)
    await there.unregister(session.seq)

    told = await heard(here)
    assert told[0] == (session.seq, SignalKind.ENDED, None, None)
    assert told[1:] in ([], [(session.seq, SignalKind.SETTLED, held.task_id, 1)])
    assert await heard(there) == []


async def test_a_session_that_is_reclaimed_is_told_to_the_server_that_pushes_to_it(
    servers: Servers, clock: ManualClock
) -> None:
    here, there = await servers(2)
    session = await a_processor(here, alive_until=clock.now_us() + LEASE)
    await running(here, session, a_task())
    clock.advance(us=LEASE)

    assert (await there.reclaim()).dead == [session.seq]

    assert (await heard(here))[0] == (session.seq, SignalKind.ENDED, None, None)
    assert await heard(there) == []


async def test_a_session_that_moves_is_told_to_the_server_it_moves_from(servers: Servers) -> None:
    here, there, elsewhere = await servers(3)
    session = await a_processor(here)

    await there.take_over(session.session_id)
    assert await heard(here) == [(session.seq, SignalKind.MOVED, None, None)]
    await there.take_over(session.session_id)
    await elsewhere.take_over(session.session_id)

    assert [await heard(here), await heard(elsewhere)] == [[], []]
    assert await heard(there) == [(session.seq, SignalKind.MOVED, None, None)]


async def test_what_happens_to_a_session_that_has_moved_is_told_to_the_server_it_has_moved_to(
    servers: Servers,
) -> None:
    here, there, elsewhere = await servers(3)
    session = await a_processor(here)
    one, two = await running(here, session, a_task(), a_task())
    await there.take_over(session.session_id)
    await heard(here)

    await here.cancel([one.task_id])
    await elsewhere.end([succeeded(two)])

    assert await heard(here) == []
    assert await heard(there) == [
        (session.seq, SignalKind.CANCELLED, one.task_id, 1),
        (session.seq, SignalKind.SETTLED, two.task_id, 1),
    ]


async def test_a_server_that_has_not_heard_yet_that_a_session_has_moved_tells_the_other_all_the_same(
    servers: Servers,
) -> None:
    here, there = await servers(2)
    session = await a_processor(here)
    one, two = await running(here, session, a_task(), a_task())
    await there.take_over(session.session_id)

    await here.cancel([one.task_id])
    await here.end([succeeded(two)])

    assert await heard(there) == [
        (session.seq, SignalKind.CANCELLED, one.task_id, 1),
        (session.seq, SignalKind.SETTLED, two.task_id, 1),
    ]


async def test_signals_are_heard_in_the_order_in_which_they_were_left(servers: Servers) -> None:
    here, there = await servers(2)
    session = await a_processor(here)
    held = await running(here, session, *(a_task() for _ in range(5)))

    for one in reversed(held):
        await there.cancel([one.task_id])
    await there.unregister(session.seq)

    told = await heard(here)
    assert [task_id for _, _, task_id, _ in told] == [*(one.task_id for one in reversed(held)), None]


async def test_only_what_was_heard_is_forgotten(servers: Servers) -> None:
    here, there = await servers(2)
    session = await a_processor(here)
    one, two = await running(here, session, a_task(), a_task())

    await there.cancel([one.task_id])
    first = (await here.look_around()).signals
    late = await stopped_before_commit(there, "_cancel", lambda: there.cancel([two.task_id]))
    await here.forget([signal.signal_seq for signal in first])
    await late.goes_on()

    assert [task_id for _, _, task_id, _ in await heard(here)] == [two.task_id]


async def test_what_is_undone_is_told_to_nobody(servers: Servers) -> None:
    here, there = await servers(2)
    (held,) = await running(here, await a_processor(here), a_task())
    cancel = there._cancel

    def cancel_and_fail(tx: Any, items: list[Any]) -> list[Any]:
        cancel(tx, items)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await there.write(cancel_and_fail, [held.task_id])

    assert await heard(here) == []


# ── moving ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_who_takes_a_session_over_learns_what_it_holds_and_where_it_was(servers: Servers) -> None:
    here, there = await servers(2)
    session = await a_processor(here, labels={"zone": "eu"}, limits={"cook": 3})
    (held,) = await running(here, session, a_task())

    stored = await there.take_over(session.session_id)

    assert stored is not None
    assert (stored.session_seq, stored.server_seq, stored.server_lives) == (session.seq, there.server_seq, True)
    assert (stored.session.labels, stored.session.capabilities) == ({"zone": "eu"}, {"cook": 3})
    assert [(one.task_id, one.attempt, one.name) for one in stored.held] == [(held.task_id, 1, "cook")]
    assert await here.keep_alive(Sign(session.seq, LEASE)) == there.server_seq


async def test_of_two_who_take_a_session_over_at_once_the_last_has_it_and_the_other_hears_of_it(
    servers: Servers, console: Console
) -> None:
    home, here, there = await servers(3)
    session = await a_processor(home)

    first = await stopped_before_commit(here, "_take_over", lambda: here.take_over(session.session_id))
    second = asyncio.create_task(there.take_over(session.session_id))
    await somebody_waits(console)
    await first.goes_on()
    stored = await second

    assert stored is not None and stored.server_seq == there.server_seq
    assert await heard(home) == [(session.seq, SignalKind.MOVED, None, None)]
    assert await heard(here) == [(session.seq, SignalKind.MOVED, None, None)]
    assert await heard(there) == []


async def test_a_session_that_ends_while_it_is_taken_over_is_not_taken_over(servers: Servers, console: Console) -> None:
    here, there = await servers(2)
    session = await a_processor(here)

    ending = await stopped_before_commit(here, "_unregister", lambda: here.unregister(session.seq))
    moving = asyncio.create_task(there.take_over(session.session_id))
    await somebody_waits(console)
    await ending.goes_on()

    assert await moving is None
    assert await there.take_over(an_id()) is None


async def test_a_session_that_is_ending_is_not_kept_alive(servers: Servers, console: Console) -> None:
    here, there = await servers(2)
    session = await a_processor(here)

    ending = await stopped_before_commit(here, "_unregister", lambda: here.unregister(session.seq))
    hearing = asyncio.create_task(there.keep_alive(Sign(session.seq, LEASE)))
    await somebody_waits(console)
    await ending.goes_on()

    assert await hearing is None


async def test_of_a_session_to_which_no_server_pushes_nobody_is_told(servers: Servers, console: Console) -> None:
    """As of those that came with a copy of another database."""
    here, there = await servers(2)
    session = await a_processor(here)
    (held,) = await running(here, session, a_task())
    console.run("UPDATE session SET server_seq = 0")

    assert await leased_ids(here, session) == []
    stored = await there.take_over(session.session_id)
    assert stored is not None and [one.task_id for one in stored.held] == [held.task_id]
    console.run("UPDATE session SET server_seq = 0")
    await here.cancel([held.task_id])

    assert console.rows("SELECT * FROM signal") == []


async def test_a_report_goes_to_any_server(servers: Servers) -> None:
    here, there = await servers(2)
    (held,) = await running(here, await a_processor(here), a_task())

    assert statuses(await there.end([succeeded(held)])) == [EndStatus.ACCEPTED]
    assert statuses(await here.end([succeeded(held)])) == [EndStatus.ALREADY_ACCEPTED]


# ── servers that live, and those that do not ─────────────────────────────────────────────────────────────────────────


async def test_a_server_counts_the_others_that_live(servers: Servers, clock: ManualClock) -> None:
    here, there, elsewhere = await servers(3)
    assert await here.renew() == Renewed(lapsed=False, others=2)

    await elsewhere.close()
    assert await here.renew() == Renewed(lapsed=False, others=1)
    clock.advance(us=LONGEST_SERVER_LEASE_US - 1)
    assert await here.renew() == Renewed(lapsed=False, others=1)
    clock.advance(us=1)

    assert await here.renew() == Renewed(lapsed=False, others=0)
    assert await there.renew() == Renewed(lapsed=True, others=1)
    assert await there.renew() == Renewed(lapsed=False, others=1)
    assert await here.renew() == Renewed(lapsed=False, others=1)


async def test_the_number_of_a_server_is_never_used_again(
    servers: Servers, postgres_database: PostgresDatabase, clock: ManualClock
) -> None:
    stores = await servers(2)
    seen = {store.server_seq for store in stores}
    await postgres_database.close()

    again = await servers(2)

    assert seen.isdisjoint(store.server_seq for store in again)


async def test_what_was_left_for_a_server_that_is_gone_is_forgotten(
    servers: Servers, clock: ManualClock, console: Console
) -> None:
    here, there, dead = await servers(3)
    for store in (there, dead):
        session = await a_processor(store)
        (held,) = await running(store, session, a_task())
        await here.cancel([held.task_id])
    clock.advance(us=LONGEST_SERVER_LEASE_US - 1)
    await there.renew()
    clock.advance(us=1)

    await here.renew()

    assert console.rows("SELECT server_seq FROM signal") == [(there.server_seq,)]
    assert len(await heard(there)) == 1
    assert (await dead.renew()).lapsed, "so it compares all that it has with the database"


async def test_a_session_says_whether_its_server_lives(servers: Servers, clock: ManualClock) -> None:
    here, there, leaves = await servers(3)
    sessions = [await a_processor(store) for store in (there, leaves)]

    async def lives() -> list[bool]:
        found = [await here.find_session(session.session_id) for session in sessions]
        return [one.server_lives for one in found if one is not None]

    assert await lives() == [True, True]
    await leaves.close()
    assert await lives() == [True, False]
    clock.advance(us=LONGEST_SERVER_LEASE_US)
    assert await lives() == [False, False]


async def test_of_a_server_that_has_left_sessions_and_tasks_live_on(servers: Servers) -> None:
    here, leaves = await servers(2)
    session = await a_processor(leaves)
    (held,) = await running(leaves, session, a_task())
    await leaves.close()

    assert await here.keep_alive(Sign(session.seq, LEASE)) == leaves.server_seq
    stored = await here.take_over(session.session_id)

    assert stored is not None and [one.task_id for one in stored.held] == [held.task_id]
    assert statuses(await here.end([succeeded(held)])) == [EndStatus.ACCEPTED]
    assert await leased_ids(here, session) == []


@pytest.mark.parametrize("everybody", [False, True])
async def test_spared_are_the_own_sessions_and_those_of_servers_that_are_gone(
    servers: Servers, clock: ManualClock, everybody: bool
) -> None:
    here, there, dead = await servers(3)
    own, theirs, orphan = [
        await a_processor(store, alive_until=clock.now_us() + LEASE) for store in (here, there, dead)
    ]
    clock.advance(us=LONGEST_SERVER_LEASE_US - 1)
    await there.renew()
    clock.advance(us=LEASE - LONGEST_SERVER_LEASE_US + 1)
    await there.renew()

    await here.spare(Grace(seconds(5), everybody=everybody))

    spared = {own.seq, orphan.seq} | ({theirs.seq} if everybody else set())
    assert set((await here.reclaim()).dead) == {own.seq, theirs.seq, orphan.seq} - spared
    clock.advance(5)
    assert set((await here.reclaim()).dead) == spared


async def test_a_sign_of_life_at_the_same_instant_outlasts_a_shorter_grace(servers: Servers, console: Console) -> None:
    here, there = await servers(2)
    session = await a_processor(here, alive_until=here._clock.now_us() + 1)

    hearing = await stopped_at(there, "UPDATE session", there.keep_alive(Sign(session.seq, LEASE)), after=True)
    sparing = asyncio.create_task(here.spare(Grace(seconds(5))))
    await somebody_waits(console)
    await hearing.goes_on()
    await sparing

    stored = await here.find_session(session.session_id)
    assert stored is not None and stored.alive_until_us == here._clock.now_us() + LEASE
