"""A session to which another server pushes, as far as its heartbeats that come here tell."""

from __future__ import annotations

from collections.abc import Iterable

from taskq_server.session import MISSING_HEARTBEATS, AttemptKey
from taskq_server.store.verbs.living import Held


class Elsewhere:
    """Remembers from one heartbeat to the next what the database says it holds, and it does not."""

    def __init__(self) -> None:
        self.heard_us = 0
        self._missing: dict[AttemptKey, int] = {}
        """How many heartbeats running have not listed it."""

    def never_received(self, held: Iterable[Held], seen: set[AttemptKey], sent_before_us: int) -> list[AttemptKey]:
        """What was leased before then, and two heartbeats running have not listed."""
        leased_us = {(one.task_id, one.attempt): one.lease_time_us for one in held}
        self._missing = {key: self._missing.get(key, 0) + 1 for key in leased_us.keys() - seen}
        return [
            key
            for key, times in self._missing.items()
            if times >= MISSING_HEARTBEATS and leased_us[key] <= sent_before_us
        ]
