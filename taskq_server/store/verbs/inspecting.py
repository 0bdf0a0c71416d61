"""One task with its past, and what keeps it from running."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, func, literal_column, select

from taskq_server.core.explaining import Able, Facts, KeyHold
from taskq_server.core.history import Attempt, History
from taskq_server.core.task import DedupHold, Outcome, Task, TaskState
from taskq_server.store import rows, schema
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.asking import learn_routes
from taskq_server.store.verbs.listing import object_of, running_of
from taskq_server.task_id import to_text

FIRST_ATTEMPTS, LAST_ATTEMPTS = 100, 900
MOST_RERUNS = 100
MOST_AHEAD = 1_000
MOST_ROUTES = 512
"""Of those that want the same processors."""

_COLUMNS = [schema.task.c[name] for name in rows.TASK_COLUMNS]
_MORE = (
    "seq",
    "session_seq",
    "last_outcome",
    "rerun_of",
    "schedule_seq",
    "nominal_us",
    "dedup_key",
    "prune_time_us",
    "run_deadline_us",
    "payload_crc",
)


def _read(memory: Memory, tx: Transaction, task_id: bytes) -> tuple[Task, Row[Any]] | None:
    columns = (*_COLUMNS, *(schema.task.c[name] for name in _MORE))
    row = tx.connection.execute(select(*columns).where(schema.task.c.task_id == task_id)).first()
    if row is None:
        return None
    route = memory.route(tx.connection, row.route_id)
    return rows.task_of(row[: len(_COLUMNS)], route), row


# ── what happened ────────────────────────────────────────────────────────────────────────────────────────────────────


def histories(memory: Memory, tx: Transaction, task_ids: list[bytes]) -> list[History | None]:
    """Tasks with all that they carry, and their past; None for one that does not exist."""
    return [_history(memory, tx, task_id) for task_id in task_ids]


def _history(memory: Memory, tx: Transaction, task_id: bytes) -> History | None:
    if (found := _read(memory, tx, task_id)) is None:
        return None
    task, row = found
    runs = task.state is TaskState.RUNNING
    return History(
        task,
        _attempts(tx, task, row),
        row.rerun_of,
        _reruns(tx, task_id),
        _schedule_name(tx, row.schedule_seq),
        row.nominal_us,
        row.dedup_key or "",
        row.prune_time_us,
        row.run_deadline_us if runs else None,
    )


class _Kept(NamedTuple):
    attempt: int
    session_seq: int
    processor_name: str
    lease_time_us: int
    end_time_us: int | None
    outcome: int | None
    failure: str | None


def _attempts(tx: Transaction, task: Task, row: Row[Any]) -> list[Attempt]:
    """Those after which it went on, and the last one, which stands in the task itself."""
    table = schema.attempt
    columns = (table.c[name] for name in _Kept._fields)
    of_task = select(*columns).where(table.c.task_seq == row.seq)
    most = FIRST_ATTEMPTS + LAST_ATTEMPTS
    kept = [_Kept(*one) for one in tx.connection.execute(of_task.order_by(table.c.attempt).limit(most))]
    if len(kept) == most:
        last = of_task.where(table.c.attempt > kept[FIRST_ATTEMPTS - 1].attempt).order_by(table.c.attempt.desc())
        end = [_Kept(*one) for one in tx.connection.execute(last.limit(LAST_ATTEMPTS - 1))]
        kept = [*kept[:FIRST_ATTEMPTS], *reversed(end)]
    if task.state is TaskState.RUNNING or row.last_outcome is not None:
        kept.append(_last(task, row))
    session = schema.session
    seqs = sorted({one.session_seq for one in kept if one.session_seq is not None})
    named = select(session.c.session_seq, session.c.session_id).where(tx.sql.among(session.c.session_seq, seqs))
    ids = {found.session_seq: found.session_id for found in tx.connection.execute(named)}
    return [
        Attempt(
            one.attempt,
            ids.get(one.session_seq),
            one.processor_name or "",
            one.lease_time_us or 0,
            one.end_time_us,
            None if one.outcome is None else Outcome(one.outcome),
            rows.legible_failure(one.failure),
        )
        for one in kept
    ]


_FAILED = {Outcome.FAILED, Outcome.LOST, Outcome.TIMED_OUT}


def _last(task: Task, row: Row[Any]) -> _Kept:
    outcome = None if task.state is TaskState.RUNNING else row.last_outcome
    failure = row.last_failure if outcome in _FAILED else None
    end_us = None if task.state is TaskState.RUNNING else task.finish_time_us
    return _Kept(task.attempt, row.session_seq, task.processor_name, task.lease_time_us or 0, end_us, outcome, failure)


def _reruns(tx: Transaction, task_id: bytes) -> list[bytes]:
    task = schema.task
    made = select(task.c.task_id).where(schema.IS_RERUN, task.c.rerun_of == task_id)
    found = tx.connection.execute(made.order_by(task.c.seq.desc()).limit(MOST_RERUNS)).scalars()
    return list(found)[::-1]


def _schedule_name(tx: Transaction, schedule_seq: int | None) -> str:
    if schedule_seq is None:
        return ""
    schedule = schema.schedule
    named = select(schedule.c.name).where(schedule.c.schedule_seq == schedule_seq)
    return tx.connection.execute(named).scalar() or ""


# ── what keeps it ────────────────────────────────────────────────────────────────────────────────────────────────────


def facts(memory: Memory, tx: Transaction, task_ids: list[bytes]) -> list[Facts | None]:
    """What keeps tasks from running, as far as the database knows; None for one that does not exist."""
    return [_facts(memory, tx, task_id) for task_id in task_ids]


def _facts(memory: Memory, tx: Transaction, task_id: bytes) -> Facts | None:
    if (found := _read(memory, tx, task_id)) is None:
        return None
    task, row = found
    known = Facts(tx.now_us, task, run_deadline_us=row.run_deadline_us, key_hold=_key_hold(tx, task, row.dedup_key))
    if task.state is not TaskState.SCHEDULED:
        return known
    known.is_corrupt = rows.crc_of(row.payload) != row.payload_crc
    pause = schema.pause
    paused = tx.connection.execute(select(pause).where(pause.c.name == task.route.name)).first()
    if paused is not None:
        known.paused_us, known.pause_note = paused.pause_time_us, paused.reason
    living = _living(tx)
    known.known = sorted({name for one in living for name in one.capabilities})
    _add_able(memory, tx, known, living)
    if task.due_time_us <= tx.now_us:
        _add_ahead(memory, tx, known, row.seq, living)
    return known


def _key_hold(tx: Transaction, task: Task, key: str | None) -> KeyHold | None:
    """By itself in whatever scope; by another in that of the task's name: which it had, its own hold alone tells."""
    if key is None:
        return None
    dedup, holder = schema.dedup, schema.task.alias("holder")
    held = select(dedup, holder.c.state).join_from(dedup, holder, holder.c.task_id == dedup.c.task_id, isouter=True)
    by_itself = tx.connection.execute(held.where(dedup.c.task_id == task.task_id)).first()
    row = by_itself or tx.connection.execute(held.where(dedup.c.scope == task.route.name, dedup.c.key == key)).first()
    if row is None:
        return None
    state = None if row.state is None else TaskState(row.state)
    until_us = row.hold_until_us if row.hold_until_us is not None and row.hold_until_us > tx.now_us else None
    until_finished = state is not None and not state.finished and row.hold != DedupHold.TTL
    if until_us is None and not until_finished:
        return None
    return KeyHold(row.key, row.scope, to_text(row.task_id), by_itself is not None, state, until_us, until_finished)


