"""One connection to PostgreSQL: whatever waits while its transaction is open goes into the next one.

A transaction runs one verb, so that locks are taken in one order, and is shared by everybody who has asked for that
verb meanwhile. Lanes do not wait for each other: what drains work (reports, heartbeats) has connections of its own.

A connection that is lost during COMMIT leaves it open whether the transaction counts. Then the lane looks, on another
connection, what became of it: nothing is ever done a second time to find out. After a crash it does not believe what
it sees, since PostgreSQL may have given the number of a transaction that it has lost to another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from taskq_server.clock import pause
from taskq_server.core.errors import StorageUnavailable
from taskq_server.store.group import Group, Room, Waiting, answer, apply, fail
from taskq_server.store.postgres import faults
from taskq_server.store.postgres.plans import PlanningConnection
from taskq_server.store.transaction import Again, Transaction, Verb

Item = TypeVar("Item")
Answer = TypeVar("Answer")

log = structlog.get_logger("taskq.store")

MOST_TRIES = 5
"""Of a transaction that others came between."""
STALLED_SECONDS = 2.0
"""Who comes while a transaction takes longer is told at once that the database does not answer."""
LOOK_SECONDS = 10.0
"""How long a lane looks for what became of a COMMIT whose answer it did not get."""
LOOK_AGAIN_SECONDS = 0.1

# What this says changes with every crash, also with one that leaves the postmaster alive: statistics are reset then.
_INCARNATION = "SELECT concat_ws(' ', pg_postmaster_start_time(), stats_reset) FROM pg_stat_bgwriter"
_OUTCOME = "SELECT pg_xact_status($1::text::xid8)"


Begin = Callable[[Connection, int], Transaction]


class Lane:
    """Runs groups of items, each in one transaction, and answers after its commit.

    `begin` opens a transaction for so many items; its `xid` tells it from all others. `after_commit` is told of each
    that is safe.
    """

    def __init__(
        self,
        name: str,
        engine: AsyncEngine,
        begin: Begin,
        after_commit: Callable[[Transaction], None],
    ) -> None:
        self._name = name
        self._engine = engine
        self._begin = begin
        self._after_commit = after_commit
        self._queue: deque[Waiting[Any, Any]] = deque()
        self._wake = asyncio.Event()
        self._connection: AsyncConnection | None = None
        self._driver: object = None
        self._incarnation = ""
        """Of the server that the connection is to."""
        self._busy_since: float | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._worker = asyncio.create_task(self._work(), name=f"taskq-lane-{name}")

    async def run(self, verb: Verb[Item, Answer], items: list[Item], size_bytes: int = 0) -> list[Answer]:
        """Runs `verb` over `items`, together with everybody else's, and returns one answer an item once all is safe.

        A caller that goes away before its transaction begins leaves nothing behind; later, it is committed anyway. One
        whose transaction does not begin in time is told that the database does not answer.
        """
        if self._closed:
            raise StorageUnavailable("the store is closed")
        if self._busy_since is not None and self._loop.time() - self._busy_since > STALLED_SECONDS:
            raise StorageUnavailable(f"the transaction before has not been answered for {STALLED_SECONDS:g} s")
        if not items:
            return []
        future: asyncio.Future[list[Answer]] = self._loop.create_future()
        waiting = Waiting(verb, items, future, size_bytes)
        self._queue.append(waiting)
        self._wake.set()
        patience = self._loop.call_later(STALLED_SECONDS, self._lose_patience, waiting)
        try:
            return await future
        finally:
            patience.cancel()

    def _lose_patience(self, waiting: Waiting[Any, Any]) -> None:
        if not waiting.has_begun:
            fail([waiting], StorageUnavailable(f"it had to wait for {STALLED_SECONDS:g} s"))

    async def close(self) -> None:
        """Commits what waits, then lets go of the connection."""
        self._closed = True
        self._wake.set()
        await self._worker

    async def _work(self) -> None:
        while self._queue or not self._closed:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._busy_since = self._loop.time()
            if self._connection is not None or await self._reach():
                self._busy_since = self._loop.time()
                if group := self._gather():
                    await self._serve(group)
            self._busy_since = None
        await self._drop_connection()

    async def _reach(self) -> bool:
        """Opens a connection. When there is none to be had, all who have come meanwhile are told."""
        try:
            await self._connected()
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for it
            await self._drop_connection()
            is_theirs = isinstance(error, faults.OF_POSTGRES)  # also that it knows us no longer
            unavailable = StorageUnavailable(faults.in_short(error)) if is_theirs else error
            fail(list(self._queue), faults.translate(error) or unavailable)
            self._queue.clear()
            await pause(LOOK_AGAIN_SECONDS)
            return False
        return True

    def _gather(self) -> Group:
        """All that waits for the same verb as the one who came first, at most about a batch; the others stay."""
        group: Group = []
        others: deque[Waiting[Any, Any]] = deque()
        room = Room()
        while self._queue and room.left:
            waiting = self._queue.popleft()
            if waiting.future.done():
                continue
            if group and waiting.verb is not group[0].verb:
                others.append(waiting)
                continue
            group.append(waiting)
            room.take(waiting)
        self._queue.extendleft(reversed(others))
        for waiting in group:
            waiting.has_begun = True
        return group

    async def _serve(self, group: Group) -> None:
        """Nothing of a group that fails is stored. One bad item must not fail its neighbours: each caller is tried
        alone."""
        try:
            answer(group, await self._run(group))
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for it
            translated = faults.translate(error)
            if translated is not None or len(group) == 1:
                fail(group, translated or error)
                return
            for waiting in group:
                await self._serve([waiting])

    async def _run(self, group: Group) -> list[list[Any]]:
        for tries_left in reversed(range(MOST_TRIES)):
            try:
                return await self._transact(group)
            except Exception as error:
                if not tries_left or not faults.wants_another_try(error):
                    raise
                log.info("a transaction is run again", lane=self._name, why=type(error).__name__)
        raise AssertionError("never reached")

    async def _transact(self, group: Group) -> list[list[Any]]:
        began: list[Transaction] = []

        def run(connection: Connection) -> list[list[Any]]:
            began.append(self._begin(connection, sum(len(waiting.items) for waiting in group)))
            return apply(began[0], group)

        try:
            answers = await self._apply(run)
            await self._commit(began[0])
        except BaseException as error:
            for transaction in began:
                for take_back in transaction.after_rollback:
                    take_back()
            await self._roll_back(error)
            raise
        for learn in began[0].after_commit:
            learn()
        self._after_commit(began[0])
        if type(self._driver) is PlanningConnection:  # isinstance is true of any connection of asyncpg's
            self._driver.changed(len(began[0].changed))
        return answers

    async def _apply(self, run: Callable[[Connection], list[list[Any]]]) -> list[list[Any]]:
        """A connection that has served before may have ended meanwhile. What was not told to commit does not count, so
        it is run again on another."""
        is_new = self._connection is None
        connection = await self._connected()
        try:
            return await connection.run_sync(run)
        except Exception as error:
            if is_new or isinstance(error, TimeoutError) or not faults.is_lost(error):
                raise
            await self._drop_connection()
            raise Again from error

    async def _commit(self, transaction: Transaction) -> None:
        assert self._connection is not None
        incarnation = self._incarnation
        try:
            await self._connection.commit()
        except Exception as error:
            if not faults.is_lost(error):
                raise
            await self._drop_connection()
            if not await self._was_committed(transaction, incarnation):
                raise
            log.warning("a commit was not answered, and counts", lane=self._name)

    async def _was_committed(self, transaction: Transaction, incarnation: str) -> bool:
        """Looks on other connections until one tells; StorageUnavailable when none does."""
        if transaction.xid is None:
            return True  # it has changed nothing
        ends_at = self._loop.time() + LOOK_SECONDS
        outcome = None
        while self._loop.time() < ends_at:
            try:
                connection = await self._connected()
                if self._incarnation != incarnation:
                    break  # the number may not have been given again yet, or to another
                outcome = (await connection.exec_driver_sql(_OUTCOME, (transaction.xid,))).scalar()
                await connection.rollback()
            except Exception as error:  # noqa: BLE001 - the database may still be away
                log.info("the outcome of a commit cannot be seen yet", lane=self._name, why=type(error).__name__)
                await self._drop_connection()
            if outcome in ("committed", "aborted"):
                return bool(outcome == "committed")
            await pause(LOOK_AGAIN_SECONDS)
        raise StorageUnavailable("it is not known whether the last transaction counts")

    async def _connected(self) -> AsyncConnection:
        if self._connection is None:
            self._connection = await self._engine.connect()
            self._driver = (await self._connection.get_raw_connection()).driver_connection
            self._incarnation = str((await self._connection.exec_driver_sql(_INCARNATION)).scalar_one())
        return self._connection

    async def _roll_back(self, error: BaseException) -> None:
        if self._connection is None:
            return
        if not faults.is_lost(error):
            try:
                await self._connection.rollback()
            except Exception as second:  # noqa: BLE001 - then the connection is no good either
                log.info("a connection is given up", lane=self._name, why=type(second).__name__)
            else:
                return
        await self._drop_connection()

    async def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it may be dead, and nobody needs it any more
                await connection.invalidate()
            with contextlib.suppress(Exception):
                await connection.close()
