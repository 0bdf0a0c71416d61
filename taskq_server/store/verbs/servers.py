"""The servers on one database: who lives, and what they leave for each other to hear."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Insert, Text, cast, delete, null, select, union_all, update

from taskq_server.store import schema
from taskq_server.store.sql import SignalKind
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs import events
from taskq_server.store.verbs.schedules import FIRST_DUE_AND_WAITS, ToFire

_WHAT_IS_SAID = union_all(
    select(schema.pause.c.name.label("name"), cast(null(), BigInteger), cast(null(), BigInteger), cast(null(), Text)),
    select(cast(null(), Text), *FIRST_DUE_AND_WAITS, events.READ_WATCHED.scalar_subquery()),
)
"""One question, since it is asked each second by a server that has nothing to do."""
LONGEST_SERVER_LEASE_US = 15_000_000


def server_lease_us(session_lease_us: int) -> int:
    """For how long a server that has not renewed its row is taken for living: half as long as its sessions, so that
    they are spared when it was killed and started again."""
    return min(LONGEST_SERVER_LEASE_US, session_lease_us // 2)


@dataclass(frozen=True, slots=True)
class Presence:
    """A server that says it lives, and for how long that holds."""

    name: str
    lease_us: int


@dataclass(frozen=True, slots=True)
class Signal:
    """What another server has left for this one."""

    signal_seq: int
    session_seq: int
    kind: SignalKind
    task_id: bytes | None
    attempt: int | None


@dataclass(frozen=True, slots=True)
class Renewed:
    """What a server learns when it renews its row."""

    lapsed: bool
    """The others took it for dead: what they had left for it may be gone."""
    others: int
    """How many other servers live."""


@dataclass(slots=True)
class News:
    """What a look around has found."""

    signals: list[Signal]
    earliest_us: int | None
    """The earliest due time that was not known before."""
    resumed: bool = False
    """Something is no longer paused."""
    to_fire: ToFire = ToFire(None, False)  # noqa: RUF009 - never changes
    """What there is to do for whoever fires schedules."""
    watched_until_us: int = 0
    """Somebody watches what changes, on some server, until then."""


Version = tuple[int, int, int, int | None]
"""State, attempt, due time and finish time of a task: whenever somebody who watches it would see a change, one of them
has changed."""


def arrive(tx: Transaction, presences: list[Presence]) -> list[int]:
    """Gives servers their numbers, which are never used again."""
    new = [_row(tx, presence).returning(schema.server.c.server_seq) for presence in presences]
    return [int(tx.connection.execute(insert).scalar_one()) for insert in new]


def _row(tx: Transaction, presence: Presence, **values: int) -> Insert:
    times = {"start_time_us": tx.now_us, "alive_until_us": tx.now_us + presence.lease_us}
    return schema.server.insert().values(name=presence.name, **times, **values)


def renew(tx: Transaction, presences: list[Presence]) -> list[Renewed]:
    """Lets this server live on, and forgets what was left for those that are dead."""
    table, signal = schema.server, schema.signal
    alive = update(table).where(table.c.server_seq == tx.server_seq, table.c.alive_until_us > tx.now_us)
    until_us = tx.now_us + presences[0].lease_us
    lapsed = not tx.connection.execute(alive.values(alive_until_us=until_us)).rowcount
    living = select(table.c.server_seq).where(table.c.alive_until_us > tx.now_us)
    others = tx.connection.execute(living.where(table.c.server_seq != tx.server_seq)).all()
    if lapsed:
        tx.connection.execute(delete(table).where(table.c.server_seq == tx.server_seq))
        tx.connection.execute(_row(tx, presences[0], server_seq=tx.server_seq))
    dead = select(table.c.server_seq).where(table.c.alive_until_us <= tx.now_us).with_for_update(skip_locked=True)
    tx.connection.execute(delete(table).where(table.c.server_seq.in_(dead)))
    for_nobody = select(signal.c.signal_seq).where(signal.c.server_seq.not_in(select(table.c.server_seq)))
    unheard = for_nobody.with_for_update(skip_locked=True)
    tx.connection.execute(delete(signal).where(signal.c.signal_seq.in_(unheard)))
    return [Renewed(lapsed, len(others))] * len(presences)


def leave(tx: Transaction, nothing: list[None]) -> list[None]:
    """This server is gone."""
    tx.connection.execute(delete(schema.server).where(schema.server.c.server_seq == tx.server_seq))
    tx.connection.execute(delete(schema.signal).where(schema.signal.c.server_seq == tx.server_seq))
    return nothing


def signals(tx: Transaction, nothing: list[None]) -> list[list[Signal]]:
    """What was left for this server, in the order in which it happened."""
    table = schema.signal
    left = select(table.c.signal_seq, table.c.session_seq, table.c.kind, table.c.task_id, table.c.attempt)
    known = table.c.kind.in_(list(SignalKind))  # a server of the next version may say more
    mine = left.where(table.c.server_seq == tx.server_seq, known).order_by(table.c.signal_seq)
    found = [
        Signal(row.signal_seq, row.session_seq, SignalKind(row.kind), row.task_id, row.attempt)
        for row in tx.connection.execute(mine)
    ]
    return [found] * len(nothing)


def what_is_said(tx: Transaction) -> tuple[frozenset[str], ToFire, int]:
    """The names that are paused, what there is to fire, and until when somebody watches."""
    found = tx.connection.execute(_WHAT_IS_SAID).all()
    names = frozenset(name for name, *_ in found if name is not None)
    ((due_us, waits, watched),) = [rest for name, *rest in found if name is None]
    return names, ToFire(due_us, waits is not None), events.watched_until_us(watched)


def heard(tx: Transaction, signal_seqs: list[int]) -> list[None]:
    """These need not be said again."""
    table = schema.signal
    tx.connection.execute(delete(table).where(tx.sql.among(table.c.signal_seq, signal_seqs)))
    return [None] * len(signal_seqs)


def versions(tx: Transaction, task_ids: list[bytes]) -> list[Version | None]:
    """How far tasks have come; None for one that does not exist."""
    task = schema.task
    columns = task.c.task_id, task.c.state, task.c.attempt, task.c.due_time_us, task.c.finish_time_us
    found = tx.connection.execute(select(*columns).where(tx.sql.among(task.c.task_id, task_ids)))
    by_id: dict[bytes, Version] = {row[0]: (row[1], row[2], row[3], row[4]) for row in found}
    return [by_id.get(task_id) for task_id in task_ids]
