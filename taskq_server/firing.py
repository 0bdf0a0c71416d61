"""Fires schedules: on every server, and none of them is the one that must.

Tasks are stored up to a second before their time where nothing can come between, so that the dispatcher has them when
they are due. What waits in buffers is looked at four times a second, as long as something does.
"""

from __future__ import annotations

import structlog

from taskq_server.clock import MILLISECOND_US, SECOND_US, Alarm, Clock
from taskq_server.core.errors import TaskqError
from taskq_server.metrics import Metrics
from taskq_server.sessions import Sessions
from taskq_server.store.store import Store
from taskq_server.store.verbs.firing import Fired
from taskq_server.store.verbs.schedules import ToFire

log = structlog.get_logger("taskq.firing")

AHEAD_US = SECOND_US
"""10,000 schedules that are due at once take about as long to be fired."""
LEAST_AHEAD_US = 3 * AHEAD_US // 4
"""How far ahead the next round is made: what is due in between goes with it."""
UNFINISHED_US = 250 * MILLISECOND_US
"""How often those are looked at that wait for a task to finish: the next of a buffer, and what could not be fired
ahead."""
ELSEWHERE_US = 100 * MILLISECOND_US
"""What is due and could not be fired is in the hands of another server: so long it is left to it."""
LONGEST_US = 60 * SECOND_US


class Firer:
    """Sleeps until shortly before the next firing is due."""

    def __init__(self, store: Store, sessions: Sessions, clock: Clock, alarm: Alarm, metrics: Metrics) -> None:
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._alarm = alarm
        self._metrics = metrics
        self._again_us = 0
        self._follows_zones = False

    async def run(self) -> None:
        while True:
            await self._alarm.wait(await self._tick_safely())

    async def _tick_safely(self) -> int:
        try:
            return await self.tick()
        except TaskqError as error:
            log.error("schedules cannot be fired", error=error.in_full)
        except Exception:  # a fault of ours in firing must not end what else the server does
            log.exception("schedules cannot be fired")
        return self._clock.now_us() + SECOND_US

    def expect(self, due_us: int | None) -> None:
        """A firing is due then."""
        if due_us is not None and due_us - LEAST_AHEAD_US < self._again_us:
            self._again_us = due_us - LEAST_AHEAD_US
            self._alarm.ring(self._again_us)

    def hear(self, to_fire: ToFire) -> None:
        """What a look at the database has found, whoever has changed it."""
        self.expect(0 if to_fire.some_wait else to_fire.first_due_us)

    async def tick(self) -> int:
        """Fires what is to be fired and answers when to come back."""
        if not self._follows_zones:
            await self._follow_zones()
        self._again_us = self._clock.now_us() + LONGEST_US
        to_fire = await self._store.to_fire()
        while to_fire.some_wait or _is_near(to_fire.first_due_us, self._clock.now_us()):
            fired = await self._store.fire(AHEAD_US)
            self._tell(fired)
            if not fired.more:
                again_us = self._when(fired)
                break
        else:
            again_us = self._when(to_fire)
        self._again_us = min(self._again_us, again_us)
        return self._again_us

    def _when(self, left: Fired | ToFire) -> int:
        """To fire what is due next, or to look whether what waits can start."""
        now_us = self._clock.now_us()
        times = [now_us + LONGEST_US]
        if left.some_wait:
            times.append(now_us + UNFINISHED_US)
        if left.first_due_us is not None:
            due_us = left.first_due_us
            if due_us > now_us + AHEAD_US:
                times.append(due_us - LEAST_AHEAD_US)
            elif due_us > now_us:  # what is unfinished may be finished soon, and it could still be fired ahead
                times.append(min(due_us, now_us + UNFINISHED_US))
            else:
                times.append(now_us + ELSEWHERE_US)
        return min(times)

    def _tell(self, fired: Fired) -> None:
        self._sessions.stop(fired.stopped)
        self._metrics.fired(fired.tasks, fired.skipped, fired.missed)
        if fired.missed:
            log.warning("firings were missed", many=sum(fired.missed.values()), schedules=_shown(fired.missed))
        if fired.skipped:
            log.info("firings were skipped", many=sum(fired.skipped.values()), schedules=_shown(fired.skipped))

    async def _follow_zones(self) -> None:
        many, last_seq = 0, 0
        while (followed := await self._store.follow_zones(last_seq)).last_seq is not None:
            many, last_seq = many + followed.many, followed.last_seq
        self._follows_zones = True
        if many:
            log.info("the time zone database is another; schedules were computed anew", schedules=many)


def _is_near(due_us: int | None, now_us: int) -> bool:
    return due_us is not None and due_us - LEAST_AHEAD_US <= now_us


def _shown(counted: dict[str, int]) -> dict[str, int]:
    """The first few of many."""
    return dict(sorted(counted.items())[:10])
