"""Dispatch, the database's half: which tasks are due, and whose they become."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import Row

from taskq_server.core.matching import Candidate, Demand, Seats
from taskq_server.core.task import CORRUPT, Assignment, Ending, Failure, Outcome
from taskq_server.store import rows
from taskq_server.store.end_batch import Rules
from taskq_server.store.ending import end, expire
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction

MOST_TASKS_PER_LEASE = 2_000

_DUE = (
    "SELECT seq, due_time_us, coalesce(length(payload), 0) + coalesce(length(checkpoint), 0) FROM task "
    "WHERE state = 1 AND route_id = ? AND priority = ? ORDER BY due_time_us, seq LIMIT ?"
)
_LEASE = (
    "UPDATE task SET state = 2, attempt = attempt + 1, session_seq = taken.value ->> 1, "  # noqa: S608 - our own names
    "processor_name = taken.value ->> 2, lease_time_us = :now, run_deadline_us = :now + run_timeout_us "
    "FROM (SELECT value FROM json_each(:taken)) AS taken WHERE task.seq = taken.value ->> 0 AND task.state = 1 "
    f"RETURNING {', '.join('task.' + name for name in rows.ASSIGNMENT_COLUMNS)}"
)


@dataclass(slots=True)
class Leased:
    """What a dispatch brought, most urgent first, and when to look again (None: when something changes)."""

    assignments: list[Assignment]
    next_due_us: int | None


def lease(memory: Memory, rules: Rules, tx: Transaction, demands: list[Demand]) -> list[Leased]:
    """Leases the due tasks that find a seat. Nothing is leased before its due time by this transaction's clock."""
    return [_lease(memory, rules, tx, demand) for demand in demands]


def _lease(memory: Memory, rules: Rules, tx: Transaction, demand: Demand) -> Leased:
    while memory.next_expiry_us is not None and memory.next_expiry_us <= tx.now_us:
        expire(memory, rules, tx)
    demand = _of_the_living(tx, demand)
    limits = demand.limits()
    seen: list[_Range] = []
    for route_id, limit in limits.items():
        seen += _due_of_route(memory, tx, route_id, min(limit, MOST_TASKS_PER_LEASE))
    candidates = [candidate for range_ in seen for candidate in range_.due]
    placed = demand.place(candidates, MOST_TASKS_PER_LEASE)
    assignments = _take(memory, rules, tx, placed)
    taken = {candidate.seq for candidate, _ in placed}
    for range_ in seen:
        range_.correct(memory, tx, taken)
    free = [route_id for route_id, limit in demand.limits().items() if limit]
    return Leased(assignments, memory.waiting.next_due_us(free))


def _of_the_living(tx: Transaction, demand: Demand) -> Demand:
    """Without the seats of sessions that have ended: nobody would ever end their leases. A copy, since seats are used
    up by placing, and a transaction that failed is tried again."""
    living = set(tx.connection.exec_driver_sql("SELECT session_seq FROM session WHERE end_time_us IS NULL").scalars())
    return Demand(
        [replace(seats, by_name=dict(seats.by_name)) for seats in demand.seats if seats.session_seq in living]
    )


@dataclass(slots=True)
class _Range:
    """The first tasks of a (route, priority): those that are due, and when the one after them is."""

    route_id: int
    priority: int
    known_us: int
    due: list[Candidate]
    after_us: int | None

    def correct(self, memory: Memory, tx: Transaction, taken: set[int]) -> None:
        left = (candidate.due_time_us for candidate in self.due if candidate.seq not in taken)
        memory.waiting.correct(self.route_id, self.priority, next(left, self.after_us))
        tx.undo.append(partial(memory.waiting.note, self.route_id, self.priority, self.known_us))


def _due_of_route(memory: Memory, tx: Transaction, route_id: int, limit: int) -> list[_Range]:
    """The `limit` most urgent due tasks of a route; reads one row more of each priority, to know what comes next."""
    ranges = []
    for priority, known_us in memory.waiting.due(route_id, tx.now_us):
        found = tx.connection.exec_driver_sql(_DUE, (route_id, priority, limit + 1)).all()
        due = [Candidate(seq, route_id, priority, at, size) for seq, at, size in found[:limit] if at <= tx.now_us]
        after_us = found[len(due)][1] if len(due) < len(found) else None
        ranges.append(_Range(route_id, priority, known_us, due, after_us))
        limit -= len(due)
        if limit <= 0:
            break
    return ranges


def _take(memory: Memory, rules: Rules, tx: Transaction, placed: list[tuple[Candidate, Seats]]) -> list[Assignment]:
    if not placed:
        return []
    taken = rows.to_json([(candidate.seq, seats.session_seq, seats.processor_name) for candidate, seats in placed])
    leased = tx.connection.exec_driver_sql(_LEASE, {"now": tx.now_us, "taken": taken}).all()
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
