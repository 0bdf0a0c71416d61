"""Which processor gets which task.

Tasks that ask for the same name and the same labels share a *route*. Sessions are matched with routes once, when either
is new, so that no dispatch ever looks at a task that nobody may run.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

_WORD = r"[A-Za-z0-9._/-]+"
_EXISTS = re.compile(rf"({_WORD})\s+exists")
_ABSENT = re.compile(rf"!\s*({_WORD})")
_EQUALS = re.compile(rf"({_WORD})\s*=\s*({_WORD})")
_IN = re.compile(rf"({_WORD})\s+in\s*\(\s*({_WORD}(?:\s*,\s*{_WORD})*)\s*\)")


class Requirement(NamedTuple):
    """What a task asks of one label: one of `values`; any value when `values` is None; its absence when empty."""

    key: str
    values: tuple[str, ...] | None

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Reads `key = value`, `key in (a, b)`, `key exists` or `!key`; anything else is a ValueError."""
        text = text.strip()
        if match := _EXISTS.fullmatch(text):
            return cls(match[1], None)
        if match := _ABSENT.fullmatch(text):
            return cls(match[1], ())
        if match := _EQUALS.fullmatch(text):
            return cls(match[1], (match[2],))
        if match := _IN.fullmatch(text):
            return cls(match[1], tuple(sorted({value.strip() for value in match[2].split(",")})))
        raise ValueError("must be `key = value`, `key in (a, b)`, `key exists` or `!key`")

    def __str__(self) -> str:
        if self.values is None:
            return f"{self.key} exists"
        if not self.values:
            return f"!{self.key}"
        if len(self.values) == 1:
            return f"{self.key} = {self.values[0]}"
        return f"{self.key} in ({', '.join(self.values)})"

    def met_by(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.values is None:
            return value is not None
        if not self.values:
            return value is None
        return value in self.values


class Route(NamedTuple):
    """What a set of tasks asks for: a capability, and labels in their canonical order."""

    name: str
    requires: tuple[Requirement, ...] = ()

    def open_to(self, capabilities: Iterable[str], labels: Mapping[str, str]) -> bool:
        return self.name in capabilities and all(requirement.met_by(labels) for requirement in self.requires)


def route_of(name: str, requires: Iterable[str]) -> Route:
    """The route of a task; the order and the spelling of its requirements do not matter."""
    return Route(name, tuple(sorted({Requirement.parse(text) for text in requires}, key=str)))


class Candidate(NamedTuple):
    """A due task, as much of it as matching needs."""

    seq: int
    route_id: int
    priority: int
    due_time_us: int
    size_bytes: int = 0


@dataclass(slots=True)
class Seats:
    """What one session can take now: `total` tasks in all, of each name no more than `by_name` says, and further ones
    only while `room_bytes` is left."""

    session_seq: int
    processor_name: str
    total: int
    by_name: dict[str, int]
    routes: Mapping[int, str]
    """The routes open to the session: id to task name."""
    held: int = 0
    """How many tasks it holds already."""
    last_push: int = 0
    """Larger for a session that was given something later."""
    room_bytes: int = 1 << 20

    @property
    def load(self) -> tuple[float, int]:
        """Compares sessions: how full it is, and of those that are equally full, who has waited longer."""
        return self.held / (self.held + self.total), self.last_push

    def free_for(self, route_id: int) -> int:
        name = self.routes.get(route_id)
        return 0 if name is None or self.room_bytes <= 0 else min(self.total, self.by_name[name])

    def take(self, candidate: Candidate) -> None:
        self.total -= 1
        self.held += 1
        self.by_name[self.routes[candidate.route_id]] -= 1
        self.room_bytes -= candidate.size_bytes


@dataclass(slots=True)
class Demand:
    """What all sessions together can take now."""

    seats: list[Seats] = field(default_factory=list)
    ahead_us: int = 0
    """Seats that nothing wants that is due are given to what will be so soon."""

    def limits(self) -> dict[int, int]:
        """How many tasks of each route could be placed, were there no others."""
        limits: dict[int, int] = {}
        for seats in self.seats:
            for route_id in seats.routes:
                if free := seats.free_for(route_id):
                    limits[route_id] = limits.get(route_id, 0) + free
        return limits

    def place(self, candidates: Iterable[Candidate], at_most: int) -> list[tuple[Candidate, Seats]]:
        """Gives up to `at_most` candidates a seat, most urgent first, spread evenly over those who may run them.

        Order (contract, promise 7): larger priority, then earlier due time, then enqueue order.
        """
        open_seats = _OpenSeats(self.seats)
        placed: list[tuple[Candidate, Seats]] = []
        for candidate in sorted(candidates, key=lambda c: (-c.priority, c.due_time_us, c.seq)):
            if len(placed) == at_most:
                break
            if (seats := open_seats.take(candidate)) is not None:
                placed.append((candidate, seats))
        return placed


class _OpenSeats:
    """The sessions that may take a task of a route, the least loaded first."""

    def __init__(self, seats: list[Seats]) -> None:
        self._seats = seats
        self._heaps: dict[int, list[tuple[tuple[float, int], int]]] = {}

    def take(self, candidate: Candidate) -> Seats | None:
        route_id = candidate.route_id
        heap = self._heaps.get(route_id)
        if heap is None:
            heap = [(seats.load, i) for i, seats in enumerate(self._seats) if seats.free_for(route_id)]
            heapq.heapify(heap)
            self._heaps[route_id] = heap
        while heap:
            load, i = heap[0]
            seats = self._seats[i]
            if not seats.free_for(route_id):
                heapq.heappop(heap)
            elif load != seats.load:  # another route has used this session meanwhile
                heapq.heapreplace(heap, (seats.load, i))
            else:
                seats.take(candidate)
                heapq.heapreplace(heap, (seats.load, i))
                return seats
        return None
