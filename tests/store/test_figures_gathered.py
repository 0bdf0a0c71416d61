"""What a server gathers of its commits, and what becomes of it when it cannot be written at once."""

from __future__ import annotations

import asyncio

import pytest

from taskq_server import figures
from taskq_server.clock import ManualClock
from taskq_server.core.errors import StorageUnavailable
from taskq_server.core.event import Topic
from taskq_server.core.sums import OF_ALL
from taskq_server.events import Events
from taskq_server.figures import Figures
from taskq_server.store.store import Store
from taskq_server.store.verbs.events import Since
from taskq_server.store.verbs.failures import GroupPage
from taskq_server.store.verbs.figures import Asked, Round
from tests.store.given import NO_RETRY, a_processor, a_task, added, end, failed, minutes, running, seconds

FIRST_PAGE = GroupPage(1 << 60, "", 100)


@pytest.fixture
def events(store: Store, clock: ManualClock) -> Events:
    return Events(store, clock)


@pytest.fixture
def gathered(store: Store, clock: ManualClock, events: Events, monkeypatch: pytest.MonkeyPatch) -> Figures:
    monkeypatch.setattr(figures, "ROUND_SECONDS", 0.0)
    gathered = Figures(store, clock, events, lambda session_seq: f"build of {session_seq}")
    store.on_commit = gathered.committed
    return gathered


def refuses(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is away."""

    async def keep(round: Round) -> None:
        raise StorageUnavailable("it is away")

    monkeypatch.setattr(store, "keep_figures", keep)


async def enqueued(store: Store, clock: ManualClock) -> list[int]:
    """How many tasks were enqueued in each minute."""
    now_us = clock.now_us()
    history = await store.sums(Asked(60, now_us - minutes(60), now_us + 1))
    return [sums.enqueued for _, sums in history]


async def test_what_could_not_be_written_is_written_with_the_next_in_the_minute_in_which_it_was(
    store: Store, clock: ManualClock, gathered: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = await a_processor(store)
    for message in ("order 1", "order 2"):
        (one,) = await running(store, processor, a_task(retry=NO_RETRY))
        await end(store, failed(one, message=message))
        with monkeypatch.context() as away:
            refuses(store, away)
            with pytest.raises(StorageUnavailable):
                await gathered.tick()
        clock.advance(us=minutes(1))
    await added(store, a_task(due_in=minutes(9)))
    await gathered.tick()

    assert await enqueued(store, clock) == [1, 1, 1]
    (group,) = await store.failure_groups(FIRST_PAGE)
    assert (group.failures, group.last_message) == (2, "order 2")
    assert group.build_ids == [f"build of {processor.seq}"]


async def test_nothing_is_asked_of_the_database_while_there_is_nothing_to_write(
    store: Store, gathered: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses(store, monkeypatch)
    await gathered.tick()
    running_ = asyncio.create_task(gathered.run())
    gathered.stop()
    await running_


async def test_when_it_stops_it_writes_what_is_left(store: Store, clock: ManualClock, gathered: Figures) -> None:
    writing = asyncio.create_task(gathered.run())
    await added(store, a_task())
    gathered.stop()
    await writing
    assert await enqueued(store, clock) == [1]


async def test_hints_that_could_not_be_written_are_a_gap(
    store: Store, events: Events, gathered: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    events.hear(1 << 60)
    await gathered.tick()  # the gap with which it begins
    await added(store, a_task())
    with monkeypatch.context() as away:
        refuses(store, away)
        with pytest.raises(StorageUnavailable):
            await gathered.tick()
    await added(store, a_task())
    await gathered.tick()
    await added(store, a_task())
    await gathered.tick()
    told = (await store.events_after(Since(0))).events
    assert [event.hint.topic for event in told] == [Topic.GAP, Topic.GAP, Topic.TASKS]


async def test_hints_are_kept_only_while_somebody_watches(
    store: Store, clock: ManualClock, events: Events, gathered: Figures
) -> None:
    await added(store, a_task())
    await gathered.tick()
    assert await store.last_event() is None
    events.hear(clock.now_us() + seconds(60))
    clock.advance(61)
    await added(store, a_task())
    await gathered.tick()
    assert await store.last_event() is None
    (span, sums) = (await store.sums(Asked(3600, 0, clock.now_us())))[-1]
    assert (span.name, sums.enqueued) == (OF_ALL, 2)
