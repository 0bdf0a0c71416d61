"""Tasks as administrators see them: lists by a filter, one with its past, and why it is not running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from taskq_server.core.errors import TaskNotFound
from taskq_server.core.explaining import Able, Explanation, explain
from taskq_server.core.filter import Filter
from taskq_server.core.history import History
from taskq_server.core.task import Task
from taskq_server.sessions import Sessions
from taskq_server.store.store import Store
from taskq_server.store.verbs.looking import END, Look, Looked, Seen
from taskq_server.task_id import to_text

FIRST_LOOK = 1_000
"""Tasks that are looked at to learn how quickly that goes."""
MOST_LOOKED_AT = 20_000
"""For one page, or one count."""
LOOK_SECONDS, COUNT_SECONDS = 0.02, 0.01
"""No further look is begun after that."""
READ_AT_ONCE = 20
"""Whole tasks, each of which may hold half a megabyte."""


@dataclass(slots=True)
class Listed:
    """A page of tasks."""

    found: list[Seen] = field(default_factory=list)
    before: int | None = None
    """Where the next page begins; None at the end."""


@dataclass(frozen=True, slots=True)
class Total:
    """How many tasks match, or, of a count that was broken off, at least how many."""

    many: int
    is_partial: bool


class AdminTasks:
    """What an administrator may ask about tasks. All of it is answered by what the database knows."""

    def __init__(self, store: Store, sessions: Sessions) -> None:
        self._store = store
        self._sessions = sessions

    async def page(self, wanted: Filter, before: int, at_most: int) -> Listed:
        """The tasks that match, of those enqueued before one, the last first; as many as a bounded look finds."""
        listed = Listed()
        async for looked in self._looks(Look(wanted, before, at_most, FIRST_LOOK), LOOK_SECONDS):
            listed.found += looked.found
            listed.before = looked.before
        return listed

    async def count(self, wanted: Filter) -> Total:
        """How many match in all, as far as a bounded look tells."""
        many, before = 0, None
        look = Look(wanted, END, MOST_LOOKED_AT, FIRST_LOOK, only_count=True)
        async for looked in self._looks(look, COUNT_SECONDS):
            many, before = many + looked.many, looked.before
        return Total(many, before is not None)

    async def _looks(self, look: Look, seconds: float) -> AsyncIterator[Looked]:
        """Looks further and further, until there is enough, or all has been looked at, or as much as there is time
        for. The first is small, and says how much there is time for."""
        loop = asyncio.get_running_loop()
        began, seen = loop.time(), 0
        while True:
            looked = await self._store.look_at_tasks(look)
            yield looked
            seen += look.rows
            spent = loop.time() - began
            left = int(min(MOST_LOOKED_AT - seen, seen * (seconds - spent) / max(spent, 1e-6)))
            if looked.before is None or looked.many >= look.at_most or left < FIRST_LOOK:
                return
            look = look._replace(before=looked.before, at_most=look.at_most - looked.many, rows=left)

    async def in_full(self, found: list[Seen]) -> AsyncIterator[Task]:
        """The same tasks with all that they carry, but for those that are gone by now."""
        for start in range(0, len(found), READ_AT_ONCE):
            ids = [one.task.task_id for one in found[start : start + READ_AT_ONCE]]
            whole = await self._store.get(ids)
            for task_id in ids:
                if task_id in whole:
                    yield whole[task_id]

    async def history(self, task_id: bytes) -> History:
        """A task with its past, or TaskNotFound."""
        if (found := await self._store.history(task_id)) is None:
            raise TaskNotFound(to_text(task_id))
        return found

    async def explain(self, task_id: bytes) -> Explanation:
        """Why a task is where it is, or TaskNotFound."""
        if (facts := await self._store.facts(task_id)) is None:
            raise TaskNotFound(to_text(task_id))
        for one in facts.able:
            self._add_stream(one)
        return explain(facts)

    def _add_stream(self, one: Able) -> None:
        """Only its own server knows whether a session has a stream, and whether it said that it takes nothing more. Of
        another's, it is taken to have one while that server lives."""
        session = self._sessions.by_seq(one.session_seq)
        if session is not None:
            one.streams = session.streaming
            one.is_drained = one.is_drained or session.is_drained
        else:
            one.streams = one.server_lives and one.server_seq != self._store.server_seq
