"""Firings on their way to the server: what waits here is neither dropped nor reordered, and when there is no room left,
that is said aloud."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from client_core.times import from_epoch_microseconds
from scheduler_client.frequency import Frequency
from taskq.v1.scheduler_service_pb2 import NewTask

log = logging.getLogger("taskq.scheduler")


class Entry:
    """What a main scheduler fires, and how often."""

    def __init__(self, name: str, frequency: Frequency, build: Callable[[int], NewTask]) -> None:
        self.name = name
        self.frequency = frequency
        self.build = build
        self.next_us: int | None = None

    def due(self, now_us: int) -> int:
        """How many firings are due. The first look only begins to count."""
        if self.next_us is None:
            self.next_us = self.frequency.next_after(now_us)
        return self.frequency.count(self.next_us, now_us)

    def pass_by(self, now_us: int) -> None:
        """Everything up to now is done with. When the clock was set back, what it passes again is fired again, under
        the same task ids."""
        self.next_us = self.frequency.next_after(now_us)


@dataclass(frozen=True, slots=True)
class Firing:
    """One entry at one nominal time, as it is enqueued: made once, since a try again must have the same content."""

    entry: str
    nominal_us: int
    message: NewTask

    def __str__(self) -> str:
        return f"{self.entry} at {from_epoch_microseconds(self.nominal_us).isoformat()}"


class Firings:
    """Waits for the server, at most `capacity` firings.

    When it is full, what has waited longest is kept and what comes now is refused: an error in the log with the number,
    which `refused` adds up.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.refused = 0
        self._waiting: deque[Firing] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def collect(self, entries: Sequence[Entry], now_us: int) -> None:
        """Takes in what is due of all entries, earliest first."""
        due: list[tuple[int, Entry]] = []
        total = 0
        room = self.capacity - len(self._waiting)
        for entry in entries:
            count = entry.due(now_us)
            total += count
            start = entry.next_us or 0
            # After a long sleep of the machine there may be more than memory has room for: no more than can be kept.
            due += [(start + i * entry.frequency.period_us, entry) for i in range(min(count, room))]
            entry.pass_by(now_us)
        due.sort(key=lambda one: one[0])
        if total > room:
            self._refuse(total - room)
        for nominal_us, entry in due[:room]:
            self._take(entry, nominal_us)

    def first(self, most: int) -> list[Firing]:
        """Those that have waited longest; they stay until `done`."""
        return list(itertools.islice(self._waiting, most))

    def done(self, finished: Sequence[Firing]) -> None:
        """Forgets what the server has answered for."""
        gone = {id(firing) for firing in finished}
        self._waiting = deque(firing for firing in self._waiting if id(firing) not in gone)

    def _take(self, entry: Entry, nominal_us: int) -> None:
        try:
            self._waiting.append(Firing(entry.name, nominal_us, entry.build(nominal_us)))
        except Exception:
            self.refused += 1
            log.exception("firing %s at %s could not be made; it is not enqueued", entry.name, nominal_us)

    def _refuse(self, count: int) -> None:
        self.refused += count
        log.error(
            "%d firings wait for the server, %d more have no room and are not enqueued (%d since the start)",
            self.capacity,
            count,
            self.refused,
        )
