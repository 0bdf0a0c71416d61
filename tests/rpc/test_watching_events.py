"""WatchEvents: hints of what has changed, from now on or from where somebody was."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
import pytest

from taskq.v1 import event_pb2
from taskq_server import events
from taskq_server.core.event import Event, Hint, Topic
from tests.rpc.support import a_task, refused, retrying, soon
from tests.rpc.world import World

TASKS, PROCESSORS = event_pb2.EVENT_TOPIC_TASKS, event_pb2.EVENT_TOPIC_PROCESSORS
CAPABILITIES, SCHEDULES = event_pb2.EVENT_TOPIC_CAPABILITIES, event_pb2.EVENT_TOPIC_SCHEDULES
FAILURE_GROUPS, GAP = event_pb2.EVENT_TOPIC_FAILURE_GROUPS, event_pb2.EVENT_TOPIC_GAP


class WatchingEvents:
    """A WatchEvents stream."""

    def __init__(self, world: World, **asked: Any) -> None:
        self._call = world.admin.stub.WatchEvents(event_pb2.WatchEventsRequest(**asked))
        self._pending: list[event_pb2.Event] = []

    async def open(self) -> WatchingEvents:
        """The first message tells that it is open; it may hold what came since the cursor."""
        self._pending += (await soon(self._call.read())).events
        return self

    async def next(self) -> event_pb2.Event:
        while not self._pending:
            response = await soon(self._call.read())
            assert response is not grpc.aio.EOF, await self._call.code()
            self._pending += response.events
        return self._pending.pop(0)

    async def until(self, topic: int) -> event_pb2.Event:
        """The next event on this topic; others are passed over."""
        while (event := await self.next()).topic != topic:
            pass
        return event

    async def rest(self) -> None:
        while await soon(self._call.read()) is not grpc.aio.EOF:
            pass

    def cancel(self) -> None:
        self._call.cancel()


async def watching(world: World, topics: Iterable[int] = (), cursor: str = "") -> WatchingEvents:
    return await WatchingEvents(world, topics=list(topics), cursor=cursor).open()


async def test_who_begins_to_watch_is_told_of_a_gap_and_then_of_what_changes(world: World) -> None:
    watch = await watching(world)
    assert (await watch.next()).topic == GAP

    task_id = await world.scheduler.enqueue()
    enqueued = await watch.until(TASKS)
    assert (enqueued.changes, list(enqueued.ids)) == (1, [task_id])
    await world.scheduler.cancel(task_id)
    cancelled = await watch.until(TASKS)
    assert (cancelled.changes, list(cancelled.ids)) == (1, [task_id])
    watch.cancel()


async def test_each_topic_tells_its_own_changes(world: World) -> None:
    watch = await watching(world)
    await watch.until(GAP)
    processor = await world.processor()
    assert list((await watch.until(PROCESSORS)).ids) == [processor.session_id]
    await world.admin.pause("bake")
    assert list((await watch.until(CAPABILITIES)).ids) == ["bake"]
    await world.scheduler.enqueue(retry_policy=retrying(max_attempts=1))
    await processor.fail(await processor.take_one())
    assert len((await watch.until(FAILURE_GROUPS)).ids[0]) == 16
    await processor.unregister()
    assert list((await watch.until(PROCESSORS)).ids) == [processor.session_id]
    watch.cancel()


async def test_only_the_topics_that_were_asked_for_are_told(world: World) -> None:
    watch = await watching(world, [CAPABILITIES])
    assert (await watch.next()).topic == GAP
    await world.scheduler.enqueue()
    await world.admin.pause("cook")
    assert (await watch.next()).topic == CAPABILITIES
    watch.cancel()


async def test_many_changes_are_one_event_that_names_some(world: World) -> None:
    watch = await watching(world)
    await watch.until(GAP)
    results = await world.scheduler.enqueue_all(*(a_task("nobody") for _ in range(200)))
    for one in results:
        await world.scheduler.cancel(one.task_id)
    changes, named = 0, 0
    while changes < 400:
        event = await watch.until(TASKS)
        assert len(event.ids) <= 50
        changes, named = changes + event.changes, max(named, len(event.ids))
    assert (changes, named) == (400, 50)
    watch.cancel()


async def test_who_comes_back_with_a_cursor_is_told_what_came_since(world: World) -> None:
    watch = await watching(world)
    gap = await watch.until(GAP)
    other = await watching(world)  # lets the hints be kept
    watch.cancel()
    await world.admin.pause("cook")
    await other.until(CAPABILITIES)

    again = await watching(world, cursor=gap.cursor)

    assert list((await again.until(CAPABILITIES)).ids) == ["cook"]
    other.cancel()
    again.cancel()


async def test_who_comes_back_after_a_restart_is_told_of_a_gap(world: World) -> None:
    watch = await watching(world)
    gap = await watch.until(GAP)
    await world.restart()
    again = await watching(world, cursor=gap.cursor)
    assert (await again.next()).topic == GAP
    again.cancel()


@pytest.mark.parametrize("cursor", ["7.7", "999999999999.1"])
async def test_a_cursor_that_is_not_kept_is_a_gap(world: World, cursor: str) -> None:
    watch = await watching(world, [SCHEDULES], cursor)
    assert (await watch.next()).topic == GAP
    watch.cancel()


async def test_what_changes_while_nobody_watches_is_not_kept_and_told_as_a_gap(world: World) -> None:
    watch = await watching(world)
    gap = await watch.until(GAP)
    watch.cancel()
    await world.let_pass(120)
    await world.scheduler.enqueue()

    again = await watching(world, cursor=gap.cursor)

    assert (await again.next()).topic == GAP
    again.cancel()


async def test_a_stream_on_which_nothing_happens_is_seen_to_be_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "QUIET_SECONDS", 0.05)
    watch = await watching(world, [SCHEDULES])
    for _ in range(3):
        await soon(watch._call.read())
    watch.cancel()


async def test_when_the_server_stops_watchers_are_told_to_watch_again(world: World) -> None:
    watch = await watching(world)
    stop = asyncio.create_task(world.server.stop())
    refusal = await refused(watch.rest())
    await stop
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STOPPING")


async def test_what_is_no_topic_and_what_is_no_cursor_are_refused(world: World) -> None:
    refusal = await refused(watching(world, [TASKS, 99, 0], "x"))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.faults) == ["topics[1]", "topics[2]", "cursor"]


def test_who_does_not_read_is_told_of_a_gap_and_costs_no_memory() -> None:
    watcher = events._Watcher(frozenset(Topic))
    many = [Event(seq, seq, Hint(Topic.TASKS)) for seq in range(1, 2 * events.MOST_PENDING)]
    watcher.tell(many)
    (gap,) = watcher.take()
    assert gap == many[-1]._replace(hint=Hint(Topic.GAP))
    watcher.tell([Event(gap.seq + 1, 1, Hint(Topic.AUDIT))])
    assert [event.seq for event in watcher.take()] == [gap.seq + 1]
