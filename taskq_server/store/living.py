"""Sessions in the database: who lives, until when, and what the dead leave behind."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, TextClause, func, select, update

from taskq_server.core.task import (
    PROCESSOR_LOST,
    RUN_TIMEOUT,
    Ended,
    Ending,
    EndStatus,
    Failure,
    Outcome,
    Payload,
    Progress,
)
from taskq_server.store import rows, schema
from taskq_server.store.end_batch import MOST_AT_ONCE, Rules
from taskq_server.store.ending import end, expire
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction

SLOW_US = 1_000_000
LONGEST_LEASE_US = 3_600_000_000
"""As the settings allow."""

_SAVE_PROGRESS = (
    "UPDATE task SET progress_fraction = ?, progress_message = ? "
    "WHERE task_id = ? AND state = 2 AND attempt = ? AND session_seq = ?"
)
_SAVE_CHECKPOINT = (
    "UPDATE task SET checkpoint = ?, checkpoint_type = ?, checkpoint_metadata = ? "
    "WHERE task_id = ? AND state = 2 AND attempt = ? AND session_seq = ?"
)


@dataclass(slots=True)
class NewSession:
    """A processor that registers."""

    session_id: bytes
    processor_name: str
    capabilities: dict[str, int]
    """Name to the most in flight; 0 for no limit of its own."""
    labels: dict[str, str]
    max_in_flight: int
    build_id: str
    client: str
    alive_until_us: int


@dataclass(slots=True)
class StoredSession:
    """A session that lived when the server stopped, and what it held."""

    session_seq: int
    session: NewSession
    held: list[Held] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Held:
    """An attempt that a session holds."""

    session_seq: int
    task_id: bytes
    attempt: int
    name: str


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign of life of a session."""

    session_seq: int
    alive_until_us: int


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a running attempt has come."""

    session_seq: int
    task_id: bytes
    attempt: int
    progress: Progress | None
    checkpoint: Payload | None


@dataclass(slots=True)
class Reclaimed:
    """What was taken back, and when to look again (None: when there is something new)."""

    dead: list[int]
    """Sessions that ended."""
    timed_out: list[Held]
    """Attempts of living sessions that ran too long."""
    next_us: int | None


def register(tx: Transaction, sessions: list[NewSession]) -> list[int]:
    """Opens sessions; answers their numbers, which are never used again."""
    return [_register(tx, new) for new in sessions]


def _register(tx: Transaction, new: NewSession) -> int:
    insert = schema.session.insert().values(
        session_id=new.session_id,
        processor_name=new.processor_name,
        capabilities=rows.to_json(new.capabilities),
        labels=rows.to_json(new.labels),
        max_in_flight=new.max_in_flight,
        build_id=new.build_id,
        client=new.client,
        register_time_us=tx.now_us,
        alive_until_us=new.alive_until_us,
    )
    return int(tx.connection.execute(insert.returning(schema.session.c.session_seq)).scalar_one())


def keep_alive(tx: Transaction, signs: list[Sign]) -> list[bool]:
    """Lets sessions live on; False for one that has ended. One that is late lives on if nobody has ended it yet."""
    renew = "UPDATE session SET alive_until_us = max(alive_until_us, ?) WHERE session_seq = ? AND end_time_us IS NULL"
    values = [(sign.alive_until_us, sign.session_seq) for sign in signs]
    if tx.connection.exec_driver_sql(renew, values).rowcount == len(signs):
        return [True] * len(signs)
    table = schema.session
    alive = select(table.c.session_seq).where(
        table.c.session_seq.in_([sign.session_seq for sign in signs]), schema.IS_ALIVE
    )
    living = set(tx.connection.execute(alive).scalars())
    return [sign.session_seq in living for sign in signs]


def save_progress(tx: Transaction, advances: list[Advance]) -> list[None]:
    """Keeps what running attempts say of themselves; what a lost attempt says is dropped."""
    progress = [
        (item.progress.fraction, item.progress.message, item.task_id, item.attempt, item.session_seq)
        for item in advances
        if item.progress is not None
    ]
    if progress:
        tx.connection.exec_driver_sql(_SAVE_PROGRESS, progress)
    checkpoints = [
        (*rows.payload_columns(item.checkpoint), item.task_id, item.attempt, item.session_seq)
        for item in advances
        if item.checkpoint is not None
    ]
    if checkpoints:
        tx.connection.exec_driver_sql(_SAVE_CHECKPOINT, checkpoints)
    return [None] * len(advances)


def unregister(memory: Memory, rules: Rules, tx: Transaction, session_seqs: list[int]) -> list[None]:
    """Ends sessions that say goodbye; what they hold is released."""
    _end_sessions(memory, rules, tx, session_seqs, Outcome.RELEASED)
    return [None] * len(session_seqs)


def spare(tx: Transaction, until_us: list[int]) -> list[None]:
    """Lets every session live until then: the server itself was away, and could not have heard them. So do those that
    would live longer than a lease can last: the clock was wrong when they were heard."""
    for time_us in until_us:
        table = schema.session
        never_us = time_us + LONGEST_LEASE_US
        wrong = (table.c.alive_until_us < time_us) | (table.c.alive_until_us > never_us)
        tx.connection.execute(update(table).where(schema.IS_ALIVE, wrong).values(alive_until_us=time_us))
    return [None] * len(until_us)


def reclaim(memory: Memory, rules: Rules, tx: Transaction, asked_us: list[int]) -> list[Reclaimed]:
    """Ends the sessions that were not heard in time and the attempts that ran too long.

    In time means by the moment at which this was asked for. If it had to wait for the disk, so had the heartbeats, some
    of them longer than their callers did: then no session ends, and it is for the next time to say.
    """
    session, task = schema.session, schema.task
    late = select(session.c.session_seq).where(schema.IS_ALIVE, session.c.alive_until_us <= min(asked_us))
    had_to_wait = tx.now_us - min(asked_us) > SLOW_US
    dead = [] if had_to_wait else list(tx.connection.execute(late).scalars())
    _end_sessions(memory, rules, tx, dead, Outcome.LOST)

    due = schema.IS_TIMED, task.c.run_deadline_us <= tx.now_us
    timed_out = _held(memory, tx.connection, *due)[:MOST_AT_ONCE]
    failure = Failure(RUN_TIMEOUT, "ran longer than its run_timeout", "", 0, tx.now_us)
    _end_held(memory, rules, tx, timed_out, Outcome.TIMED_OUT, failure)

    if memory.next_expiry_us is not None and memory.next_expiry_us <= tx.now_us:
        expire(memory, rules, tx)
    next_dead = tx.connection.execute(select(func.min(session.c.alive_until_us)).where(schema.IS_ALIVE)).scalar()
    next_timeout = tx.connection.execute(select(func.min(task.c.run_deadline_us)).where(schema.IS_TIMED)).scalar()
    next_us = min((at for at in (next_dead, next_timeout, memory.next_expiry_us) if at is not None), default=None)
    return [Reclaimed(dead, timed_out, next_us)] * len(asked_us)


def load(memory: Memory, tx: Transaction, nothing: list[None]) -> list[list[StoredSession]]:
    """The sessions that lived when the server stopped."""
    table = schema.session
    found = tx.connection.execute(select(table).where(schema.IS_ALIVE)).all()
    living = {row.session_seq: stored for row in found if (stored := _stored(row)) is not None}
    for held in _held(memory, tx.connection, schema.IS_RUNNING):
        if (stored := living.get(held.session_seq)) is not None:
            stored.held.append(held)
    return [list(living.values())] * len(nothing)


def _stored(row: Row[Any]) -> StoredSession | None:
    """None when it cannot be read: its processor is told to register again, and what it holds is reclaimed in time."""
    try:
        capabilities, labels = json.loads(row.capabilities), json.loads(row.labels)
    except ValueError:
        return None
    session = NewSession(
        row.session_id,
        row.processor_name,
        capabilities,
        labels,
        row.max_in_flight,
        row.build_id,
        row.client,
        row.alive_until_us,
    )
    return StoredSession(row.session_seq, session)


def _end_sessions(memory: Memory, rules: Rules, tx: Transaction, seqs: list[int], outcome: Outcome) -> None:
    if not seqs:
        return
    table, task = schema.session, schema.task
    over = update(table).where(table.c.session_seq.in_(seqs), schema.IS_ALIVE).values(end_time_us=tx.now_us)
    tx.connection.execute(over)
    held = _held(memory, tx.connection, schema.IS_RUNNING, task.c.session_seq.in_(seqs))
    failure = Failure(PROCESSOR_LOST, "its processor was not heard of any more", "", 0, tx.now_us)
    _end_held(memory, rules, tx, held, outcome, failure if outcome is Outcome.LOST else None)


def _held(memory: Memory, connection: Connection, *where: ColumnElement[bool] | TextClause) -> list[Held]:
    task = schema.task
    found = connection.execute(
        select(task.c.session_seq, task.c.task_id, task.c.attempt, task.c.route_id).where(*where)
    )
    return [Held(row[0], row[1], row[2], memory.routes[row[3]].name) for row in found]


def _end_held(
    memory: Memory, rules: Rules, tx: Transaction, held: list[Held], outcome: Outcome, failure: Failure | None
) -> list[Ended]:
    endings = [
        Ending(
            item.task_id,
            item.attempt,
            item.session_seq,
            outcome,
            failure=None if failure is None else replace(failure, attempt=item.attempt),
        )
        for item in held
    ]
    ended = end(memory, rules, tx, endings) if endings else []
    assert all(one.status is EndStatus.ACCEPTED for one in ended), "what was read as held in this transaction is held"
    return ended
