"""PostgreSQL: any number of servers on one database, which goes by the database's clock.

Every transition is one guarded change of one row that was locked before, in READ COMMITTED; nothing relies on a
stricter level, nor on replicas. What a server knows by itself (when something falls due, which sessions are its
own) only says where to look: a transaction decides.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from taskq_server.clock import Clock, DatabaseClock
from taskq_server.core.errors import StorageUnavailable, StoreRefused
from taskq_server.store.postgres import faults
from taskq_server.store.postgres import start as postgres_start
from taskq_server.store.postgres.bell import Bell
from taskq_server.store.postgres.engine import PLANS, SETTINGS, engine_of
from taskq_server.store.postgres.lane import Begin, Lane
from taskq_server.store.postgres.sql import LEASE, NUMBERS, PostgresSql
from taskq_server.store.shared import SharedStore
from taskq_server.store.transaction import Transaction, Verb
from taskq_server.store.verbs import bulk, draining, firing, living, reading, scheduling, servers
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.servers import LONGEST_SERVER_LEASE_US, News, Presence, Renewed, Version
from taskq_server.store.waiting import Look
from taskq_server.values import shown

Item = TypeVar("Item")
Answer = TypeVar("Answer")

log = structlog.get_logger("taskq.store")

JOIN_TRIES = 3

LEAVE_SECONDS = 2.0
"""How long a server that stops waits for a database that may not answer."""

_BEGIN = """
SELECT coalesce($1::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint), pg_current_xact_id()::text
"""
# A lease reads what is paused later, in a statement of its own: what was paused while it waited here, it sees.
_BEGIN_LEASE = f"{_BEGIN.rstrip()}, {LEASE}\n"
_BEGIN_ADD = f"{_BEGIN_LEASE.rstrip()}, {NUMBERS.format(many='$2')}\n"
_SET = "SELECT set_config(name, value, true) FROM unnest($1::text[], $2::text[]) AS setting (name, value)"
_NOT_LOCAL = ("tcp_", "default_")
_LOCAL_SETTINGS = {name: value for name, value in (SETTINGS | PLANS).items() if not name.startswith(_NOT_LOCAL)}
"""What a pooler does not let through at the start, and may be set for a transaction."""


def _refusal(error: Exception, name: str) -> StoreRefused | None:
    if isinstance(error, StorageUnavailable):  # it was there a moment ago
        return StoreRefused(f"{name} does not answer: {error.detail}", "try again", faults.TRY_AGAIN)
    return faults.cannot_connect(error, name)


class Postgres(SharedStore):
    """A store on a PostgreSQL database. `open` connects it."""

    def __init__(self, url: str, clock: Clock, rules: Rules, *, pooler: bool, server_lease_us: int) -> None:
        super().__init__(rules, clock)
        self._database_clock = clock if isinstance(clock, DatabaseClock) else None
        self._pooler = pooler
        self._sql = PostgresSql()
        self._presence = Presence(f"{socket.gethostname()}:{os.getpid()}", server_lease_us)
        self._engine = engine_of(url, pooler=pooler, settings={**SETTINGS, **PLANS})
        # A single statement that reads needs no transaction, unless it could be prepared and run on two connections.
        self._read_engine = self._engine
        if not pooler:
            self._read_engine = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._lanes: dict[Verb[Any, Any], Lane] = {}
        self._others = 0
        self._bell: Bell | None = None

    @classmethod
    async def open(
        cls,
        url: str,
        clock: Clock,
        rules: Rules,
        *,
        pooler: bool = False,
        server_lease_us: int = LONGEST_SERVER_LEASE_US,
    ) -> Postgres:
        """Connects, checks the database and joins the servers on it; StoreRefused says why it must not be used.

        With `pooler`, by way of PgBouncer in transaction mode, where other servers are not heard, only looked for.
        """
        store = cls(url, clock, rules, pooler=pooler, server_lease_us=server_lease_us)
        try:
            async with store._engine.connect() as connection:
                await connection.run_sync(store._check)
            store._open_lanes()
            await store._join_patiently()
        except Exception as error:
            await store._let_go()
            if (refused := _refusal(error, shown(url))) is None:
                raise
            raise refused from error
        return store

    def _check(self, connection: Connection) -> None:
        postgres_start.check(connection)
        self._start(connection, 0)

    def _open_lanes(self) -> None:
        def lane(name: str, engine: AsyncEngine, begin: Begin) -> Lane:
            return Lane(name, engine, begin, self._after_commit)

        writing = partial(lane, engine=self._engine, begin=self._start)
        reading_ = partial(lane, engine=self._read_engine, begin=self._look)
        self._enqueuing = writing("enqueue", begin=self._start_to_add)
        self._reporting = writing("report")
        self._dispatching = writing("dispatch", begin=self._start_to_lease)
        self._heartbeats, self._housekeeping = writing("heartbeat"), writing("housekeeping")
        self._firing = writing("schedules")
        self._bulk = writing("bulk")  # a batch may wait for many rows; nothing that keeps a promise waits for it
        self._reading, self._looking = reading_("read"), reading_("look")
        self._lanes = {
            self._add: self._enqueuing,
            self._lease: self._dispatching,
            self._held_here: self._dispatching,
            self._end: self._reporting,
            self._cancel: self._reporting,
            living.keep_alive: self._heartbeats,
            living.save_progress: self._heartbeats,
            living.drain: self._heartbeats,
            draining.drain: self._heartbeats,
            living.register: self._heartbeats,
            self._take_over: self._heartbeats,
            self._unregister: self._heartbeats,
            self._disconnect: self._heartbeats,
            self._fire: self._firing,
            self._trigger: self._firing,
            self._backfill: self._firing,
            firing.follow_zones: self._firing,
            scheduling.create: self._firing,
            scheduling.change: self._firing,
            scheduling.remove: self._firing,
            scheduling.pause: self._firing,
            scheduling.resume: self._firing,
            self._advance: self._bulk,
            bulk.cancel: self._bulk,
            bulk.note_troubles: self._bulk,
        }

    async def _join_patiently(self) -> None:
        """On a busy machine a connection may take longer than callers should wait for it."""
        for tries_left in reversed(range(JOIN_TRIES)):
            try:
                return await self._join()
            except StorageUnavailable:
                if not tries_left:
                    raise

    async def _join(self) -> None:
        self.server_seq = (await self.write(servers.arrive, [self._presence]))[0]
        await self._remember()
        await self.look_around()
        await self.renew()
        if not self._pooler:
            self._bell = Bell(self._read_engine, self.server_seq, self._hear_ring, lambda: self.on_ring())

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

    def _start(self, connection: Connection, items: int) -> Transaction:
        return self._begin(connection, _BEGIN)[0]

    def _start_to_lease(self, connection: Connection, items: int) -> Transaction:
        return self._begin(connection, _BEGIN_LEASE)[0]

    def _start_to_add(self, connection: Connection, items: int) -> Transaction:
        """Learns the numbers of its new tasks on the same way."""
        transaction, answers = self._begin(connection, _BEGIN_ADD, items)
        transaction.numbers = answers[-1]
        return transaction

    def _begin(self, connection: Connection, statement: str, *values: int) -> tuple[Transaction, Sequence[Any]]:
        """Begins a transaction that may change something; it learns what time it is, what it is called, and what else
        the statement answers."""
        if self._pooler:
            connection.exec_driver_sql(_SET, (list(_LOCAL_SETTINGS), list(_LOCAL_SETTINGS.values())))
        clock, manual_us = self._database_clock, None
        if clock is None:
            manual_us = self._clock.now_us()
        asked_us = clock.monotonic_us() if clock else 0
        now_us, xid, *rest = connection.exec_driver_sql(statement, (manual_us, *values)).one()
        if clock:
            clock.heard(now_us, asked_us)
        return Transaction(connection, now_us, self._sql, self.server_seq, manual_us, xid), rest

    def _look(self, connection: Connection, items: int) -> Transaction:
        if self._pooler:
            connection.exec_driver_sql(_SET, (list(_LOCAL_SETTINGS), list(_LOCAL_SETTINGS.values())))
        return Transaction(connection, self._clock.now_us(), self._sql, self.server_seq)

    def _after_commit(self, transaction: Transaction) -> None:
        if transaction.xid is not None:
            super()._after_commit(transaction)
        if self._bell is not None and self._others and (transaction.changed or transaction.signals):
            self._bell.ring()

    async def write(self, verb: Verb[Item, Answer], items: list[Item], size_bytes: int = 0) -> list[Answer]:
        lane = self._lanes.get(verb, self._housekeeping)
        return await self._timed(verb, lane.run(verb, items, size_bytes))

    async def read(self, verb: Verb[Item, Answer], items: list[Item]) -> list[Answer]:
        return await self._timed(verb, self._reading.run(verb, items))

    @property
    def renew_us(self) -> int:
        return self._presence.lease_us // 3

    @property
    def listening(self) -> bool:
        return self._bell is not None and self._bell.listening

    async def renew(self) -> Renewed:
        renewed = (await self.write(servers.renew, [self._presence]))[0]
        self._others = renewed.others
        return renewed

    async def look_around(self) -> News:
        look = self.memory.waiting.look()
        try:
            return (await self._timed(self._look_around, self._looking.run(self._look_around, [look])))[0]
        except BaseException:
            look.abandon()
            raise

    def _look_around(self, tx: Transaction, looks: list[Look]) -> list[News]:
        end_look = self.memory.pauses.look()
        (signals,) = servers.signals(tx, [None])
        paused, to_fire, watched_until_us = servers.what_is_said(tx)
        earliest_us = self._sweep(tx, looks)  # last: a look that has ended cannot be run again
        resumed = end_look(paused)
        return [News(signals, earliest_us, resumed, to_fire, watched_until_us)] * len(looks)

    def _sweep(self, tx: Transaction, looks: list[Look]) -> int | None:
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
        return min(new, default=None)

    async def forget(self, signal_seqs: list[int]) -> None:
        await self.write(servers.heard, signal_seqs)

    async def versions(self, task_ids: list[bytes]) -> dict[bytes, Version]:
        found = await self._looking.run(servers.versions, task_ids)
        return {task_id: version for task_id, version in zip(task_ids, found, strict=True) if version is not None}

    async def close(self) -> None:
        if self._bell is not None:
            await self._bell.close()
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await self.write(servers.leave, [None])
        except Exception as error:  # noqa: BLE001 - the others find out by themselves
            log.info("the other servers are not told that this one stops", why=type(error).__name__)
        await self._let_go()

    async def _let_go(self) -> None:
        if self._lanes:
            lanes = {*self._lanes.values(), self._housekeeping, self._reading, self._looking}
            await asyncio.gather(*(lane.close() for lane in lanes))
        await self._engine.dispose()
