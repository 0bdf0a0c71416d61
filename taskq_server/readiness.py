"""Whether calls should come to this server: not while its database is away, and not once it stops.

Every answer of the store tells that the database is there, so it is asked only when nothing else has been for a while.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import structlog

from taskq_server.clock import pause
from taskq_server.core.errors import TaskqError
from taskq_server.store.store import Store

log = structlog.get_logger("taskq.server")

LOOK_SECONDS = 1.0
QUIET_SECONDS = 2.0
"""After so long without an answer a database is asked that is reached over a network."""
OWN_QUIET_SECONDS = 30.0
"""The same of a file of ours: who works with it is told at once what is wrong with it."""
PATIENCE_SECONDS = 3.0
"""A database that takes longer to answer a question about nothing is away."""

STARTING = "the server is starting"
AWAY = "the database does not answer"
STOPPING = "the server is stopping"


class Readiness:
    """Says why not, and tells whoever wants to know of each change."""

    def __init__(self, store: Store, quiet_seconds: float) -> None:
        self._store = store
        self._quiet_seconds = quiet_seconds
        self._answered_at = -math.inf
        self.why_not: str | None = STARTING
        """None: it is ready."""
        self.database_answers = True
        self.on_change: Callable[[bool], Awaitable[None]] = _nobody

    @property
    def is_ready(self) -> bool:
        return self.why_not is None

    def heard(self, seconds: float | None) -> None:
        """The store has answered, or (None) failed: then it is asked with the next look."""
        self._answered_at = -math.inf if seconds is None else asyncio.get_running_loop().time()

    async def start(self) -> None:
        """All is there now."""
        await self._change(None)

    async def run(self) -> None:
        while True:
            await pause(LOOK_SECONDS)
            await self.tick()

    async def tick(self) -> None:
        """Looks whether the database is there."""
        did_answer, self.database_answers = self.database_answers, await self._is_there()
        if self.database_answers != did_answer:
            log.info("the database answers again") if self.database_answers else log.error(AWAY)
        if self.why_not != STOPPING:
            await self._change(None if self.database_answers else AWAY)

    async def _is_there(self) -> bool:
        if asyncio.get_running_loop().time() - self._answered_at < self._quiet_seconds:
            return True
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._store.ping()
        except (TaskqError, TimeoutError):
            return False
        return True

    async def stop(self) -> None:
        """It never is again."""
        await self._change(STOPPING)

    async def _change(self, why_not: str | None) -> None:
        was_ready, self.why_not = self.is_ready, why_not
        if self.is_ready != was_ready:
            await self.on_change(self.is_ready)


async def _nobody(is_ready: bool) -> None:
    """Nobody wants to know."""
