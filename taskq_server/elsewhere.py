"""A session to which another server pushes, as far as its heartbeats that come here tell."""

from __future__ import annotations

from collections.abc import Iterable

from taskq_server.session import MISSING_HEARTBEATS, AttemptKey, Sighting
from taskq_server.store.living import Held


class Elsewhere:
    """Remembers from one heartbeat to the next what did not fit with the database."""

    def __init__(self) -> None:
        self.heard_us = 0
        self._missing: dict[AttemptKey, int] = {}
        """What the database says it holds, and how many heartbeats running have not listed it."""
        self._not_held: set[AttemptKey] = set()
        """What the last heartbeat listed, and the database did not."""

    def compare(
        self, held: Iterable[Held], sightings: Iterable[Sighting], sent_before_us: int
    ) -> tuple[list[AttemptKey], list[AttemptKey]]:
        """What the processor says it holds against what it should: lost, and never received.

        The answer to a report may still be on its way, so an attempt is lost only when two heartbeats running list it.
        """
        leased_us = {(one.task_id, one.attempt): one.lease_time_us for one in held}
        seen = {(one.task_id, one.attempt) for one in sightings}
        not_held = seen - leased_us.keys()
        lost = sorted(not_held & self._not_held)
        self._not_held = not_held
        self._missing = {key: self._missing.get(key, 0) + 1 for key in leased_us.keys() - seen}
        never_received = [
            key
            for key, times in self._missing.items()
            if times >= MISSING_HEARTBEATS and leased_us[key] <= sent_before_us
        ]
        return lost, never_received
