"""The use cases of an administrator: look at what there is, drain, disconnect, pause, resume."""

from __future__ import annotations

import asyncio

import structlog

from taskq_server.core.errors import SessionNotFound
from taskq_server.sessions import Sessions
from taskq_server.store.store import Store
from taskq_server.store.verbs.describing import Description
from taskq_server.store.verbs.listing import Page, Registered, Supply
from taskq_server.store.verbs.pausing import NewPause, Pause
from taskq_server.task_id import to_text

log = structlog.get_logger("taskq.admin")


class Admin:
    """What an administrator may do. All of it holds on every server of the database."""

    def __init__(self, store: Store, sessions: Sessions) -> None:
        self._store = store
        self._sessions = sessions

    async def processors(self, page: Page) -> list[Registered]:
        """The sessions that live, in the order of their registration."""
        return [self._sessions.as_heard(one) for one in await self._store.list_sessions(page)]

    async def drain(self, session_id: bytes, reason: str) -> Registered:
        """Gives a session nothing more; what it runs goes on. SessionNotFound when it has ended."""
        # Shielded: whoever asked may go away during the commit, and the processor must be told all the same.
        await asyncio.shield(self._sessions.drain(session_id, reason))
        found = await self._store.list_sessions(Page(0, 1, session_id))
        if not found:
            raise SessionNotFound(to_text(session_id))
        return self._sessions.as_heard(found[0])

    async def disconnect(self, session_id: bytes) -> int:
        """Ends a session at once; answers how many of its tasks go to others. SessionNotFound when it never was."""
        return await asyncio.shield(self._sessions.disconnect(session_id))

    async def capabilities(self, page: Page) -> list[Supply]:
        """The names that tasks have had, processors have, and are paused, in the order of their characters."""
        return await self._store.list_capabilities(page)

    async def pause(self, name: str, reason: str) -> Pause:
        """Dispatches nothing more of a name, on any server, from when this returns. It need not be known yet."""
        paused = await self._store.pause(NewPause(name, reason))
        log.info("capability paused", name=name, reason=reason)
        return paused

    async def describe(self) -> Description:
        """The database, and the servers that live on it."""
        return await self._store.describe()

    async def resume(self, name: str) -> Pause | None:
        """Dispatches tasks of a name again; answers the pause that has ended, None when there was none."""
        ended = await self._store.resume(name)
        log.info("capability resumed", name=name)
        return ended
