"""Seats that are left with the store: whoever stores a task that is due leases it in the same transaction."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from taskq_server.core.matching import Demand

if TYPE_CHECKING:
    from taskq_server.store.verbs.leasing import Leased


class Offer:
    """What sessions can take, for one transaction to take up. Until it is settled nobody else may give these seats
    away.

    `on_settled` is told, on the event loop on which it was made, what was leased, or None when nothing came of it.
    """

    def __init__(self, demand: Demand, on_settled: Callable[[Leased | None], None]) -> None:
        self.demand = demand
        self.routes = {route_id for seats in demand.seats for route_id in seats.routes}
        self._on_settled = on_settled
        self._loop = asyncio.get_running_loop()
        self._settled = self._loop.create_future()
        self._lock = threading.Lock()
        self._open = True

    def take(self) -> bool:
        """For a transaction: False when it is somebody else's, or was withdrawn. From any thread."""
        with self._lock:
            was_open, self._open = self._open, False
            return was_open

    def settle(self, leased: Leased | None) -> None:
        """For the transaction that took it, once that has ended. From any thread."""
        self._loop.call_soon_threadsafe(self._settle, leased)

    def _settle(self, leased: Leased | None) -> None:
        try:
            self._on_settled(leased)
        finally:
            self._settled.set_result(None)

    async def withdraw(self) -> None:
        """Returns when nobody can take it any more, and whoever has taken it is through."""
        if not self.take():
            await self._settled
