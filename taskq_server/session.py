"""One registered processor: its credits, its outbox and its stream.

The server counts credits: a session never holds more unreported tasks than it said it could, in all and of each name.
The transport's flow control is not relied on, since what waits in its buffers cannot be seen and its leases run on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from taskq_server.core.errors import TaskqError
from taskq_server.core.matching import Route, Seats
from taskq_server.core.task import Assignment, Payload, Progress
from taskq_server.store.verbs.living import Held, NewSession

UNSENT_BYTES = 1 << 20
"""A session whose stream has this much left to write gets nothing more until it has read."""
MISSING_HEARTBEATS = 2
"""A pushed task that this many heartbeats running do not list was never received."""

MOST_SETTLED = 10_000
"""So many reports between two heartbeats are remembered."""

AttemptKey = tuple[bytes, int]


@dataclass(slots=True)
class InFlight:
    """An attempt that a session holds, as far as the server knows."""

    name: str
    sent: bool
    """It was given to a stream; whether it has arrived, heartbeats tell."""
    seq: int | None = None
    """As of `Ending`."""
    sent_us: int = 0
    stream: Stream | None = None
    missing: int = 0
    cancelled: bool = False
    revoked: bool = False
    """Its lease has ended, but the processor may still be at it: the credit comes back when it lets go."""


@dataclass(slots=True)
class Stream:
    """The sending side of one StreamTasks call."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    superseded: bool = False
    drain: str | None = None
    """Why no further tasks come on this stream."""
    error: TaskqError | None = None
    """With what it ends at once."""
    writing_bytes: int = 0
    """Of the batch that is being written: a peer that does not read holds it up."""


@dataclass(slots=True)
class Outgoing:
    """What a stream is to carry next."""

    tasks: list[Assignment]
    stop: list[AttemptKey]


@dataclass(frozen=True, slots=True)
class Sighting:
    """An attempt that a processor says it holds."""

    task_id: bytes
    attempt: int
    progress: Progress | None = None
    checkpoint: Payload | None = None


@dataclass(slots=True)
class Pulse:
    """The answer to a heartbeat."""

    alive: bool
    streaming: bool
    lost: list[AttemptKey]
    cancelled: list[AttemptKey]
    roomier: bool = False
    """It can take more than before."""
    drained: bool = False
    """By an administrator."""
    resting: bool = False
    """It holds nothing."""


