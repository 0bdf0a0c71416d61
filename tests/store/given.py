"""Builders for sentences about a store: each names only what matters to the sentence."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.util import await_only

from taskq_server.core.matching import Demand, Seats, route_of
from taskq_server.core.recurring import Definition
from taskq_server.core.retry import DEFAULT_RETRY_POLICY, Jitter, RetryPolicy
from taskq_server.core.schedule import CatchUp, Overlap, Rule
from taskq_server.core.task import (
    Assignment,
    Dedup,
    DedupConflict,
    DedupHold,
    Ended,
    Ending,
    EndStatus,
    Enqueued,
    EnqueueOutcome,
    Failure,
    NewTask,
    Outcome,
    Payload,
    Task,
)
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.store import Store
from taskq_server.store.transaction import Transaction, Verb
from taskq_server.store.verbs.leasing import Leased
from taskq_server.store.verbs.living import NewSession, StoredSession
from taskq_server.store.verbs.scheduling import NewSchedule
from taskq_server.store.verbs.tokens import NewToken

SECOND = 1_000_000
LEASE = 30 * SECOND
NO_RETRY = RetryPolicy(max_attempts=1)

_ids = itertools.count(1)


def seconds(n: float) -> int:
    return round(n * SECOND)


def minutes(n: float) -> int:
    return seconds(60 * n)


def hours(n: float) -> int:
    return minutes(60 * n)


def days(n: float) -> int:
    return hours(24 * n)


def an_id(number: int | None = None) -> bytes:
    """A task id; without a number, one that no other task has."""
    return (next(_ids) << 64 | 1 if number is None else number).to_bytes(16, "big")


def a_task(
    name: str = "cook",
    *,
    task_id: bytes | None = None,
    requires: Iterable[str] = (),
    due_in: int = 0,
    due_at: int | None = None,
    payload: bytes | Payload | None = None,
    content: str = "",
    priority: int = 0,
    key: str | None = None,
    scope: str | None = None,
    on_conflict: DedupConflict = DedupConflict.RETURN_EXISTING,
    hold: DedupHold | None = None,
    ttl: int | None = None,
    retry: RetryPolicy = DEFAULT_RETRY_POLICY,
    run_timeout: int | None = None,
    expires_at: int | None = None,
    headers: Mapping[str, str] | None = None,
    tags: tuple[str, ...] = (),
    retention: int | None = None,
) -> NewTask:
    dedup = None
    if key is not None:
        hold = hold or (DedupHold.UNFINISHED if ttl is None else DedupHold.TTL)
        dedup = Dedup(key, name if scope is None else scope, on_conflict, hold, ttl)
    return NewTask(
        an_id() if task_id is None else task_id,
        route_of(name, requires),
        hashlib.md5(content.encode(), usedforsecurity=False).digest(),
        Payload(payload) if isinstance(payload, bytes) else payload,
        due_at,
        due_in,
        priority,
        dedup,
        retry,
        run_timeout,
        expires_at,
        None if headers is None else dict(headers),
        tags,
        retention,
    )


def a_schedule(
    name: str = "nightly",
    task: str = "cook",
    *,
    schedule_id: bytes | None = None,
    every: int = 0,
    crons: tuple[str, ...] = (),
    zone: str = "UTC",
    overlap: Overlap = Overlap.SKIP,
    catch_up: CatchUp = CatchUp.LAST,
    window: int = days(7),
    most: int | None = None,
    max_buffered: int = 100,
    jitter: int = 0,
    origin: str = "",
    **of_task: Any,
) -> NewSchedule:
    """A schedule to be stored; `of_task` are what `a_task` takes."""
    rule = Rule(crons=crons, interval_us=every, time_zone=zone, jitter_us=jitter)
    definition = Definition(
        name, rule, a_task(task, **of_task), overlap, max_buffered, catch_up, window, most, origin, b"0" * 16
    )
    return NewSchedule(an_id() if schedule_id is None else schedule_id, definition)


def a_retry(**settings: Any) -> RetryPolicy:
    """A policy without jitter, unless it is asked for."""
    return RetryPolicy(**{"jitter": Jitter.NONE, **settings})


@dataclass
class Processor:
    """A registered session, and what it could take."""

    seq: int
    name: str
    session_id: bytes
    capabilities: dict[str, int]
    labels: dict[str, str] = field(default_factory=dict)
    slots: int = 100

    def seats(self, store: Store, slots: int | None = None) -> Seats:
        total = self.slots if slots is None else slots
        routes = {
            number: route.name
            for number, route in store.routes.items()
            if route.open_to(self.capabilities, self.labels)
        }
        by_name = {name: limit or total for name, limit in self.capabilities.items()}
        return Seats(self.seq, self.name, total, by_name, routes)


async def a_processor(
    store: Store,
    *names: str,
    name: str = "oven",
    limits: Mapping[str, int] | None = None,
    labels: Mapping[str, str] | None = None,
    slots: int = 100,
    alive_until: int = 1 << 60,
) -> Processor:
    """Registers a processor, of `cook` unless other names are given."""
    capabilities = dict.fromkeys(names or ("cook",), 0) if limits is None else dict(limits)
    session_id = an_id()
    lease = alive_until - store._clock.now_us()
    new = NewSession(session_id, name, capabilities, dict(labels or {}), slots, "build", "test", lease)
    return Processor(await store.register(new), name, session_id, capabilities, dict(labels or {}), slots)


async def lease(store: Store, *processors: Processor, slots: int | None = None) -> Leased:
    """Leases what is due to processors, each with all its seats free, or `slots` of them."""
    return await store.lease(Demand([processor.seats(store, slots) for processor in processors]))


async def leased_ids(store: Store, *processors: Processor, slots: int | None = None) -> list[bytes]:
    return [assignment.task_id for assignment in (await lease(store, *processors, slots=slots)).assignments]


async def added(store: Store, *tasks: NewTask) -> list[bytes]:
    """Stores tasks that must all be new; answers their ids."""
    answers = await store.add(list(tasks))
    assert [answer.outcome for answer in answers] == [EnqueueOutcome.CREATED] * len(tasks)
    return [answer.task_id for answer in answers]


async def running(store: Store, processor: Processor, *tasks: NewTask) -> list[Assignment]:
    """Stores tasks and leases them."""
    ids = await added(store, *tasks)
    assignments = (await lease(store, processor)).assignments
    assert {assignment.task_id for assignment in assignments} == set(ids)
    return sorted(assignments, key=lambda assignment: ids.index(assignment.task_id))


def succeeded(assignment: Assignment, result: bytes | None = None) -> Ending:
    return _ending(assignment, Outcome.SUCCEEDED, result=None if result is None else Payload(result))


def failed(
    assignment: Assignment,
    error_type: str = "Burnt",
    *,
    message: str = "",
    retryable: bool = True,
    retry_delay: int | None = None,
) -> Ending:
    failure = Failure(error_type, message, "", assignment.attempt, assignment.lease_time_us)
    return _ending(assignment, Outcome.FAILED, failure=failure, retryable=retryable, retry_delay_us=retry_delay)


def released(assignment: Assignment, due_at: int | None = None) -> Ending:
    return _ending(assignment, Outcome.RELEASED, due_time_us=due_at)


def not_received(assignment: Assignment) -> Ending:
    return _ending(assignment, Outcome.NOT_RECEIVED)


def stopped(assignment: Assignment) -> Ending:
    """The processor has stopped it as it was told."""
    return _ending(assignment, Outcome.CANCELLED)


def _ending(assignment: Assignment, outcome: Outcome, **facts: Any) -> Ending:
    """As the server makes it that has pushed the task and still knows its number."""
    seq = None if assignment.dedup_key else assignment.seq
    return Ending(assignment.task_id, assignment.attempt, assignment.session_seq, outcome, seq=seq, **facts)


async def end(store: Store, ending: Ending) -> Ended:
    """Ends one attempt, which must still be held."""
    (ended,) = await store.end([ending])
    assert ended.status is EndStatus.ACCEPTED
    return ended


async def the_task(store: Store, task_id: bytes) -> Task:
    return (await store.get([task_id]))[task_id]


def outcomes(answers: Iterable[Enqueued]) -> list[EnqueueOutcome]:
    return [answer.outcome for answer in answers]


def statuses(answers: Iterable[Ended]) -> list[EndStatus]:
    return [answer.status for answer in answers]


async def rows(store: Store, sql: str, **values: object) -> list[dict[str, Any]]:
    """What stands in the tables."""

    def find(tx: Transaction, items: list[None]) -> list[list[dict[str, Any]]]:
        return [[dict(row) for row in tx.connection.execute(text(sql), values).mappings()] for _ in items]

    return (await store.read(find, [None]))[0]


async def history(store: Store, task_id: bytes) -> list[tuple[int, Outcome]]:
    """The attempts of a task that did not finish it, and how each ended."""
    found = await rows(
        store,
        "SELECT attempt.attempt, outcome FROM attempt JOIN task ON task_seq = seq WHERE task_id = :task_id ORDER BY 1",
        task_id=task_id,
    )
    return [(row["attempt"], Outcome(row["outcome"])) for row in found]


async def living_sessions(store: Store) -> list[StoredSession]:
    """The sessions that live and can be read, in the order of their registration."""
    alive = await rows(store, "SELECT session_id FROM session WHERE end_time_us IS NULL ORDER BY session_seq")
    found = await store.read(store._find, [bytes(row["session_id"]) for row in alive])
    return [stored for stored in found if stored is not None]


async def tamper(store: Store, sql: str, **values: object) -> None:
    """Changes the tables behind the store's back, as a bug or a bad disk would."""

    def change(tx: Transaction, items: list[None]) -> list[None]:
        tx.connection.execute(text(sql), values)
        return items

    await store.write(change, [None])


