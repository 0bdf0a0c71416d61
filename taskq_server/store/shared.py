"""A store that several servers use at once: what one of them must learn of the others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from taskq_server.clock import Clock
from taskq_server.store.store import Store
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.servers import News, Renewed, Version


class SharedStore(Store):
    """What `Store` promises, and a way to hear what others do. A ring is a hint, which may be lost; looking is the
    truth."""

    def __init__(self, rules: Rules, clock: Clock) -> None:
        super().__init__(rules, clock)
        self.on_ring: Callable[[], None] = lambda: None
        """Told that another server has changed something worth a look."""

    @property
    @abstractmethod
    def renew_us(self) -> int:
        """How often `renew` is to be called."""

    @property
    @abstractmethod
    def listening(self) -> bool:
        """Whether rings are heard at all."""

    @abstractmethod
    async def renew(self) -> Renewed:
        """Tells the others that this server lives."""

    @abstractmethod
    async def look_around(self) -> News:
        """What others have left for this server, and have scheduled."""

    @abstractmethod
    async def forget(self, signal_seqs: list[int]) -> None:
        """What was heard is not told again."""

    @abstractmethod
    async def versions(self, task_ids: list[bytes]) -> dict[bytes, Version]:
        """How far tasks have come, as far as they exist."""
