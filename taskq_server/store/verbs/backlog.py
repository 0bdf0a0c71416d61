"""What is due and waits, and whether anybody can run it: for those who look from outside.

Nothing here grows with the number of tasks: only where something may be due is looked at, one step in an index each,
and what is counted is counted up to a limit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select, text

from taskq_server.core.matching import Route
from taskq_server.store import schema
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction

MOST_ROUTES = 512
"""Those that have waited longest: what so many routes hide is not what an operator looks for first."""
MOST_COUNTED = 1_000
"""Of what is due of a route, at each priority; less when many routes are looked at."""
MOST_ROWS = 20_000
"""Of all routes, give or take their priorities: 300,000 took PostgreSQL 0.4 s, for which whoever reads had to wait."""
_SIZES = 8, 64, MOST_ROUTES
"""How many routes a statement asks for: few different ones, so that each is parsed once, and kept."""

_PLACE = "task.state = 1 AND task.route_id = route.route_id AND task.priority = place.priority"
_DUE = text(
    "WITH place (priority) AS (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) SELECT route.route_id, "  # noqa: S608
    f"(SELECT task.due_time_us FROM task WHERE {_PLACE} ORDER BY task.due_time_us LIMIT 1), "
    f"(SELECT count(*) FROM (SELECT 1 FROM task WHERE {_PLACE} AND task.due_time_us <= :now LIMIT :most) "
    "AS counted) FROM route CROSS JOIN place WHERE route.route_id IN :route_ids"
).bindparams(bindparam("route_ids", expanding=True))


@dataclass(slots=True)
class Backlog:
    """What is due of one name."""

    name: str
    first_due_us: int
    due: int = 0
    unroutable: int = 0
    """Of those, how many nobody can run: no living processor has the name and the labels, or it is drained."""


def backlog(memory: Memory, tx: Transaction, nothing: list[None]) -> list[list[Backlog]]:
    """The names of which tasks are due and wait."""
    return [_backlog(memory, tx)] * len(nothing)


def _backlog(memory: Memory, tx: Transaction) -> list[Backlog]:
    route_ids = memory.waiting.due_routes(tx.now_us)[:MOST_ROUTES]
    if not route_ids:
        return []
    size = next(size for size in _SIZES if len(route_ids) <= size)
    asked = route_ids + route_ids[-1:] * (size - len(route_ids))
    values = {"now": tx.now_us, "route_ids": asked, "most": max(1, min(MOST_COUNTED, MOST_ROWS // len(route_ids)))}
    able = _able(tx)
    found: dict[str, Backlog] = {}
    for route_id, first_us, due in tx.connection.execute(_DUE, values).all():
        if due:
            route = memory.route(tx.connection, route_id)
            one = found.setdefault(route.name, Backlog(route.name, first_us))
            one.first_due_us = min(one.first_due_us, first_us)
            one.due += due
            one.unroutable += 0 if _is_open(route, able) else due
    return list(found.values())


def _able(tx: Transaction) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """What the processors of all servers can run, and their labels: many of a kind are one."""
    session = schema.session
    living = select(session.c.capabilities, session.c.labels).where(schema.IS_ALIVE, session.c.drain_time_us.is_(None))
    able = []
    for capabilities, labels in tx.connection.execute(living.distinct()):
        try:
            able.append((json.loads(capabilities), json.loads(labels)))
        except (TypeError, ValueError):  # a row that cannot be read must not hide the others
            continue
    return able


def _is_open(route: Route, able: list[tuple[dict[str, Any], dict[str, str]]]) -> bool:
    return any(route.open_to(capabilities, labels) for capabilities, labels in able)
