"""What is looked at now and then, rather than counted as it happens."""

from __future__ import annotations

import asyncio
from collections import Counter

import structlog

from taskq_server.certificates import Certificates
from taskq_server.clock import SECOND_US, Clock, pause
from taskq_server.core.errors import TaskqError
from taskq_server.metrics import Metrics
from taskq_server.readiness import Readiness
from taskq_server.session import Session
from taskq_server.sessions import Sessions
from taskq_server.store.store import Store
from taskq_server.store.verbs.backlog import Backlog

log = structlog.get_logger("taskq.server")

BACKLOG_SECONDS = 10.0
"""How often the database is asked what waits: however often somebody scrapes."""
LAG_SECONDS = 0.5


class Gauges:
    """Keeps the gauges up to date. What the database knows is asked on a period, never for whoever asks."""

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        clock: Clock,
        readiness: Readiness,
        certificates: Certificates | None,
        metrics: Metrics,
    ) -> None:
        self._certificates = certificates
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._readiness = readiness
        self._metrics = metrics

    async def run(self) -> None:
        while True:
            await self._tick_safely()
            await pause(BACKLOG_SECONDS)

    async def run_lag(self) -> None:
        """Measures how late the event loop is."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await pause(LAG_SECONDS)
            self._metrics.lagged(max(0.0, loop.time() - began - LAG_SECONDS))

    async def _tick_safely(self) -> None:
        try:
            await self.tick()
        except TaskqError as error:  # then what was read last would be taken for true
            log.warning("what waits cannot be read", error=error.in_full)
            self._show_backlog([])

    async def tick(self) -> None:
        """Reads what waits."""
        self._show_backlog(await self._store.backlog())
        self._metrics.backlog_time.set(self._clock.now_us() / SECOND_US)

    def _show_backlog(self, backlog: list[Backlog]) -> None:
        metrics, now_us = self._metrics, self._clock.now_us()
        for gauge in (metrics.oldest_due_age, metrics.due_tasks, metrics.unroutable_tasks, metrics.paused):
            gauge.clear()
        ages: dict[str, float] = {}
        due: Counter[str] = Counter()
        unroutable: Counter[str] = Counter()
        for one in sorted(backlog, key=lambda one: one.first_due_us):
            label = metrics.names.waiting(one.name)
            ages[label] = max(ages.get(label, 0.0), (now_us - one.first_due_us) / SECOND_US)
            due[label] += one.due
            unroutable[label] += one.unroutable
        for label, age in ages.items():
            metrics.oldest_due_age.labels(label).set(age)
            metrics.due_tasks.labels(label).set(due[label])
            if unroutable[label]:
                metrics.unroutable_tasks.labels(label).set(unroutable[label])
        for name in self._store.memory.pauses.names:
            metrics.paused.labels(metrics.names.waiting(name)).set(1)

    def look(self) -> None:
        """Looks at the processors of this server, since somebody asks."""
        metrics, sessions = self._metrics, self._sessions.all()
        metrics.database_up.set(self._readiness.database_answers)
        if self._certificates is not None:
            metrics.certificate_expiry.set(self._certificates.expire_time.timestamp())
        states = Counter(_state(session) for session in sessions)
        for state in ("ready", "drained", "without_stream"):
            metrics.processors.labels(state).set(states[state])
        used: Counter[str] = Counter()
        free: Counter[str] = Counter()
        for session in sessions:
            for name, holds, can_take in session.slots():
                label = metrics.names.known(name)
                used[label] += holds
                free[label] += can_take
        metrics.slots.clear()
        for label in used:
            metrics.slots.labels(label, "used").set(used[label])
            metrics.slots.labels(label, "free").set(free[label])


def _state(session: Session) -> str:
    if session.is_drained:
        return "drained"
    return "ready" if session.streaming else "without_stream"
