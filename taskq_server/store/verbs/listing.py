"""What an administrator sees of processors and capabilities, a page at a time.

Nothing here reads all tasks, however many there are: what waits is counted up to a limit, by the index of what is due,
and what runs is as many tasks as processors have said they can take.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Row, bindparam, func, select, text

from taskq_server.store import schema
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.living import Held
from taskq_server.store.verbs.pausing import Pause

MOST_COUNTED = 1_000
"""Of what waits of a name, whether due or later."""
MOST_RUNNING_COUNTED = 10_000
"""Of what runs in all."""
MOST_HELD_SHOWN = 10
"""Of what a session holds."""

_PLACE = "task.state = 1 AND task.route_id = route.route_id AND task.priority = place.priority"
_COUNT = "(SELECT count(*) FROM (SELECT 1 FROM task WHERE {where} LIMIT {most}) AS counted)"
_WAITING = text(
    "WITH place (priority) AS (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) SELECT route.name, "  # noqa: S608
    f"(SELECT task.due_time_us FROM task WHERE {_PLACE} ORDER BY task.due_time_us LIMIT 1), "
    f"{_COUNT.format(where=f'{_PLACE} AND task.due_time_us <= :now', most=MOST_COUNTED)}, "
    f"{_COUNT.format(where=f'{_PLACE} AND task.due_time_us > :now', most=MOST_COUNTED)} "
    "FROM route CROSS JOIN place WHERE route.name IN :names"
).bindparams(bindparam("names", expanding=True))


class Page(NamedTuple):
    """What comes after a key, in order, and how much of it; or one alone."""

    after: Any
    at_most: int
    only: Any = None


@dataclass(slots=True)
class Registered:
    """A session that lives."""

    session_seq: int
    session_id: bytes
    processor_name: str
    capabilities: dict[str, int]
    labels: dict[str, str]
    max_in_flight: int
    build_id: str
    client: str
    register_time_us: int
    alive_until_us: int
    server_name: str
    """Of the server that may push to it; empty when that one is gone, and on SQLite."""
    drain_time_us: int | None
    drain_reason: str
    held: list[Held] = field(default_factory=list)
    """Those that it has held longest, at most MOST_HELD_SHOWN."""
    many_held: int = 0


@dataclass(slots=True)
class Supply:
    """What a name asks for, and what there is for it."""

    name: str
    due: int = 0
    """At most MOST_COUNTED: then there are more."""
    later: int = 0
    """The same of what is not due yet."""
    first_due_us: int | None = None
    running: int = 0
    """Counted among MOST_RUNNING_COUNTED of all that run."""
    processors: int = 0
    """That live and are not drained."""
    free: int = 0
    """How many more these could take, were there nothing else for them."""
    pause: Pause | None = None


# ── processors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def sessions(memory: Memory, tx: Transaction, pages: list[Page]) -> list[list[Registered]]:
    """Living sessions in the order of their registration, and what each holds; `only` is the id of one."""
    return [_sessions(memory, tx, page) for page in pages]


def _sessions(memory: Memory, tx: Transaction, page: Page) -> list[Registered]:
    table, server = schema.session, schema.server
    query = select(table, server.c.name.label("server_name")).join_from(
        table, server, server.c.server_seq == table.c.server_seq, isouter=True
    )
    if page.only is not None:
        query = query.where(schema.LIVES, table.c.session_id == page.only)
    else:
        query = query.where(schema.IS_ALIVE, table.c.session_seq > page.after)
        query = query.order_by(table.c.session_seq).limit(page.at_most)
    found = [_registered(row) for row in tx.connection.execute(query)]
    _add_held(memory, tx, {one.session_seq: one for one in found})
    return found


def _registered(row: Row[Any]) -> Registered:
    return Registered(
        row.session_seq,
        row.session_id,
        row.processor_name,
        object_of(row.capabilities),
        object_of(row.labels),
        row.max_in_flight,
        row.build_id,
        row.client,
        row.register_time_us,
        row.alive_until_us,
        row.server_name or "",
        row.drain_time_us,
        row.drain_reason or "",
    )


def object_of(column: str) -> dict[str, Any]:
    """Nothing when it cannot be read: one bad row must not hide the others."""
    try:
        return dict(json.loads(column))
    except (TypeError, ValueError):
        return {}


def _add_held(memory: Memory, tx: Transaction, sessions: dict[int, Registered]) -> None:
    if not sessions:
        return
    task = schema.task
    seq, since_us = task.c.session_seq, task.c.lease_time_us
    place = func.row_number().over(partition_by=seq, order_by=(since_us, task.c.seq)).label("place")
    many = func.count().over(partition_by=seq).label("many")
    held = (
        select(seq, task.c.task_id, task.c.attempt, task.c.route_id, since_us, place, many)
        .where(schema.IS_RUNNING, tx.sql.among(seq, list(sessions)))
        .subquery("held")
    )
    first = select(held).where(held.c.place <= MOST_HELD_SHOWN).order_by(held.c.session_seq, held.c.place)
    for row in tx.connection.execute(first).all():
        name = memory.route(tx.connection, row.route_id).name
        session = sessions[row.session_seq]
        session.held.append(Held(row.session_seq, row.task_id, row.attempt, name, row.lease_time_us or 0))
        session.many_held = row.many


# ── capabilities ─────────────────────────────────────────────────────────────────────────────────────────────────────


def capabilities(memory: Memory, tx: Transaction, pages: list[Page]) -> list[list[Supply]]:
    """Names in the order of their characters: those that tasks have had, that processors have, and that are paused."""
    return [_capabilities(memory, tx, page) for page in pages]


def _capabilities(memory: Memory, tx: Transaction, page: Page) -> list[Supply]:
    session, pause = schema.session, schema.pause
    columns = session.c.session_seq, session.c.capabilities, session.c.max_in_flight, session.c.drain_time_us
    living = tx.connection.execute(select(*columns).where(schema.IS_ALIVE)).all()
    pauses = {row.name: Pause(*row) for row in tx.connection.execute(select(*pause.c))}
    able = {row.session_seq: object_of(row.capabilities) for row in living}
    names = set(tx.connection.execute(select(schema.route.c.name).distinct()).scalars())
    names.update(pauses, *able.values())
    some = sorted(name for name in names if name > page.after)[: page.at_most]
    found = {name: Supply(name, pause=pauses.get(name)) for name in some}
    _add_waiting(tx, found)
    running = running_of(memory, tx, list(able))
    for held in running.values():
        for name in held.keys() & found.keys():
            found[name].running += held[name]
    for row in living:
        if row.drain_time_us is None:
            held = running.get(row.session_seq, Counter())
            _add_processor(found, able[row.session_seq], row.max_in_flight, held)
    return list(found.values())


def _add_waiting(tx: Transaction, found: dict[str, Supply]) -> None:
    if not found:
        return
    for name, first_us, due, later in tx.connection.execute(_WAITING, {"now": tx.now_us, "names": list(found)}):
        one = found[name]
        one.due, one.later = min(one.due + due, MOST_COUNTED), min(one.later + later, MOST_COUNTED)
        if first_us is not None:
            one.first_due_us = first_us if one.first_due_us is None else min(one.first_due_us, first_us)


def running_of(memory: Memory, tx: Transaction, session_seqs: list[int]) -> dict[int, Counter[str]]:
    """How many tasks of each name each session holds."""
    task = schema.task
    where = schema.IS_RUNNING, tx.sql.among(task.c.session_seq, session_seqs)
    some = select(task.c.session_seq, task.c.route_id).where(*where).limit(MOST_RUNNING_COUNTED).subquery("running")
    counted = select(some.c.session_seq, some.c.route_id, func.count()).group_by(some.c.session_seq, some.c.route_id)
    running: dict[int, Counter[str]] = {}
    for session_seq, route_id, many in tx.connection.execute(counted).all():
        running.setdefault(session_seq, Counter())[memory.route(tx.connection, route_id).name] += many
    return running


def _add_processor(found: dict[str, Supply], limits: dict[str, int], max_in_flight: int, held: Counter[str]) -> None:
    free = max_in_flight - held.total()
    for name in limits.keys() & found.keys():
        found[name].processors += 1
        found[name].free += max(0, min(free, (limits[name] or max_in_flight) - held[name]))
