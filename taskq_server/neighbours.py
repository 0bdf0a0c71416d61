"""What other servers on the same database have done that concerns this one.

It looks once a second, and at once when another rings. A look finds all there is: a ring that is lost costs a second.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import structlog

from taskq_server.clock import MILLISECOND_US, SECOND_US, Alarm, Clock, pause
from taskq_server.core.errors import TaskqError
from taskq_server.sessions import Sessions
from taskq_server.store.shared import SharedStore
from taskq_server.store.verbs.schedules import ToFire
from taskq_server.task_queue import TaskQueue

log = structlog.get_logger("taskq.neighbours")

LOOK_US = SECOND_US
LOOK_UNHEARD_US = 250 * MILLISECOND_US
"""As long as there is news, where rings are not heard, as behind PgBouncer."""
SOONEST_SECONDS = 0.05
"""However often the others ring."""


class Neighbours:
    """Hears signals about own sessions, learns what others have scheduled or resumed, and tells who watches tasks."""

    def __init__(
        self,
        store: SharedStore,
        sessions: Sessions,
        tasks: TaskQueue,
        clock: Clock,
        alarm: Alarm,
        dispatch: Callable[[int], None],
        hear_schedules: Callable[[ToFire], None],
        hear_watchers: Callable[[int], None] = lambda until_us: None,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._tasks = tasks
        self._clock = clock
        self._alarm = alarm
        self._dispatch = dispatch
        self._hear_schedules = hear_schedules
        self._hear_watchers = hear_watchers
        self._renew_at_us = 0
        self._wait_us = LOOK_UNHEARD_US
        """Until the next look, where rings are not heard: longer and longer while there is no news."""
        store.on_ring = alarm.ring

    async def run(self) -> None:
        while True:
            again_us = await self._tick_safely()
            await pause(SOONEST_SECONDS)
            await self._alarm.wait(again_us)

    async def _tick_safely(self) -> int:
        try:
            return await self.tick()
        except TaskqError as error:
            log.error("the other servers cannot be looked at", error=error.in_full)
            return self._clock.now_us() + SECOND_US

    async def tick(self) -> int:
        """Looks around and answers when to look again."""
        now_us = self._clock.now_us()
        if now_us >= self._renew_at_us:
            await self._renew(now_us)
        news = await self._store.look_around()
        for signal in news.signals:
            await self._sessions.hear(signal)
        await self._store.forget([signal.signal_seq for signal in news.signals])
        if news.signals or news.resumed:
            self._dispatch(0)  # credits may be back
        if news.earliest_us is not None:
            self._dispatch(news.earliest_us)
        self._hear_schedules(news.to_fire)
        self._hear_watchers(news.watched_until_us)
        await self._tasks.look_again(self._store.versions)
        is_news = bool(news.signals) or news.resumed or news.earliest_us is not None
        self._wait_us = LOOK_UNHEARD_US if is_news else min(2 * self._wait_us, LOOK_US)
        wait_us = LOOK_US if self._store.listening else self._wait_us
        return now_us + round(wait_us * random.uniform(0.9, 1.1))

    async def _renew(self, now_us: int) -> None:
        renewed = await self._store.renew()
        self._renew_at_us = now_us + self._store.renew_us
        if self._sessions.forget_elsewhere():
            self._dispatch(0)
        if renewed.lapsed:
            log.warning("this server was away for so long that others took it for dead")
            await self._sessions.review()