class Session:
    """One registration of a processor, from Register to its end."""

    def __init__(self, session_seq: int, new: NewSession) -> None:
        self.seq = session_seq
        self.session_id = new.session_id
        self.processor_name = new.processor_name
        self.capabilities = new.capabilities
        self.labels = new.labels
        self.max_in_flight = new.max_in_flight
        self.build_id = new.build_id
        self.principal = new.principal
        self.vetted_caller: object = None
        """The caller who was last found to have the rights to all that it runs."""
        self.stream: Stream | None = None
        self.draining = False
        """By its own word."""
        self.drain_reason: str | None = None
        """Why an administrator drains it; None when nobody does."""
        self.heard_us = 0
        """When its last heartbeat came here; others may go to another server."""
        self.kept_us = 0
        """When the last of those came that are in the database."""
        self.in_flight: dict[AttemptKey, InFlight] = {}
        self._count: dict[str, int] = dict.fromkeys(new.capabilities, 0)
        self._outbox: list[Assignment] = []
        self._unsent_bytes = 0
        self._stop: list[AttemptKey] = []
        self._settled: tuple[set[AttemptKey], set[AttemptKey]] = set(), set()
        """Reported since the last heartbeat, and between the two before: their answers may still be on the way."""
        self._revoked: tuple[set[AttemptKey], set[AttemptKey]] = set(), set()
        """Before this server had the answer to the lease; two generations, as of what is settled."""
        self._last_push = 0
        self._routes: dict[int, str] = {}
        self._routes_seen = 0

    @property
    def streaming(self) -> bool:
        """Whether it has a stream that may bring tasks."""
        return self.stream is not None and self.stream.drain is None

    @property
    def is_drained(self) -> bool:
        """Whether it is to be given nothing more, by its own word or an administrator's."""
        return self.draining or self.drain_reason is not None

    @property
    def _room_bytes(self) -> int:
        return UNSENT_BYTES - self._unsent_bytes - (self.stream.writing_bytes if self.stream else 0)

    def seats(self, routes: dict[int, Route]) -> Seats | None:
        """What it can take now; None for nothing."""
        total = self.max_in_flight - len(self.in_flight)
        if not self.streaming or self.is_drained or total <= 0 or self._room_bytes <= 0:
            return None
        if len(routes) > self._routes_seen:
            self._match(routes)
        by_name = {name: (limit or self.max_in_flight) - self._count[name] for name, limit in self.capabilities.items()}
        held, room_bytes = len(self.in_flight), self._room_bytes
        return Seats(self.seq, self.processor_name, total, by_name, self._routes, held, self._last_push, room_bytes)

    def _match(self, routes: dict[int, Route]) -> None:
        for route_id, route in islice(routes.items(), self._routes_seen, None):
            if route.open_to(self.capabilities, self.labels):
                self._routes[route_id] = route.name
        self._routes_seen = len(routes)

    def hold(self, held: Held) -> None:
        """It held this before this server came to push to it."""
        self._add(held.name, (held.task_id, held.attempt), sent=True)

    def reserve(self, assignment: Assignment) -> None:
        """A task is leased to it, and will be pushed, unless that has been revoked already."""
        key, seq = (assignment.task_id, assignment.attempt), None if assignment.dedup_key else assignment.seq
        if key not in self._revoked[0] and key not in self._revoked[1]:
            self._add(assignment.route.name, key, sent=False, seq=seq)

    def push(self, assignment: Assignment) -> None:
        """Queues a task that was reserved for it for its stream."""
        self._last_push = assignment.lease_time_us
        self._outbox.append(assignment)
        self._unsent_bytes += assignment.size_bytes
        if self.stream is not None:
            self.stream.wake.set()

    def _add(self, name: str, key: AttemptKey, *, sent: bool, seq: int | None = None) -> None:
        if key not in self.in_flight:
            self._count[name] = self._count.get(name, 0) + 1
        self.in_flight[key] = InFlight(name, sent, seq)

    def holding(self, key: AttemptKey) -> InFlight | None:
        """What it knows of an attempt that it holds."""
        return self.in_flight.get(key)

    def slots(self) -> Iterator[tuple[str, int, int]]:
        """Of each capability: how many it holds, and how many more it could take, were there nothing else for it."""
        left = 0 if not self.streaming or self.is_drained else self.max_in_flight - len(self.in_flight)
        for name, limit in self.capabilities.items():
            used = self._count[name]
            yield name, used, max(0, min(left, (limit or self.max_in_flight) - used))

    def knows(self, key: AttemptKey) -> bool:
        """Whether it holds the attempt, or has just reported it."""
        return key in self.in_flight or key in self._settled[0] or key in self._settled[1]

    def let_go(self, key: AttemptKey) -> bool:
        """Takes a credit back; False when it was not held."""
        held = self.in_flight.pop(key, None)
        if held is None:
            return False
        self._count[held.name] -= 1
        return True

    def settle(self, key: AttemptKey) -> None:
        """The processor has reported it."""
        if self.let_go(key):
            if len(self._settled[0]) >= MOST_SETTLED:  # its heartbeats go to another server
                self._settled = set(), self._settled[0]
            self._settled[0].add(key)

    def revoke(self, key: AttemptKey, *, cancelled: bool) -> None:
        """Its lease has ended by the server's will: the processor is told to stop."""
        held = self.in_flight.get(key)
        if held is None:
            self._revoked[0].add(key)
            return
        is_told = held.revoked
        held.revoked, held.cancelled = True, held.cancelled or cancelled
        if is_told:  # whoever ended it, and a look at the database that has found it ended, both say so
            return
        if not held.sent:  # it never leaves
            self._unsent_bytes -= sum(one.size_bytes for one in self._outbox if (one.task_id, one.attempt) == key)
            self._outbox = [one for one in self._outbox if (one.task_id, one.attempt) != key]
            self.let_go(key)
            return
        self._stop.append(key)
        if self.stream is not None:
            self.stream.wake.set()

    def forgive(self) -> bool:
        """Lets go of what it was told to stop some time ago, since its heartbeats do not come here; answers whether
        there was any."""
        self._revoked = set(), self._revoked[0]
        held_before = len(self.in_flight)
        for key, held in list(self.in_flight.items()):
            if held.revoked:
                held.missing += 1
                if held.missing >= MISSING_HEARTBEATS:
                    self.let_go(key)
        return len(self.in_flight) < held_before

    def open_stream(self) -> Stream:
        """A new stream, which supersedes the one before."""
        if self.stream is not None:
            self.stream.superseded = True
            self.stream.wake.set()
        self.stream = Stream()
        if self._outbox or self._stop or self.drain_reason is not None:
            self.stream.wake.set()
        return self.stream

    def drain(self, reason: str) -> list[Assignment]:
        """An administrator drains it: its processor is told, and what was never written is to be given back."""
        self.drain_reason = reason
        if self.stream is not None:
            self.stream.wake.set()
        return self._take_unsent()

    def take_outgoing(self, stream: Stream, now_us: int) -> Outgoing:
        """What waits to be written to the stream, at most about a message's worth."""
        size = count = 0
        for assignment in self._outbox:
            size += assignment.size_bytes
            if count and size > UNSENT_BYTES:
                break
            count += 1
        tasks, self._outbox = self._outbox[:count], self._outbox[count:]
        for assignment in tasks:
            self._unsent_bytes -= assignment.size_bytes
            stream.writing_bytes += assignment.size_bytes
            if (held := self.in_flight.get((assignment.task_id, assignment.attempt))) is not None:
                held.sent, held.sent_us, held.stream = True, now_us, stream
        stop, self._stop = self._stop, []
        if self._outbox:
            stream.wake.set()
        return Outgoing(tasks, stop)

    def close_stream(self, stream: Stream) -> list[Assignment]:
        """The stream has ended; answers what was never written, unless another stream has taken over."""
        if self.stream is not stream:
            return []
        self.stream = None
        return self._take_unsent()

    def _take_unsent(self) -> list[Assignment]:
        """It counts as held until it has been given back: should that fail, heartbeats find that it never arrived."""
        unsent, self._outbox, self._unsent_bytes = self._outbox, [], 0
        for assignment in unsent:
            if (held := self.in_flight.get((assignment.task_id, assignment.attempt))) is not None:
                held.sent = True
        return unsent

    def distrust_stream(self, lost: list[AttemptKey]) -> None:
        """If these were written to it and did not arrive, others are served until the processor has opened another."""
        if self.stream is not None and any(self.in_flight[key].stream is self.stream for key in lost):
            self.stream.drain = "what was sent on it did not arrive"
            self.stream.wake.set()

    def compare(
        self, sightings: Iterable[Sighting], heard_us: int, sent_before_us: int
    ) -> tuple[list[AttemptKey], list[AttemptKey], list[AttemptKey]]:
        """What the processor says it holds against what it should: lost, cancelled, and never received.

        What was sent since it was heard it cannot know. Heartbeats may come in quick succession, so what was sent since
        `sent_before_us` may still be on its way.
        """
        seen = {(sighting.task_id, sighting.attempt) for sighting in sightings}
        recent = self._settled[0] | self._settled[1]
        lost = [key for key in seen if key not in self.in_flight and key not in recent]
        cancelled = []
        never_received = []
        for key, held in list(self.in_flight.items()):
            if key not in seen and held.sent_us > heard_us:
                continue
            if key in seen:
                held.missing = 0
                if held.cancelled:
                    cancelled.append(key)
                elif held.revoked:
                    lost.append(key)
            elif held.revoked:
                self.let_go(key)
            elif held.sent:
                held.missing += 1
                if held.missing >= MISSING_HEARTBEATS and held.sent_us <= sent_before_us:
                    never_received.append(key)
        self._settled = set(), self._settled[0]
        self._revoked = set(), self._revoked[0]
        return lost, cancelled, never_received
