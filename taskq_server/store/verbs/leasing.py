"""Dispatch, the database's half: which tasks are due, and whose they become."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import BigInteger, Text, bindparam, cast, null, select, union_all

from taskq_server.core.matching import Candidate, Demand, Seats
from taskq_server.core.task import CORRUPT, Assignment, Ending, Enqueued, Failure, NewTask, Outcome
from taskq_server.store import rows, schema
from taskq_server.store.memory import Memory
from taskq_server.store.offer import Offer
from taskq_server.store.sql import Asked, Due
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.adding import CHANGES, add
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.ending import end, expire
from taskq_server.store.waiting import Place

MOST_TASKS_PER_LEASE = 1_000

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


def add_and_lease(memory: Memory, rules: Rules, tx: Transaction, tasks: list[NewTask]) -> list[Enqueued]:
    """Stores tasks, and leases what is due of them to the seats that are on offer: one commit for both."""
    added = add(memory, tx, tasks)
    offer = memory.offer
    if offer is not None and _is_wanted(tx, tasks, offer) and offer.take():
        tx.after_rollback.append(partial(offer.settle, None))
        (leased,) = lease(memory, rules, tx, [offer.demand])
        tx.after_commit.append(partial(offer.settle, leased))
    return added


def _is_wanted(tx: Transaction, tasks: list[NewTask], offer: Offer) -> bool:
    """Whether something is due that it has seats for. Not if tasks of others may have been locked: sessions are locked
    before tasks."""
    if any(task.dedup is not None and task.dedup.on_conflict in CHANGES for task in tasks):
        return False
    until_us = tx.now_us + offer.demand.ahead_us
    return any(route_id in offer.routes and at <= until_us for (route_id, _), at in tx.scheduled.items())


def lease(memory: Memory, rules: Rules, tx: Transaction, demands: list[Demand]) -> list[Leased]:
    """Leases the due tasks that find a seat, by this transaction's clock; and as far `ahead_us` as the demand asks for,
    whose leases begin when they are due."""
    return [_lease(memory, rules, tx, demand) for demand in demands]


def _lease(memory: Memory, rules: Rules, tx: Transaction, demand: Demand) -> Leased:
    if memory.next_expiry_us is not None and memory.next_expiry_us <= tx.now_us:
        expire(memory, rules, tx)
    look = memory.waiting.look()
    tx.after_rollback.append(look.abandon)
    demand = _what_may_be(memory, tx, demand)
    seen = _due(memory, tx, demand.limits())
    placed = demand.place([candidate for due in seen for candidate in due.candidates], MOST_TASKS_PER_LEASE)
    if demand.ahead_us:
        soon = _soon(memory, tx, demand, {due.place: due for due in seen})
        seen += soon
        room = MOST_TASKS_PER_LEASE - len(placed)
        placed += demand.place([candidate for due in soon for candidate in due.candidates], room)
    leased = tx.sql.take(tx, placed) if placed else ()
    taken = {row[rows.SEQ] for row in leased}
    left: dict[Place, int] = {}
    for due in seen:
        look.found[due.place] = due.after_us
        for candidate in due.candidates:
            if candidate.seq not in taken:
                left.setdefault(due.place, candidate.due_time_us)
        tx.scheduled.pop(due.place, None)  # what waits there now, this look has found
    look.found.update(left)
    tx.after_commit.append(look.end)
    assignments = _assignments(memory, rules, tx, placed, leased)
    tx.leased.update([assignment.route.name for assignment in assignments])
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
    seats = [_seats(seats, paused) for seats in demand.seats if seats.session_seq in open_sessions]
    return replace(demand, seats=seats)


def _seats(seats: Seats, paused: frozenset[str]) -> Seats:
    routes = seats.routes
    if paused:
        routes = {route_id: name for route_id, name in routes.items() if name not in paused}
    return replace(seats, by_name=dict(seats.by_name), routes=routes)


def _due(memory: Memory, tx: Transaction, limits: dict[int, int]) -> list[Due]:
    """The most urgent due tasks of each route, as many as its limit."""
    return _look_at(tx, _known(memory, tx, limits, tx.now_us), limits, tx.now_us)


def _soon(memory: Memory, tx: Transaction, demand: Demand, seen: dict[Place, Due]) -> list[Due]:
    """The same of what will be due in a moment, where nothing that is due has been left."""
    limits, until_us = demand.limits(), tx.now_us + demand.ahead_us
    known = {}
    for place, at in _known(memory, tx, limits, until_us).items():
        after_us = seen[place].after_us if place in seen else at
        if after_us is not None and tx.now_us < after_us <= until_us:
            known[place] = after_us
    return _look_at(tx, known, limits, until_us)


def _known(memory: Memory, tx: Transaction, routes: Iterable[int], until_us: int) -> dict[Place, int]:
    """Where something may be due by then, nothing earlier than said: as memory knows, and this transaction."""
    known = {(route_id, priority): at for route_id in routes for priority, at in memory.waiting.due(route_id, until_us)}
    for place, at in tx.scheduled.items():
        if place[0] in routes and at <= until_us:
            known[place] = min(at, known.get(place, at))
    return known


def _look_at(tx: Transaction, known: dict[Place, int], limits: dict[int, int], until_us: int) -> list[Due]:
    """Larger priorities first, since a route's limit is one for all of its tasks."""
    left = {route_id: min(limit, MOST_TASKS_PER_LEASE) for route_id, limit in limits.items()}
    by_priority: dict[int, list[tuple[int, int]]] = {}
    for (route_id, priority), known_us in known.items():
        by_priority.setdefault(priority, []).append((route_id, known_us))
    seen: list[Due] = []
    for priority in sorted(by_priority, reverse=True):
        asked = [Asked(route_id, at, left[route_id]) for route_id, at in by_priority[priority] if left[route_id] > 0]
        for due in tx.sql.due(tx, priority, asked, until_us) if asked else ():
            left[due.place[0]] -= len(due.candidates)
            seen.append(due)
    return seen


def _assignments(
    memory: Memory,
    rules: Rules,
    tx: Transaction,
    placed: list[tuple[Candidate, Seats]],
    leased: Sequence[Sequence[Any]],
) -> list[Assignment]:
    by_seq: dict[int, Assignment] = {}
    corrupt: list[Ending] = []
    for row in leased:
        assignment = rows.assignment_of(row, memory.routes)
        if assignment is None:
            corrupt.append(_never_deliver(row, tx.now_us))
        else:
            by_seq[assignment.seq] = assignment
            tx.changed.append(assignment.task_id)
    if corrupt:
        end(memory, rules, tx, corrupt)
    # RETURNING has no order of its own
    return [by_seq[candidate.seq] for candidate, _ in placed if candidate.seq in by_seq]


def _never_deliver(row: Sequence[Any], now_us: int) -> Ending:
    """One bad row must not stop the others, nor reach a processor."""
    _, task_id, session_seq, _, attempt, *_ = row
    failure = Failure(CORRUPT, "what is stored cannot be read, or no longer has its checksum", "", attempt, now_us)
    return Ending(task_id, attempt, session_seq, Outcome.FAILED, failure=failure, retryable=False)
