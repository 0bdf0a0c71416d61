"""Who watches what changes, on whichever server it changes.

Hints go by the database: each server writes what it has changed, and each reads what there is for those who watch here,
once for all of them. They are written only while somebody watches somewhere, and for a minute after. A server that
begins to write says so by a gap: until then something may have changed of which there is no hint.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from taskq_server.clock import SECOND_US, Clock, pause
from taskq_server.core.errors import Stopping, TaskqError
from taskq_server.core.event import MOST_IDS, Event, Hint, Topic
from taskq_server.store.store import Store
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.events import Since
from taskq_server.task_id import to_text

log = structlog.get_logger("taskq.events")

READ_SECONDS = 0.5
"""How often is looked for what there is, for all who watch here."""
QUIET_SECONDS = 15.0
"""A stream on which nothing happens carries an empty message so often."""
WATCHED_US = 60 * SECOND_US
RENEW_US = 20 * SECOND_US
"""That somebody watches is said anew when so much of it has passed."""
MOST_PENDING = 500
"""Whoever has not read so many is told of a gap instead."""


@dataclass(eq=False, slots=True)
class _Watcher:
    """Somebody who watches, and what they have not been told yet."""

    topics: frozenset[Topic]
    after_seq: int = 0
    pending: deque[Event] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, events: Collection[Event]) -> None:
        for event in events:
            if event.seq <= self.after_seq:
                continue
            self.after_seq = event.seq
            if event.hint.topic is Topic.GAP or event.hint.topic in self.topics:
                self.pending.append(event)
        if len(self.pending) > MOST_PENDING:
            self.miss(self.pending[-1])
        if self.pending:
            self.wake.set()

    def miss(self, last: Event) -> None:
        """Tells of a gap instead of all until `last`."""
        self.pending.clear()
        self.pending.append(last._replace(hint=Hint(Topic.GAP)))
        self.wake.set()

    def take(self) -> list[Event]:
        events = list(self.pending)
        self.pending.clear()
        self.wake.clear()
        return events


class Events:
    """Hints of what this server changes, and those who watch here."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._until_us = 0
        """Somebody watches somewhere until then, as far as is known here."""
        self._has_begun = False
        """Whether all has been written down since a gap."""
        self._hints: dict[Topic, tuple[int, list[str]]] = {}
        self._watchers: set[_Watcher] = set()
        self._attended = asyncio.Event()
        self._reading = asyncio.Lock()
        self._seen_seq = 0
        self._stopping = False
        self.on_hint: Callable[[], None] = lambda: None
        """Told that there is something to write."""

    # ── what changes here ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_watched(self) -> bool:
        return self._clock.now_us() < self._until_us

    def hear(self, until_us: int) -> None:
        """Somebody watches until then, on some server."""
        self._until_us = max(self._until_us, until_us)
        if not self._has_begun and self.is_watched:
            self._has_begun = True
            self._hints[Topic.GAP] = 1, []
            self.on_hint()

    def committed(self, transaction: Transaction) -> None:
        """Something has changed."""
        if not self._has_begun:
            return
        if not self.is_watched:
            self._has_begun = False
            self._hints.clear()
            return
        if changed := transaction.changed:
            room = MOST_IDS - len(self._hints.get(Topic.TASKS, (0, []))[1])
            self._note(Topic.TASKS, len(changed), [to_text(task_id) for task_id in changed[:room]])
        for topic, (changes, ids) in transaction.hints.items():
            self._note(topic, changes, ids)

    def _note(self, topic: Topic, changes: int, ids: Collection[str]) -> None:
        before, some = self._hints.get(topic, (0, []))
        self._hints[topic] = before + changes, list(dict.fromkeys([*some, *ids]))[:MOST_IDS]
        self.on_hint()

    def take(self) -> list[Hint]:
        """What is to be written; nothing when nobody watches any more."""
        hints, self._hints = self._hints, {}
        if not self.is_watched:
            self._has_begun = False
            return []
        if Topic.GAP in hints:  # whoever looks at everything anew need not be told what has changed
            return [Hint(Topic.GAP)]
        return [Hint(topic, changes, tuple(ids)) for topic, (changes, ids) in sorted(hints.items())]

    def lost(self) -> None:
        """What was taken could not be written."""
        if self._has_begun:
            self._hints[Topic.GAP] = 1, []
            self.on_hint()

    # ── who watches ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def watch(self, topics: Collection[Topic], since: Since | None) -> AsyncIterator[list[Event]]:
        """What changes from now on, or has since then; nothing at first and once in a while, to say that it is open."""
        if self._stopping:
            raise Stopping
        watcher = _Watcher(frozenset(topics) or frozenset(Topic))
        await self._attach(watcher, since)
        try:
            yield watcher.take()
            while True:
                if self._stopping:
                    raise Stopping
                with suppress(TimeoutError):
                    async with asyncio.timeout(QUIET_SECONDS):
                        await watcher.wake.wait()
                if self._stopping:
                    raise Stopping
                yield watcher.take()
        finally:
            self._watchers.discard(watcher)
            if not self._watchers:
                self._attended.clear()

    async def _attach(self, watcher: _Watcher, since: Since | None) -> None:
        async with self._reading:
            await self._renew()
            if not self._watchers or since is not None:
                last = await self._store.last_event()
                if not self._watchers:
                    self._seen_seq = 0 if last is None else last.seq
            if since is None:
                watcher.after_seq = self._seen_seq
            else:
                await self._catch_up(watcher, since, last)
            self._watchers.add(watcher)
            self._attended.set()

    async def _catch_up(self, watcher: _Watcher, since: Since, last: Event | None) -> None:
        """Tells what came since, if all of it is kept."""
        watcher.after_seq = since.seq
        found = await self._store.events_after(since)
        if found.is_whole:
            watcher.tell(found.events)
            return
        newest = found.events[-1] if found.events else last or Event(0, 0, Hint(Topic.GAP))
        if last is not None and last.seq > newest.seq:
            newest = last
        watcher.after_seq = newest.seq
        watcher.miss(newest)

    async def _renew(self) -> None:
        """Says that somebody watches, unless that has been said a moment ago."""
        now_us = self._clock.now_us()
        if self._until_us - now_us <= WATCHED_US - RENEW_US:
            await self._store.watch_until(now_us + WATCHED_US)
            self.hear(now_us + WATCHED_US)

    async def run(self) -> None:
        while True:
            await self._attended.wait()
            await pause(READ_SECONDS)
            try:
                await self.tick()
            except TaskqError as error:
                log.warning("what has changed cannot be read", error=error.in_full)

    async def tick(self) -> None:
        """Reads once for all who watch here."""
        async with self._reading:
            if not self._watchers:
                return
            await self._renew()
            found = await self._store.events_after(Since(self._seen_seq))
            if found.events:
                self._seen_seq = found.events[-1].seq
                for watcher in self._watchers:
                    watcher.tell(found.events)

    def stop(self) -> None:
        """Lets those who watch go."""
        self._stopping = True
        for watcher in self._watchers:
            watcher.wake.set()
