"""The use cases of a task: enqueue, get, watch, cancel, report, release."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from taskq_server.clock import SECOND_US, Alarm, Clock
from taskq_server.core.errors import Stopping, TaskNotFound, WrongState
from taskq_server.core.task import (
    Assignment,
    Ended,
    Ending,
    Enqueued,
    EnqueueOutcome,
    NewTask,
    Outcome,
    Task,
    TaskState,
)
from taskq_server.metrics import Metrics
from taskq_server.session import Session
from taskq_server.sessions import Sessions
from taskq_server.store.store import Store
from taskq_server.store.verbs.servers import Version
from taskq_server.task_id import to_text

NO_SESSION = 0
OUTCOMES = {outcome: outcome.name.lower() for outcome in Outcome}
MOST_LOOKED_AT = 1_000
MOST_READ_AT_ONCE = 50
"""A thousand watched tasks may hold half a gigabyte of payloads and results."""


@dataclass(eq=False, slots=True)
class _Watcher:
    """Somebody who waits for changes of some tasks."""

    changed: set[bytes]
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class TaskQueue:
    """What schedulers and processors may do with tasks."""

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        clock: Clock,
        alarm: Alarm,
        expect: Callable[[int], None],
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._metrics = metrics
        self._alarm = alarm
        self._expect = expect
        """Told when a task will be too late."""
        self._watchers: dict[bytes, set[_Watcher]] = {}
        self._seen: dict[bytes, Version] = {}
        """What those who watch have been told last."""
        self._looked_at = 0
        self._stopping = False
        store.on_change = self._tell
        store.on_scheduled = alarm.ring

    def stop(self) -> None:
        """Takes nothing new, and lets those who watch go."""
        self._stopping = True
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.wake.set()

    async def enqueue(self, tasks: list[NewTask]) -> list[Enqueued]:
        """Stores tasks; they are safe when this returns."""
        if self._stopping:
            raise Stopping
        enqueued = await self._store.add(tasks)
        moved = (EnqueueOutcome.CREATED, EnqueueOutcome.REPLACED)
        due = min((one.due_time_us for one in enqueued if one.outcome in moved), default=None)
        if due is not None:
            self._alarm.ring(due)
        for task in tasks:
            if task.expire_time_us is not None:
                self._expect(task.expire_time_us)
        return enqueued

    async def get(self, task_id: bytes) -> Task:
        """The task as it stands, or TaskNotFound."""
        found = await self._store.get([task_id])
        if task_id not in found:
            raise TaskNotFound(to_text(task_id))
        return found[task_id]

    async def watch(self, task_ids: list[bytes]) -> AsyncIterator[Task]:
        """Each task as it stands, then again after each change, until all are finished."""
        watcher = _Watcher(set(task_ids))
        unfinished = set(task_ids)
        for task_id in unfinished:
            self._watchers.setdefault(task_id, set()).add(watcher)
        try:
            while unfinished:
                asked = sorted(watcher.changed & unfinished)
                watcher.changed.clear()
                watcher.wake.clear()
                for start in range(0, len(asked), MOST_READ_AT_ONCE):
                    async for task in self._read(asked[start : start + MOST_READ_AT_ONCE]):
                        if task.state.finished:
                            unfinished.discard(task.task_id)
                        yield task
                if unfinished:
                    if self._stopping:
                        raise Stopping
                    await watcher.wake.wait()
        finally:
            self._forget(watcher, task_ids)

    async def _read(self, task_ids: list[bytes]) -> AsyncIterator[Task]:
        found = await self._store.get(task_ids)
        for task_id in task_ids:
            if task_id not in found:
                raise TaskNotFound(to_text(task_id))
            task = found[task_id]
            self._seen[task_id] = int(task.state), task.attempt, task.due_time_us, task.finish_time_us
            yield task

    def _forget(self, watcher: _Watcher, task_ids: Iterable[bytes]) -> None:
        for task_id in task_ids:
            if (watchers := self._watchers.get(task_id)) is not None:
                watchers.discard(watcher)
                if not watchers:
                    del self._watchers[task_id]
                    self._seen.pop(task_id, None)

    async def look_again(self, versions: Callable[[list[bytes]], Awaitable[dict[bytes, Version]]]) -> None:
        """Tells those who watch of what other servers have changed: looks at some of the tasks, in turn."""
        watched = list(self._seen)  # who has not been told anything yet is about to be
        self._looked_at = self._looked_at % len(watched) if watched else 0
        some = watched[self._looked_at : self._looked_at + MOST_LOOKED_AT]
        self._looked_at += len(some)
        if not some:
            return
        found = await versions(some)
        self._tell([task_id for task_id in some if found.get(task_id) != self._seen.get(task_id)])

    def _tell(self, task_ids: list[bytes]) -> None:
        if not self._watchers:
            return
        for task_id in task_ids:
            for watcher in self._watchers.get(task_id, ()):
                watcher.changed.add(task_id)
                watcher.wake.set()

    async def cancel(self, task_id: bytes) -> Task:
        """Cancels a task that waits or runs; one that is cancelled already is fine, a finished one is WrongState."""
        # Shielded: whoever asked may go away during the commit, and the processor must be told all the same.
        await asyncio.shield(self._cancel(task_id))
        return await self.get(task_id)

    async def _cancel(self, task_id: bytes) -> None:
        (cancelled,) = await self._store.cancel([task_id])
        state = cancelled.state_before
        if state is None:
            raise TaskNotFound(to_text(task_id))
        if state in (TaskState.SUCCEEDED, TaskState.FAILED):
            raise WrongState(to_text(task_id), state.name.lower(), ("scheduled", "running"))
        if cancelled.session_seq is not None and (session := self._sessions.by_seq(cancelled.session_seq)):
            session.revoke((task_id, cancelled.attempt), cancelled=True)
            self._alarm.ring()  # if it was not sent yet, its credit is back

    async def report(self, session_id: bytes, endings: list[Ending]) -> list[Ended]:
        """Ends attempts by the word of their processor. What comes from an ended session is stale, and told so."""
        session = self._sessions.find(session_id)
        # What an ended session reported before its end is still answered as accepted.
        session_seq = await self._store.session_seq(session_id) if session is None else session.seq
        for ending in endings:
            ending.session_seq = NO_SESSION if session_seq is None else session_seq
            if session is not None and (held := session.holding((ending.task_id, ending.attempt))) is not None:
                ending.seq, ending.name = held.seq, held.name
        ended = await self._store.end(endings)
        if session is not None:
            self._measure(session, endings)
            for ending in endings:
                session.settle((ending.task_id, ending.attempt))
        self._alarm.ring()  # credits are back, and some may be due again
        return ended

    def _measure(self, session: Session, endings: list[Ending]) -> None:
        """How long these took, as far as they were written to a stream here."""
        now_us = self._clock.now_us()
        seconds: dict[tuple[str, str], list[float]] = {}
        for ending in endings:
            held = session.holding((ending.task_id, ending.attempt))
            if held is not None and held.sent_us:
                spans = seconds.setdefault((held.name, OUTCOMES[ending.outcome]), [])
                spans.append((now_us - held.sent_us) / SECOND_US)
        self._metrics.ran(seconds)

    async def release(self, session: Session, unsent: list[Assignment]) -> None:
        """Gives back what was leased to a session and never written to its stream."""
        await self._sessions.give_back(session.seq, [(one.task_id, one.attempt) for one in unsent])
        self._alarm.ring()
