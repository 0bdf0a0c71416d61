"""PostgreSQL: any number of servers on one database, which goes by the database's clock.

Every transition is one guarded change of one row that was locked before, in READ COMMITTED; nothing relies on a
stricter level, nor on replicas. What a server knows by itself (when something falls due, which sessions are its
own) only says where to look: a transaction decides.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from taskq_server.clock import Clock, DatabaseClock
from taskq_server.core.errors import StoreRefused
from taskq_server.store import faults, living, postgres_start, reading, servers
from taskq_server.store.bell import Bell
from taskq_server.store.end_batch import Rules
from taskq_server.store.lane import Lane
from taskq_server.store.postgres_sql import PostgresSql
from taskq_server.store.postgres_url import PLANS, SETTINGS, engine_of
from taskq_server.store.servers import News, Renewed, Version
from taskq_server.store.shared import SharedStore
from taskq_server.store.transaction import Transaction, Verb
from taskq_server.store.waiting import Look

Item = TypeVar("Item")
Answer = TypeVar("Answer")

log = structlog.get_logger("taskq.store")

TRY_AGAIN = 75

_BEGIN = """
SELECT coalesce($1::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint), pg_current_xact_id()::text
"""
_SET = "SELECT set_config(name, value, true) FROM unnest($1::text[], $2::text[]) AS setting (name, value)"
_NOT_LOCAL = ("tcp_", "idle_", "default_")
_LOCAL_SETTINGS = {name: value for name, value in (SETTINGS | PLANS).items() if not name.startswith(_NOT_LOCAL)}
"""What a pooler does not let through at the start, and may be set for a transaction."""


class Postgres(SharedStore):
    """A store on a PostgreSQL database. `open` connects it."""

    def __init__(self, url: str, clock: Clock, rules: Rules, *, pooler: bool = False) -> None:
        super().__init__(rules, clock)
        self._database_clock = clock if isinstance(clock, DatabaseClock) else None
        self._pooler = pooler
        self._sql = PostgresSql()
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._engine = engine_of(url, pooler=pooler, settings={**SETTINGS, **PLANS})
        # A single statement that reads needs no transaction, unless it could be prepared and run on two connections.
        self._read_engine = self._engine
        if not pooler:
            self._read_engine = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._others = 0
        self._bell: Bell | None = None

    @classmethod
    async def open(cls, url: str, clock: Clock, rules: Rules, *, pooler: bool = False) -> Postgres:
        """Connects, checks the database and joins the servers on it; StoreRefused says why it must not be used.

        With `pooler`, by way of PgBouncer in transaction mode, where other servers are not heard, only looked for.
        """
        store = cls(url, clock, rules, pooler=pooler)
        try:
            async with store._engine.connect() as connection:
                await connection.run_sync(store._check)
        except Exception as error:
            if faults.translate(error) is None:
                raise
            await store._engine.dispose()
            detail = getattr(error, "orig", None) or error
            why = f"the database cannot be used: {type(detail).__name__}: {detail}"
            raise StoreRefused(why, "start it, or correct TASKQ_DATABASE_URL", exit_code=TRY_AGAIN) from error
        store._open_lanes()
        await store._join()
        return store

    def _check(self, connection: Connection) -> None:
        postgres_start.check(connection)
        self._start(connection)

    def _open_lanes(self) -> None:
        def lane(name: str, engine: AsyncEngine, begin: Callable[[Connection], Transaction]) -> Lane:
            return Lane(name, engine, begin, self._after_commit)

        writing = partial(lane, engine=self._engine, begin=self._start)
        reading_ = partial(lane, engine=self._read_engine, begin=self._look)
        self._enqueuing, self._dispatching, self._reporting = writing("enqueue"), writing("dispatch"), writing("report")
        self._heartbeats, self._housekeeping = writing("heartbeat"), writing("housekeeping")
        self._reading, self._looking = reading_("read"), reading_("look")
        self._lanes: dict[Verb[Any, Any], Lane] = {
            self._add: self._enqueuing,
            self._lease: self._dispatching,
            self._end: self._reporting,
            self._cancel: self._reporting,
            living.keep_alive: self._heartbeats,
            living.save_progress: self._heartbeats,
            living.register: self._heartbeats,
            self._take_over: self._heartbeats,
            self._unregister: self._heartbeats,
        }

    async def _join(self) -> None:
        self.server_seq = (await self.write(servers.arrive, [self._name]))[0]
        await self._remember()
        await self.look_around()
        await self.renew()
        if not self._pooler:
            self._bell = Bell(self._read_engine, self.server_seq, self._hear_ring, lambda: self.on_ring())
            self._bell.ring()

    def _hear_ring(self) -> None:
        self._others = max(1, self._others)
        self.on_ring()

    async def _remember(self) -> None:
        """What this server would know had it been here: all routes, and what expires first."""

        def learn(tx: Transaction, nothing: list[None]) -> list[None]:
            self.memory.learn_routes(tx.connection)
            if (expires_us := tx.connection.execute(reading.FIRST_EXPIRY).scalar()) is not None:
                self.memory.note_expiry(expires_us)
            return nothing

        await self.read(learn, [None])

    def _start(self, connection: Connection) -> Transaction:
        """Begins a transaction that may change something; it learns what time it is, and what it is called."""
        if self._pooler:
            connection.exec_driver_sql(_SET, (list(_LOCAL_SETTINGS), list(_LOCAL_SETTINGS.values())))
        clock, manual_us = self._database_clock, None
        if clock is None:
            manual_us = self._clock.now_us()
        asked_us = clock.monotonic_us() if clock else 0
        now_us, xid = connection.exec_driver_sql(_BEGIN, (manual_us,)).one()
        if clock:
            clock.heard(now_us, asked_us)
        return Transaction(connection, now_us, self._sql, self.server_seq, manual_us, xid)

    def _look(self, connection: Connection) -> Transaction:
        if self._pooler:
            connection.exec_driver_sql(_SET, (list(_LOCAL_SETTINGS), list(_LOCAL_SETTINGS.values())))
        return Transaction(connection, self._clock.now_us(), self._sql, self.server_seq)

    def _after_commit(self, transaction: Transaction) -> None:
        super()._after_commit(transaction)
        if self._bell is not None and self._others and (transaction.changed or transaction.signals):
            self._bell.ring()

    async def write(self, verb: Verb[Item, Answer], items: list[Item]) -> list[Answer]:
        return await self._lanes.get(verb, self._housekeeping).run(verb, items)

    async def read(self, verb: Verb[Item, Answer], items: list[Item]) -> list[Answer]:
        return await self._reading.run(verb, items)

    @property
    def listening(self) -> bool:
        return self._bell is not None and self._bell.listening

    async def renew(self) -> Renewed:
        renewed = (await self.write(servers.renew, [self._name]))[0]
        self._others = renewed.others
        return renewed

    async def look_around(self) -> News:
        look = self.memory.waiting.look()
        try:
            (signals,) = await self._looking.run(servers.signals, [None])
            (earliest_us,) = await self._looking.run(self._sweep, [look])
        except BaseException:
            look.abandon()
            raise
        return News(signals, earliest_us)

    def _sweep(self, tx: Transaction, looks: list[Look]) -> list[int | None]:
        """Finds where tasks wait, whoever has scheduled them; answers the earliest that was not known."""
        known = self.memory.waiting
        found = {(route_id, priority): due_us for route_id, priority, due_us in self._sql.first_due(tx.connection)}
        unknown = {route_id for route_id, _ in found} - self.memory.routes.keys()
        if unknown:
            self.memory.learn_routes(tx.connection, known_to=unknown)
        new = [at for place, at in found.items() if (before := known.at(place)) is None or at < before]
        for look in looks:
            look.found.update(dict.fromkeys(known.places()) | found)
            look.end()
        return [min(new, default=None)] * len(looks)

    async def forget(self, signal_seqs: list[int]) -> None:
        await self.write(servers.heard, signal_seqs)

    async def versions(self, task_ids: list[bytes]) -> dict[bytes, Version]:
        found = await self._looking.run(servers.versions, task_ids)
        return {task_id: version for task_id, version in zip(task_ids, found, strict=True) if version is not None}

    async def close(self) -> None:
        if self._bell is not None:
            await self._bell.close()
        try:
            await self.write(servers.leave, [None])
        except Exception as error:  # noqa: BLE001 - the others find out by themselves
            log.info("the other servers are not told that this one stops", why=type(error).__name__)
        lanes = {*self._lanes.values(), self._housekeeping, self._reading, self._looking}
        await asyncio.gather(*(lane.close() for lane in lanes))
        await self._engine.dispose()
