"""Sessions in the database: who lives, until when, and which server pushes to it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, TextClause, case, exists, select, true, update

from taskq_server.core.event import Topic
from taskq_server.core.task import Payload, Progress
from taskq_server.store import rows, schema
from taskq_server.store.few import MOST_AT_ONCE, few
from taskq_server.store.many import Many
from taskq_server.store.memory import Memory
from taskq_server.store.sql import NewSignal, SignalKind
from taskq_server.store.transaction import Transaction
from taskq_server.task_id import to_text

LONGEST_LEASE_US = 3_600_000_000
"""As the settings allow."""

_SAVE_PROGRESS = Many(
    schema.task,
    "UPDATE task SET progress_fraction = {progress_fraction}, progress_message = {progress_message} {from rows} "
    "WHERE task.task_id = {task_id} AND task.state + 0 = 2 AND task.attempt = {attempt} "
    "AND task.session_seq = {session_seq}",
)
_SAVE_CHECKPOINT = Many(
    schema.task,
    "UPDATE task SET checkpoint = {checkpoint}, checkpoint_type = {checkpoint_type}, "
    "checkpoint_metadata = {checkpoint_metadata} {from rows} "
    "WHERE task.task_id = {task_id} AND task.state + 0 = 2 AND task.attempt = {attempt} "
    "AND task.session_seq = {session_seq}",
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
    lease_duration_us: int
    """How long it lives without a heartbeat."""
    principal: str = ""
    """Whose it is; empty where everybody may call."""


@dataclass(slots=True)
class StoredSession:
    """A session that lives, and what it holds."""

    session_seq: int
    session: NewSession
    alive_until_us: int
    server_seq: int
    """The server that may push to it; 0 for none, as after a copy."""
    server_lives: bool = False
    """Whether that one has been heard of lately; it may be this one."""
    held: list[Held] = field(default_factory=list)
    drain_reason: str | None = None
    """Why an administrator drains it; None when nobody does."""


@dataclass(frozen=True, slots=True)
class Held:
    """An attempt that a session holds."""

    session_seq: int
    task_id: bytes
    attempt: int
    name: str
    lease_time_us: int = 0


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign of life of a session, which lives on for so long."""

    session_seq: int
    lease_duration_us: int


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a running attempt has come."""

    session_seq: int
    task_id: bytes
    attempt: int
    progress: Progress | None
    checkpoint: Payload | None


def register(tx: Transaction, sessions: list[NewSession]) -> list[int]:
    """Opens sessions; answers their numbers, which are never used again."""
    tx.hint(Topic.PROCESSORS, (to_text(new.session_id) for new in sessions))
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
        alive_until_us=tx.now_us + new.lease_duration_us,
        server_seq=tx.server_seq,
        principal=new.principal,
    )
    return int(tx.connection.execute(insert.returning(schema.session.c.session_seq)).scalar_one())


def keep_alive(tx: Transaction, signs: list[Sign]) -> list[int | None]:
    """Lets sessions live on; answers which server may push to each, None for one that has ended. One that is late lives
    on if nobody has ended it yet."""
    until_us: dict[int, int] = {}
    for sign in signs:
        until_us[sign.session_seq] = max(until_us.get(sign.session_seq, 0), tx.now_us + sign.lease_duration_us)
    servers: dict[int, int] = {}
    for some in few(sorted(until_us)):
        servers |= _renew(tx, {session_seq: until_us[session_seq] for session_seq in some})
    return [servers.get(sign.session_seq) for sign in signs]


def _renew(tx: Transaction, until_us: dict[int, int]) -> dict[int, int]:
    """Which server may push to each of these that lives."""
    table = schema.session
    heard = select(table.c.session_seq).where(tx.sql.among(table.c.session_seq, until_us), schema.IS_ALIVE)
    in_order = heard.order_by(table.c.session_seq).with_for_update(key_share=True)
    until = tx.sql.value_of(table.c.session_seq, until_us)
    later = case((table.c.alive_until_us > until, table.c.alive_until_us), else_=until)
    renew = update(table).where(table.c.session_seq.in_(in_order)).values(alive_until_us=later)
    renewed = tx.connection.execute(renew.returning(table.c.session_seq, table.c.server_seq))
    return {row.session_seq: row.server_seq for row in renewed}


def save_progress(tx: Transaction, advances: list[Advance]) -> list[None]:
    """Keeps what running attempts say of themselves; what a lost attempt says is dropped."""
    tx.sql.read_to_end(tx, "seq", [item.task_id for item in advances])
    _SAVE_PROGRESS.run(
        tx.connection,
        [
            (item.progress.fraction, item.progress.message, item.task_id, item.attempt, item.session_seq)
            for item in advances
            if item.progress is not None
        ],
    )
    _SAVE_CHECKPOINT.run(
        tx.connection,
        [
            (*rows.payload_columns(item.checkpoint), item.task_id, item.attempt, item.session_seq)
            for item in advances
            if item.checkpoint is not None
        ],
    )
    return [None] * len(advances)


def drain(tx: Transaction, session_seqs: list[int]) -> list[None]:
    """Lets the servers that push to sessions know that these take nothing more."""
    tx.sql.tell(tx, [NewSignal(session_seq, SignalKind.DRAINING) for session_seq in session_seqs])
    return [None] * len(session_seqs)


@dataclass(frozen=True, slots=True)
class Grace:
    """How long sessions are spared, after this server could not have heard them: its own, and those of servers that
    are gone; or `everybody`'s, when it was the database that was away."""

    duration_us: int
    everybody: bool = False