@contextmanager
def statements() -> Iterator[list[str]]:
    """What is said to any database until the end of the block."""
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def few_variables(store: Store) -> None:
    """Lets no statement hold more than 10,000 variables, as if batches were larger than the database's own limit."""

    def limit(tx: Transaction, items: list[None]) -> list[None]:
        if tx.connection.dialect.name == "sqlite":
            driver = tx.connection.connection.driver_connection
            assert driver is not None
            driver.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 10_000)
        return items

    await store.write(limit, [None])


def fails_with(error: BaseException) -> Callable[[Transaction, list[Any]], list[Any]]:
    """A verb that raises."""

    def fail(tx: Transaction, items: list[Any]) -> list[Any]:
        raise error

    return fail


def replace_verb(store: Store, name: str, verb: Verb[Any, Any]) -> None:
    """Puts a verb in the place of another, in PostgreSQL on the same lane."""
    if isinstance(store, Postgres):
        store._lanes[verb] = store._lanes.get(getattr(store, name), store._housekeeping)
    setattr(store, name, verb)


async def until_idle(store: Store, name: str) -> None:
    """Returns once all is over that was asked of a verb, also by those who have gone away."""

    def wait(tx: Transaction, items: list[None]) -> list[None]:
        return items

    if isinstance(store, Postgres):
        store._lanes[wait] = store._lanes.get(getattr(store, name), store._housekeeping)
    await store.write(wait, [None])


