"""When the next task of each route falls due, kept in memory so that looking for due tasks touches only what is there.

What it knows is a lower bound: never later than the truth, as far as this server has heard. A task that was cancelled
may leave one behind that is too early; the next look corrects it, at the price of one index seek. What other servers
have scheduled it learns from their word, and from looks at the whole.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

Place = tuple[int, int]
"""A route and a priority."""


class Waiting:
    """The earliest due time of the scheduled tasks, by route and priority. Safe to use from any thread."""

    def __init__(self) -> None:
        self._due: dict[int, dict[int, int]] = {}
        self._looks: list[Look] = []
        self._lock = threading.Lock()

    def note(self, route_id: int, priority: int, due_time_us: int) -> None:
        """A task that is committed waits until `due_time_us`."""
        with self._lock:
            self._note_for_all(route_id, priority, due_time_us)

    def note_all(self, earliest: Mapping[Place, int]) -> None:
        """The same of several places."""
        with self._lock:
            for (route_id, priority), due_time_us in earliest.items():
                self._note_for_all(route_id, priority, due_time_us)

    def _note_for_all(self, route_id: int, priority: int, due_time_us: int) -> None:
        """Also for the looks that go on, which may have begun before it was there to see."""
        self._note(route_id, priority, due_time_us)
        for look in self._looks:
            place = route_id, priority
            look.noted[place] = min(due_time_us, look.noted.get(place, due_time_us))

    def _note(self, route_id: int, priority: int, due_time_us: int) -> None:
        priorities = self._due.setdefault(route_id, {})
        if due_time_us < priorities.get(priority, due_time_us + 1):
            priorities[priority] = due_time_us

    def look(self) -> Look:
        """Begins a look at the database, whose findings replace what is known when it ends."""
        look = Look(self)
        with self._lock:
            self._looks.append(look)
        return look

    def _end(self, look: Look) -> None:
        with self._lock:
            if look not in self._looks:
                return  # its transaction is run again: it has been told of nothing since it ended
            self._looks.remove(look)
            for (route_id, priority), due_time_us in look.found.items():
                self._due.setdefault(route_id, {}).pop(priority, None)
                if due_time_us is not None:
                    self._note_for_all(route_id, priority, due_time_us)
            for (route_id, priority), due_time_us in look.noted.items():
                self._note(route_id, priority, due_time_us)

    def _abandon(self, look: Look) -> None:
        with self._lock:
            if look in self._looks:
                self._looks.remove(look)

    def places(self) -> list[Place]:
        """Where tasks are known to wait."""
        with self._lock:
            return [(route_id, priority) for route_id, found in self._due.items() for priority in found]

    def at(self, place: Place) -> int | None:
        """When the first task of a place falls due, as far as is known; None when none waits there."""
        with self._lock:
            return self._due.get(place[0], {}).get(place[1])

    def due(self, route_id: int, now_us: int) -> list[tuple[int, int]]:
        """The priorities at which the route may have due tasks, the largest first, each with what is known of it."""
        with self._lock:
            priorities = self._due.get(route_id, {})
            return sorted(((p, at) for p, at in priorities.items() if at <= now_us), reverse=True)

    def due_routes(self, now_us: int) -> list[int]:
        """The routes that may have due tasks, those that have waited longest first."""
        with self._lock:
            first = {route_id: min(found.values(), default=now_us + 1) for route_id, found in self._due.items()}
        return sorted((route_id for route_id, at in first.items() if at <= now_us), key=first.__getitem__)

    def next_due_us(self, route_ids: Iterable[int]) -> int | None:
        """When the first task of any of these routes falls due; None when none waits."""
        with self._lock:
            return min((at for route_id in route_ids for at in self._due.get(route_id, {}).values()), default=None)


class Look:
    """One look at the database. What is noted while it goes on may not be in what it sees, and counts all the same."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self.found: dict[Place, int | None] = {}
        """The earliest of each place that was looked at; None: nothing waits there."""
        self.noted: dict[Place, int] = {}

    def end(self) -> None:
        """What was found is true."""
        self._waiting._end(self)

    def abandon(self) -> None:
        """What was found does not count."""
        self._waiting._abandon(self)