def spare(tx: Transaction, graces: list[Grace]) -> list[None]:
    """Lets sessions live for so long. So do those that would live longer than a lease can last: the clock was wrong
    when they were heard."""
    table, server = schema.session, schema.server
    for grace in graces:
        until_us = tx.now_us + grace.duration_us
        wrong = (table.c.alive_until_us < until_us) | (table.c.alive_until_us > until_us + LONGEST_LEASE_US)
        other_lives = exists().where(server.c.server_seq == table.c.server_seq, server.c.alive_until_us > tx.now_us)
        whose = true() if grace.everybody else (table.c.server_seq == tx.server_seq) | ~other_lives
        spared = select(table.c.session_seq).where(schema.IS_ALIVE, wrong, whose)
        in_order = spared.order_by(table.c.session_seq).with_for_update(key_share=True)
        tx.connection.execute(update(table).where(table.c.session_seq.in_(in_order)).values(alive_until_us=until_us))
    return [None] * len(graces)


def find(memory: Memory, tx: Transaction, session_ids: list[bytes]) -> list[StoredSession | None]:
    """Sessions that live, and what they hold; None for one that has ended, or cannot be read."""
    table, server = schema.session, schema.server
    lives = exists().where(server.c.server_seq == table.c.server_seq, server.c.alive_until_us > tx.now_us)
    known = select(table, lives.label("server_lives")).where(
        tx.sql.among(table.c.session_id, session_ids), schema.LIVES
    )
    asked = select(table.c.session_seq).where(tx.sql.among(table.c.session_id, session_ids), schema.LIVES)
    seqs = tx.connection.execute(asked).scalars().all()
    # What is held first: of a session that ends meanwhile it must not look as if it lived and held nothing.
    held = (
        held_by(memory, tx.connection, schema.IS_RUNNING, tx.sql.among(schema.task.c.session_seq, seqs)) if seqs else []
    )
    found = tx.connection.execute(known).all()
    stored = {row.session_id: session for row in found if (session := _stored(row)) is not None}
    by_seq = {session.session_seq: session for session in stored.values()}
    for one in held:
        if one.session_seq in by_seq:
            by_seq[one.session_seq].held.append(one)
    return [stored.get(session_id) for session_id in session_ids]


def take_over(memory: Memory, tx: Transaction, session_ids: list[bytes]) -> list[StoredSession | None]:
    """Lets this server push to sessions, and the servers that did so until now know; answers as `find`."""
    table = schema.session
    known = select(table.c.session_seq).where(tx.sql.among(table.c.session_id, session_ids), schema.LIVES)
    # Whoever leases to them now has finished before, or finds that they have moved.
    seqs = list(tx.connection.execute(known.order_by(table.c.session_seq).with_for_update()).scalars())
    tx.sql.tell(tx, [NewSignal(session_seq, SignalKind.MOVED) for session_seq in seqs])
    mine = update(table).where(tx.sql.among(table.c.session_seq, seqs)).values(server_seq=tx.server_seq)
    tx.connection.execute(mine)
    tx.hint(Topic.PROCESSORS, map(to_text, session_ids))
    return find(memory, tx, session_ids)


def held_here(memory: Memory, tx: Transaction, nothing: list[None]) -> list[list[Held]]:
    """What the sessions hold to which this server pushes, once all that was being leased to them has been or never
    will be, also where it is not known which."""
    session, task = schema.session, schema.task
    mine = select(session.c.session_seq).where(schema.IS_ALIVE, session.c.server_seq == tx.server_seq)
    seqs = list(tx.connection.execute(mine.order_by(session.c.session_seq).with_for_update()).scalars())
    held = held_by(memory, tx.connection, schema.IS_RUNNING, tx.sql.among(task.c.session_seq, seqs)) if seqs else []
    return [held] * len(nothing)


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
        0,
        row.principal,
    )
    stored = StoredSession(row.session_seq, session, row.alive_until_us, row.server_seq, bool(row.server_lives))
    if row.drain_time_us is not None:
        stored.drain_reason = row.drain_reason or ""
    return stored


def held_by(
    memory: Memory, connection: Connection, *where: ColumnElement[bool] | TextClause, lock: bool = False
) -> list[Held]:
    """What is held; with `lock`, the first that have run out of time and that nobody else is at."""
    task = schema.task
    query = select(task.c.session_seq, task.c.task_id, task.c.attempt, task.c.route_id, task.c.lease_time_us)
    query = query.where(*where)
    if lock:
        query = (
            query.order_by(task.c.run_deadline_us).limit(MOST_AT_ONCE).with_for_update(key_share=True, skip_locked=True)
        )
    found = connection.execute(query).all()
    return [Held(row[0], row[1], row[2], memory.route(connection, row[3]).name, row[4] or 0) for row in found]