class Gate:
    """Stops whoever passes it inside of a transaction, until it opens: `await gate.reached.wait()`, `gate.open()`."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._opened = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def pass_by(self, connection: Connection) -> None:
        self._loop.call_soon_threadsafe(self.reached.set)
        opened = asyncio.wait_for(self._opened.wait(), 30)
        if connection.dialect.name == "sqlite":  # the verb has a thread of its own, and on PostgreSQL the loop's
            asyncio.run_coroutine_threadsafe(opened, self._loop).result()
        else:
            await_only(opened)

    def open(self) -> None:
        self._opened.set()

    async def hold(self, store: Store, lane: str = "_add") -> asyncio.Task[list[None]]:
        """Holds a transaction open, on PostgreSQL in the lane of that verb: what is asked for there has to wait."""

        def wait(tx: Transaction, items: list[None]) -> list[None]:
            self.pass_by(tx.connection)
            return items

        if isinstance(store, Postgres):
            store._lanes[wait] = store._lanes.get(getattr(store, lane), store._housekeeping)
        held = asyncio.create_task(store.write(wait, [None]))
        await self.reached.wait()
        return held


def a_token(principal: str = "root", *rights: str, expires_in: int | None = None, secret: str = "") -> NewToken:
    """What is kept of a token; the same principal and secret give the same one."""
    digest = hashlib.sha256(f"{principal} {secret}".encode())
    return NewToken(f"tq_{digest.hexdigest()[:12]}", digest.digest(), principal, rights or ("admin",), expires_in)
