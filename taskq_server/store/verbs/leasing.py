"""Dispatch, the database's half: which tasks are due, and whose they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import BigInteger, Row, Text, bindparam, cast, null, select, union_all

from taskq_server.core.matching import Candidate, Demand, Seats
from taskq_server.core.task import CORRUPT, Assignment, Ending, Failure, Outcome
from taskq_server.store import rows, schema
from taskq_server.store.memory import Memory
from taskq_server.store.sql import Asked, Due
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.ending import end, expire

MOST_TASKS_PER_LEASE = 2_000

_OWN_SESSIONS_AND_PAUSES = union_all(
    select(schema.session.c.session_seq, cast(null(), Text).label("name")).where(
        schema.IS_ALIVE,
        schema.session.c.server_seq == bindparam("server_seq"),
        schema.session.c.drain_time_us.is_(None),
    ),
    select(cast(null(), BigInteger), schema.pause.c.name),
)
"""Made once: to build it takes SQLAlchemy as long as to run it. And one question, since each is a way to the database
and back."""


@dataclass(slots=True)
class Leased:
    """What a dispatch brought, most urgent first, and when to look again (None: when something changes)."""

    assignments: list[Assignment]
    free_routes: list[int]
    """For which there are seats left."""
    next_due_us: int | None = None


def lease(memory: Memory, rules: Rules, tx: Transaction, demands: list[Demand]) -> list[Leased]:
    """Leases the due tasks that find a seat. Nothing is leased before its due time by this transaction's clock."""
    return [_lease(memory, rules, tx, demand) for demand in demands]


def _lease(memory: Memory, rules: Rules, tx: Transaction, demand: Demand) -> Leased:
    if memory.next_expiry_us is not None and memory.next_expiry_us <= tx.now_us:
        expire(memory, rules, tx)
    look = memory.waiting.look()
    tx.after_rollback.append(look.abandon)
    demand = _what_may_be(memory, tx, demand)
    seen = _due(memory, tx, demand.limits())
    placed = demand.place([candidate for due in seen for candidate in due.candidates], MOST_TASKS_PER_LEASE)
    leased = tx.sql.take(tx, placed) if placed else ()
    taken = {row.seq for row in leased}
    for due in seen:
        left = (candidate.due_time_us for candidate in due.candidates if candidate.seq not in taken)
        look.found[due.place] = next(left, due.after_us)
    tx.after_commit.append(look.end)
    assignments = _assignments(memory, rules, tx, placed, leased)
    return Leased(assignments, [route_id for route_id, limit in demand.limits().items() if limit])


def _what_may_be(memory: Memory, tx: Transaction, demand: Demand) -> Demand:
    """Without what is paused, and without the seats of sessions that have ended, whose leases nobody would ever end,
    that are drained, or that have moved to another server. A copy, since seats are used up by placing, and a
    transaction that failed is tried again."""
    end_look = memory.pauses.look()
    found = tx.connection.execute(_OWN_SESSIONS_AND_PAUSES, {"server_seq": tx.server_seq}).all()
    open_sessions = {session_seq for session_seq, name in found if name is None}
    paused = frozenset(name for _, name in found if name is not None)
    tx.after_commit.append(partial(end_look, paused))
    return Demand([_seats(seats, paused) for seats in demand.seats if seats.session_seq in open_sessions])


def _seats(seats: Seats, paused: frozenset[str]) -> Seats:
    routes = seats.routes
    if paused:
        routes = {route_id: name for route_id, name in routes.items() if name not in paused}
    return replace(seats, by_name=dict(seats.by_name), routes=routes)


def _due(memory: Memory, tx: Transaction, limits: dict[int, int]) -> list[Due]:
    """The most urgent due tasks of each route, as many as its limit; larger priorities first."""
    left = {route_id: min(limit, MOST_TASKS_PER_LEASE) for route_id, limit in limits.items()}
    by_priority: dict[int, list[tuple[int, int]]] = {}
    for route_id in left:
        for priority, known_us in memory.waiting.due(route_id, tx.now_us):
            by_priority.setdefault(priority, []).append((route_id, known_us))
    seen: list[Due] = []
    for priority in sorted(by_priority, reverse=True):
        asked = [Asked(route_id, at, left[route_id]) for route_id, at in by_priority[priority] if left[route_id] > 0]
        for due in tx.sql.due(tx, priority, asked) if asked else ():
            left[due.place[0]] -= len(due.candidates)
            seen.append(due)
    return seen


def _assignments(
    memory: Memory,
    rules: Rules,
    tx: Transaction,
    placed: list[tuple[Candidate, Seats]],
    leased: Sequence[Row[Any]],
) -> list[Assignment]:
    by_seq: dict[int, Assignment] = {}
    corrupt: list[Ending] = []
    for row in leased:
        assignment = rows.assignment_of(row, memory.routes[row.route_id])
        if assignment is None:
            corrupt.append(_never_deliver(row, tx.now_us))
        else:
            by_seq[assignment.seq] = assignment
            tx.changed.append(assignment.task_id)
    if corrupt:
        end(memory, rules, tx, corrupt)
    # RETURNING has no order of its own
    return [by_seq[candidate.seq] for candidate, _ in placed if candidate.seq in by_seq]


def _never_deliver(row: Row[Any], now_us: int) -> Ending:
    """One bad row must not stop the others, nor reach a processor."""
    failure = Failure(CORRUPT, "what is stored cannot be read, or no longer has its checksum", "", row.attempt, now_us)
    return Ending(row.task_id, row.attempt, row.session_seq, Outcome.FAILED, failure=failure, retryable=False)
