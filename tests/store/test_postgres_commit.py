"""A COMMIT whose answer is lost: what was done is answered as if nothing had happened, what was not done is not said to
be, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.errors import StorageUnavailable
from taskq_server.core.task import Ending, EndStatus, EnqueueOutcome, NewTask, Outcome, Progress, TaskState
from taskq_server.store.postgres import lane
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.verbs.living import Advance, Grace, NewSession, Sign
from tests.store.conftest import PostgresDatabase
from tests.store.given import (
    LEASE,
    Gate,
    Processor,
    a_processor,
    a_task,
    added,
    an_id,
    days,
    lease,
    leased_ids,
    outcomes,
    running,
    seconds,
    statuses,
    succeeded,
    the_task,
)
from tests.support.console import Console
from tests.support.postgres_proxy import PostgresProxy
from tests.support.waiting import until_async


@pytest.fixture
async def database(proxy: PostgresProxy) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(proxy.url)
    yield database
    proxy.heal()
    await database.close()


@pytest.fixture
async def store(database: PostgresDatabase, clock: ManualClock) -> Postgres:
    return await database.open(clock)


@dataclass
class Kitchen:
    """A bit of everything, so that there is something to do for every verb."""

    store: Postgres
    clock: ManualClock
    new: NewTask = field(default_factory=lambda: a_task("new route", key="new"))
    registers: bytes = field(default_factory=an_id)
    told: list[bytes] = field(default_factory=list)
    """Which tasks have changed, as far as those who watch them were told."""

    @classmethod
    async def opened(cls, database: PostgresDatabase, clock: ManualClock) -> Kitchen:
        kitchen = cls(await database.open(clock), clock)
        store = kitchen.store
        (pruned,) = await running(store, await a_processor(store), a_task(retention=0))
        await store.end([succeeded(pruned)])
        kitchen.oven = await a_processor(store)
        kitchen.held, kitchen.cancelled = await running(store, kitchen.oven, a_task(), a_task())
        kitchen.dying = await a_processor(store, "fry", alive_until=clock.now_us() + LEASE)
        (kitchen.lost,) = await running(store, kitchen.dying, a_task("fry"))
        kitchen.elsewhere = await a_processor(await database.open(clock))
        (kitchen.waits,) = await added(store, a_task())
        clock.advance(us=LEASE)
        store.on_change = kitchen.told.extend
        return kitchen

    oven: Processor = field(init=False)
    dying: Processor = field(init=False)
    elsewhere: Processor = field(init=False)
    held: Any = field(init=False)
    cancelled: Any = field(init=False)
    lost: Any = field(init=False)
    waits: bytes = field(init=False)


@pytest.fixture
async def kitchen(database: PostgresDatabase, clock: ManualClock) -> Kitchen:
    return await Kitchen.opened(database, clock)


@dataclass(frozen=True)
class Case:
    """A verb, words by which its transaction is known, and how often it was done."""

    words: bytes
    do: Callable[[Kitchen], Awaitable[Any]]
    done: str
    """SQL for how often; $1 is `of`."""
    of: Callable[[Kitchen], Any]
    answers: Callable[[Kitchen, Any], object]
    """True of the answer of the first who did it."""
    changes: Callable[[Kitchen], list[bytes]] = lambda kitchen: []


def a_session(kitchen: Kitchen) -> NewSession:
    kitchen.registers = an_id()
    return NewSession(kitchen.registers, "grill", {"cook": 0}, {}, 5, "", "", LEASE)


CASES = {
    "add": Case(
        b"INSERT INTO task",
        lambda kitchen: kitchen.store.add([kitchen.new]),
        "SELECT count(*) FROM task JOIN dedup USING (task_id) JOIN route USING (route_id) WHERE task_id = $1",
        lambda kitchen: kitchen.new.task_id,
        lambda kitchen, answers: outcomes(answers) == [EnqueueOutcome.CREATED],
        lambda kitchen: [kitchen.new.task_id],
    ),
    "lease": Case(
        b"UPDATE task SET state = 2",
        lambda kitchen: lease(kitchen.store, kitchen.oven),
        "SELECT attempt FROM task WHERE task_id = $1",
        lambda kitchen: kitchen.waits,
        lambda kitchen, leased: [(one.task_id, one.attempt) for one in leased.assignments] == [(kitchen.waits, 1)],
        lambda kitchen: [kitchen.waits],
    ),
    "end": Case(
        b"UPDATE task SET state = 3",
        lambda kitchen: kitchen.store.end([succeeded(kitchen.held)]),
        "SELECT count(*) FROM task WHERE task_id = $1 AND state = 3",
        lambda kitchen: kitchen.held.task_id,
        lambda kitchen, answers: statuses(answers) == [EndStatus.ACCEPTED],
        lambda kitchen: [kitchen.held.task_id],
    ),
    "cancel": Case(
        b"UPDATE task SET state = new.state",
        lambda kitchen: kitchen.store.cancel([kitchen.cancelled.task_id]),
        "SELECT count(*) FROM task WHERE task_id = $1 AND state = 5",
        lambda kitchen: kitchen.cancelled.task_id,
        lambda kitchen, answers: answers[0].state_before is TaskState.RUNNING,
        lambda kitchen: [kitchen.cancelled.task_id],
    ),
    "register": Case(
        b"INSERT INTO session",
        lambda kitchen: kitchen.store.register(a_session(kitchen)),
        "SELECT count(*) FROM session WHERE session_id = $1",
        lambda kitchen: kitchen.registers,
        lambda kitchen, session_seq: session_seq > kitchen.elsewhere.seq,
    ),
    "keep_alive": Case(
        b"UPDATE session SET alive_until_us",
        lambda kitchen: kitchen.store.keep_alive(Sign(kitchen.dying.seq, days(1))),
        "SELECT count(*) FROM session WHERE session_seq = $1 AND alive_until_us > 1700000000000000 + 86400000000",
        lambda kitchen: kitchen.dying.seq,
        lambda kitchen, server_seq: server_seq == kitchen.store.server_seq,
    ),
    "save_progress": Case(
        b"UPDATE task SET progress_fraction",
        lambda kitchen: kitchen.store.save_progress(
            [Advance(kitchen.oven.seq, kitchen.held.task_id, 1, Progress(0.5), None)]
        ),
        "SELECT count(*) FROM task WHERE task_id = $1 AND progress_fraction = 0.5",
        lambda kitchen: kitchen.held.task_id,
        lambda kitchen, nothing: nothing is None,
    ),
    "take_over": Case(
        b"UPDATE session SET server_seq",
        lambda kitchen: kitchen.store.take_over(kitchen.elsewhere.session_id),
        "SELECT count(*) FROM signal WHERE session_seq = $1 AND server_seq = 2 AND kind = 5",
        lambda kitchen: kitchen.elsewhere.seq,
        lambda kitchen, stored: (
            (stored.session_seq, stored.server_seq) == (kitchen.elsewhere.seq, kitchen.store.server_seq)
        ),
    ),
    "unregister": Case(
        b"UPDATE session SET end_time_us",
        lambda kitchen: kitchen.store.unregister(kitchen.oven.seq),
        "SELECT count(*) FROM attempt JOIN task ON seq = task_seq WHERE task_id = $1 AND outcome = 3",
        lambda kitchen: kitchen.held.task_id,
        lambda kitchen, nothing: nothing is None,
        lambda kitchen: [kitchen.held.task_id, kitchen.cancelled.task_id],
    ),
    "reclaim": Case(
        b"UPDATE session SET end_time_us",
        lambda kitchen: kitchen.store.reclaim(),
        "SELECT count(*) FROM attempt JOIN task ON seq = task_seq WHERE task_id = $1 AND outcome = 5",
        lambda kitchen: kitchen.lost.task_id,
        lambda kitchen, reclaimed: reclaimed.dead == [kitchen.dying.seq],
        lambda kitchen: [kitchen.lost.task_id],
    ),
    "spare": Case(
        b"UPDATE session SET alive_until_us",
        lambda kitchen: kitchen.store.spare(Grace(days(1))),
        "SELECT count(*) FROM session WHERE session_seq = $1 AND alive_until_us > 1700000000000000 + 86400000000",
        lambda kitchen: kitchen.dying.seq,
        lambda kitchen, nothing: nothing is None,
    ),
    "prune": Case(
        b"DELETE FROM task",
        lambda kitchen: kitchen.store.prune(days(1)),
        "SELECT 1 - count(*) FROM task WHERE state = $1",
        lambda kitchen: 3,
        lambda kitchen, pruned: pruned.tasks == 1,
    ),
}
on_each_verb = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@on_each_verb
async def test_what_counts_is_answered_though_the_answer_to_its_commit_was_lost(
    kitchen: Kitchen, console: Console, proxy: PostgresProxy, case: Case
) -> None:
    assert console.value(case.done, case.of(kitchen)) == 0
    proxy.cut_at_commit(before=False, after=case.words)

    answer = await case.do(kitchen)

    assert proxy.cuts == 1
    assert case.answers(kitchen, answer)
    assert console.value(case.done, case.of(kitchen)) == 1
    assert sorted(kitchen.told) == sorted(case.changes(kitchen))


@on_each_verb
async def test_what_does_not_count_is_not_said_to_and_can_be_done_again(
    kitchen: Kitchen, console: Console, proxy: PostgresProxy, case: Case
) -> None:
    proxy.cut_at_commit(before=True, after=case.words)

    with pytest.raises(StorageUnavailable):
        await case.do(kitchen)

    assert proxy.cuts == 1
    assert console.value(case.done, case.of(kitchen)) == 0
    assert kitchen.told == []
    assert case.answers(kitchen, await case.do(kitchen))
    assert console.value(case.done, case.of(kitchen)) == 1
    assert sorted(kitchen.told) == sorted(case.changes(kitchen))


@pytest.mark.parametrize("before", [True, False])
async def test_all_who_share_a_commit_share_what_became_of_it(
    store: Postgres, console: Console, proxy: PostgresProxy, before: bool
) -> None:
    gate, tasks = Gate(), [a_task(f"name-{i}") for i in range(20)]
    held = await gate.hold(store)
    proxy.cut_at_commit(before=before, after=b"INSERT INTO task")
    waiting = [asyncio.create_task(store.add([task])) for task in tasks]
    await asyncio.sleep(0)
    gate.open()

    answers = await asyncio.gather(*waiting, return_exceptions=True)
    await held

    if before:
        assert {type(answer) for answer in answers} == {StorageUnavailable}
        assert (console.value("SELECT count(*) FROM task"), store.routes) == (0, {})
    else:
        assert [[one.task_id for one in answer] for answer in answers] == [[task.task_id] for task in tasks]  # type: ignore[union-attr]
        assert (console.value("SELECT count(*) FROM task"), len(store.routes)) == (20, 20)
    again = EnqueueOutcome.CREATED if before else EnqueueOutcome.EXISTING
    assert set(outcomes(await store.add(tasks))) == {again}


async def test_memory_knows_what_counts_though_its_answer_was_lost(
    store: Postgres, clock: ManualClock, proxy: PostgresProxy
) -> None:
    woken: list[None] = []
    store.on_scheduled = lambda: woken.append(None)
    proxy.cut_at_commit(before=False, after=b"INSERT INTO task")

    await added(store, a_task("new route", due_in=seconds(5), expires_at=clock.now_us() + seconds(9)))

    assert [route.name for route in store.routes.values()] == ["new route"]
    assert store.next_due_us(store.routes) == clock.now_us() + seconds(5)
    assert store.memory.next_expiry_us == clock.now_us() + seconds(9)
    assert len(woken) == 1


async def test_memory_knows_nothing_of_what_does_not_count(store: Postgres, proxy: PostgresProxy) -> None:
    woken: list[None] = []
    store.on_scheduled = lambda: woken.append(None)
    proxy.cut_at_commit(before=True, after=b"INSERT INTO task")

    with pytest.raises(StorageUnavailable):
        await store.add([a_task("new route", expires_at=1 << 60)])

    assert (store.routes, store.next_due_us(range(9)), store.memory.next_expiry_us, woken) == ({}, None, None, [])


async def test_a_lease_that_does_not_count_is_still_known_to_be_due(store: Postgres, proxy: PostgresProxy) -> None:
    oven = await a_processor(store)
    (task_id,) = await added(store, a_task())
    proxy.cut_at_commit(before=True, after=b"UPDATE task SET state = 2")

    with pytest.raises(StorageUnavailable):
        await lease(store, oven)

    assert store.next_due_us(store.routes) is not None
    assert await leased_ids(store, oven) == [task_id]


async def test_other_lanes_go_on_while_one_looks_for_what_became_of_its_commit(
    kitchen: Kitchen, proxy: PostgresProxy
) -> None:
    store, case = kitchen.store, CASES["add"]
    for other in (store.reclaim, store.look_around):
        await other()  # each lane has a connection now
    proxy.refuse()
    proxy.cut_at_commit(before=False, after=case.words)
    adding = asyncio.create_task(store.add([kitchen.new]))
    await until_async(lambda: proxy.cuts, "the connection of the lane is cut")

    assert statuses(await store.end([succeeded(kitchen.held)])) == [EndStatus.ACCEPTED]
    assert await store.keep_alive(Sign(kitchen.oven.seq, LEASE)) == store.server_seq
    assert kitchen.waits in await leased_ids(store, kitchen.oven)
    assert list(await store.get([kitchen.new.task_id])) == [kitchen.new.task_id], "it counts"
    assert not adding.done(), "and nobody knows"
    proxy.heal()
    assert case.answers(kitchen, await adding)


# ── what cannot be seen ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def a_short_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "LOOK_SECONDS", 0.3)
    monkeypatch.setattr(lane, "LOOK_AGAIN_SECONDS", 0.01)


@pytest.mark.usefixtures("a_short_look")
@pytest.mark.parametrize("before", [True, False])
@on_each_verb
async def test_who_cannot_be_told_what_became_of_it_is_told_so_in_time(
    kitchen: Kitchen, console: Console, proxy: PostgresProxy, case: Case, before: bool
) -> None:
    proxy.refuse()
    proxy.cut_at_commit(before=before, after=case.words)

    async with asyncio.timeout(5):
        with pytest.raises(StorageUnavailable):
            await case.do(kitchen)

    assert proxy.cuts == 1
    assert kitchen.told == []
    proxy.heal()
    await case.do(kitchen)  # it, or its like, is accepted again
    assert console.value(case.done, case.of(kitchen)) == 1


@pytest.mark.usefixtures("a_short_look")
async def test_a_task_of_which_nobody_could_be_told_is_found_by_the_next_look(
    store: Postgres, clock: ManualClock, proxy: PostgresProxy
) -> None:
    await added(store, a_task())
    task = a_task("new route", due_in=seconds(1))
    proxy.refuse()
    proxy.cut_at_commit(before=False, after=b"INSERT INTO task")
    with pytest.raises(StorageUnavailable):
        await store.add([task])
    proxy.heal()

    news = await store.look_around()

    assert news.earliest_us == clock.now_us() + seconds(1)
    clock.advance(1)
    assert await leased_ids(store, await a_processor(store, "new route")) == [task.task_id]
    assert outcomes(await store.add([task])) == [EnqueueOutcome.EXISTING]


@pytest.mark.usefixtures("a_short_look")
async def test_a_lease_of_which_nobody_could_be_told_can_be_given_back(store: Postgres, proxy: PostgresProxy) -> None:
    oven = await a_processor(store)
    assert await leased_ids(store, oven) == []
    (task_id,) = await added(store, a_task())
    proxy.refuse()
    proxy.cut_at_commit(before=False, after=b"UPDATE task SET state = 2")
    with pytest.raises(StorageUnavailable):
        await lease(store, oven)
    proxy.heal()

    stored = await store.find_session(oven.session_id)  # as heartbeats find that it was never received

    assert stored is not None
    assert [(held.task_id, held.attempt) for held in stored.held] == [(task_id, 1)]
    assert await leased_ids(store, oven) == []
    await store.end([Ending(task_id, 1, oven.seq, Outcome.NOT_RECEIVED)])
    assert await leased_ids(store, oven) == [task_id]
    assert (await the_task(store, task_id)).failed_attempts == 0
