"""When the next task of each route falls due, kept in memory so that looking for due tasks touches only what is there.

What it knows is a lower bound: never later than the truth. A task that was cancelled may leave one behind that is too
early; the next look corrects it, at the price of one index seek.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable


class Waiting:
    """The earliest due time of the scheduled tasks, by route and priority. Safe to use from any thread."""

    def __init__(self) -> None:
        self._due: dict[int, dict[int, int]] = {}
        self._lock = threading.Lock()

    def note(self, route_id: int, priority: int, due_time_us: int) -> None:
        """A task waits until `due_time_us`."""
        with self._lock:
            priorities = self._due.setdefault(route_id, {})
            if due_time_us < priorities.get(priority, due_time_us + 1):
                priorities[priority] = due_time_us

    def correct(self, route_id: int, priority: int, due_time_us: int | None) -> None:
        """The earliest is `due_time_us`; None: nothing waits. Only for who has just looked, inside a transaction."""
        with self._lock:
            priorities = self._due.setdefault(route_id, {})
            if due_time_us is None:
                priorities.pop(priority, None)
            else:
                priorities[priority] = due_time_us

    def due(self, route_id: int, now_us: int) -> list[tuple[int, int]]:
        """The priorities at which the route may have due tasks, the largest first, each with what is known of it."""
        with self._lock:
            priorities = self._due.get(route_id, {})
            return sorted(((p, at) for p, at in priorities.items() if at <= now_us), reverse=True)

    def next_due_us(self, route_ids: Iterable[int]) -> int | None:
        """When the first task of any of these routes falls due; None when none waits."""
        with self._lock:
            return min((at for route_id in route_ids for at in self._due.get(route_id, {}).values()), default=None)