class _Living(NamedTuple):
    session_seq: int
    processor_name: str
    capabilities: dict[str, int]
    labels: dict[str, str]
    max_in_flight: int
    is_drained: bool
    server_seq: int
    server_lives: bool


def _living(tx: Transaction) -> list[_Living]:
    session, server = schema.session, schema.server
    found = select(
        session.c.session_seq,
        session.c.processor_name,
        session.c.capabilities,
        session.c.labels,
        session.c.max_in_flight,
        session.c.drain_time_us,
        session.c.server_seq,
        server.c.alive_until_us,
    ).join_from(session, server, server.c.server_seq == session.c.server_seq, isouter=True)
    return [
        _Living(
            row.session_seq,
            row.processor_name,
            object_of(row.capabilities),
            object_of(row.labels),
            row.max_in_flight,
            row.drain_time_us is not None,
            row.server_seq,
            row.alive_until_us is not None and row.alive_until_us > tx.now_us,
        )
        for row in tx.connection.execute(found.where(schema.IS_ALIVE).order_by(session.c.session_seq))
    ]


def _add_able(memory: Memory, tx: Transaction, known: Facts, living: list[_Living]) -> None:
    name = known.task.route.name
    able = [one for one in living if name in one.capabilities]
    held = running_of(memory, tx, [one.session_seq for one in able]) if able else {}
    for one in able:
        mine = held.get(one.session_seq, Counter())
        limit = min(one.capabilities[name] or one.max_in_flight, one.max_in_flight)
        free = max(0, min(one.max_in_flight - mine.total(), limit - mine[name]))
        known.able.append(
            Able(
                one.session_seq,
                one.processor_name,
                one.labels,
                limit,
                free,
                one.is_drained,
                server_seq=one.server_seq,
                server_lives=one.server_lives,
            )
        )


def _add_ahead(memory: Memory, tx: Transaction, known: Facts, seq: int, living: list[_Living]) -> None:
    """How many come before it of what those who may run it may run, too; of very many routes not all are looked at."""
    task, table = known.task, schema.task
    learn_routes(memory, tx)
    mine = [one for one in living if task.route.open_to(one.capabilities, one.labels) and not one.is_drained]
    paused = set(tx.connection.execute(select(schema.pause.c.name)).scalars())
    rivals = [
        route_id
        for route_id, route in memory.routes.items()
        if route.name not in paused and any(route.open_to(one.capabilities, one.labels) for one in mine)
    ]
    if not rivals:
        return
    known.ahead_is_partial = len(rivals) > MOST_ROUTES
    rivals.sort(key=lambda route_id: memory.routes[route_id] != task.route)  # its own is not left out
    where = schema.IS_SCHEDULED, tx.sql.among(table.c.route_id, rivals[:MOST_ROUTES])
    earlier = (table.c.due_time_us < task.due_time_us) | (table.c.seq < seq)
    higher = tx.sql.among(table.c.priority, list(range(task.priority + 1, 10)))
    for conditions in (
        (higher, table.c.due_time_us <= tx.now_us),
        (table.c.priority == task.priority, table.c.due_time_us <= task.due_time_us, earlier),
    ):
        left = MOST_AHEAD - known.ahead
        some: Select[Any] = select(literal_column("1")).select_from(table).where(*where, *conditions).limit(left + 1)
        found = tx.connection.execute(select(func.count()).select_from(some.subquery("some"))).scalar_one()
        known.ahead += min(found, left)
        known.ahead_is_partial = known.ahead_is_partial or found > left
