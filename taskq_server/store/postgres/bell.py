"""Rings between the servers on one PostgreSQL database: hints that a look is worth it, and nothing else.

NOTIFY takes a lock of the whole instance at its commit, so it is never part of a transaction of ours, and all that
happens within a twentieth of a second is one ring. Who does not hear it looks within a second anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from taskq_server.clock import pause

log = structlog.get_logger("taskq.store")

CHANNEL = "taskq"
RING_SECONDS = 0.05
PROBE_SECONDS = 15.0
PROBE_LIMIT_SECONDS = 5.0
RECONNECT_SECONDS = 1.0


class Bell:
    """Rings for the others and hears them, on a connection of its own. `on_open` is told that rings may have been
    missed."""

    def __init__(
        self, engine: AsyncEngine, server_seq: int, on_ring: Callable[[], None], on_open: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._name = str(server_seq)
        self._on_ring = on_ring
        self._on_open = on_open
        self._wanted = asyncio.Event()
        self.listening = False
        self._task = asyncio.create_task(self._run(), name="taskq-bell")

    def ring(self) -> None:
        """Lets the others know; soon, and once for many calls."""
        self._wanted.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                async with self._engine.connect() as connection:
                    await self._listen(connection)
            except Exception as error:  # noqa: BLE001 - whatever it is, without it things are only slower
                if self.listening:
                    log.warning("other servers are not heard", why=f"{type(error).__name__}: {error}")
            self.listening = False
            await pause(RECONNECT_SECONDS)

    async def _listen(self, connection: AsyncConnection) -> None:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        try:
            await driver.add_listener(CHANNEL, self._heard)
            await self._serve(driver)
        finally:
            driver.terminate()  # it may be dead, and would not even answer a goodbye

    async def _serve(self, driver: Any) -> None:
        driver.add_termination_listener(lambda _: self._wanted.set())  # then the next ring finds that it is gone
        self.listening = True
        self._on_open()
        self._wanted.set()  # what was to be rung last may not have been heard
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_SECONDS):
                    await self._wanted.wait()
            if self._wanted.is_set():
                self._wanted.clear()
                await driver.execute("SELECT pg_notify($1, $2)", CHANNEL, self._name, timeout=PROBE_LIMIT_SECONDS)
                await pause(RING_SECONDS)
            else:
                await driver.execute("SELECT 1", timeout=PROBE_LIMIT_SECONDS)

    def _heard(self, _connection: object, _pid: int, _channel: str, sender: str) -> None:
        if sender != self._name:
            self._on_ring()
