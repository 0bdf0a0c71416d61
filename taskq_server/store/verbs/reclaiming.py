"""What sessions leave behind that end, and attempts that run too long: their tasks go on elsewhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from sqlalchemy import func, select, update

from taskq_server.core.event import Topic
from taskq_server.core.task import PROCESSOR_LOST, RUN_TIMEOUT, Ended, Ending, Failure, Outcome
from taskq_server.store import schema
from taskq_server.store.memory import Memory
from taskq_server.store.sql import NewSignal, SignalKind
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs import reading
from taskq_server.store.verbs.auditing import Audit
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.ending import end, expire
from taskq_server.store.verbs.living import Held, held_by
from taskq_server.task_id import to_text

SLOW_US = 1_000_000
MOST_SESSIONS_PER_RECLAIM = 10
"""Each may hold thousands of tasks, and all that a transaction ends keeps everybody else waiting."""


@dataclass(slots=True)
class Reclaimed:
    """What was taken back, and when to look again (None: when there is something new)."""

    dead: list[int]
    """Sessions that ended."""
    timed_out: list[Held]
    """Attempts of living sessions that ran too long."""
    next_us: int | None


def unregister(memory: Memory, rules: Rules, tx: Transaction, session_seqs: list[int]) -> list[None]:
    """Ends sessions that say goodbye; what they hold is released."""
    _end_sessions(memory, rules, tx, session_seqs, Outcome.RELEASED)
    return [None] * len(session_seqs)


def disconnect(memory: Memory, rules: Rules, tx: Transaction, session_seqs: list[int]) -> list[int]:
    """Ends sessions by the will of an administrator; answers how many tasks each held. They are released: neither they
    nor their processors are to blame."""
    table = schema.session
    known = select(table.c.session_seq, table.c.session_id, table.c.processor_name)
    living = known.where(tx.sql.among(table.c.session_seq, session_seqs), schema.IS_ALIVE).with_for_update()
    alive = {row.session_seq: row for row in tx.connection.execute(living.order_by(table.c.session_seq))}
    held = _end_sessions(memory, rules, tx, session_seqs, Outcome.RELEASED, (SignalKind.DISCONNECTED, SignalKind.ENDED))
    by_session = Counter(one.session_seq for one in held)
    audit = Audit(tx)
    for i, session_seq in enumerate(session_seqs):
        if (row := alive.pop(session_seq, None)) is not None:
            before = {"processor_name": row.processor_name, "held_tasks": by_session[session_seq]}
            audit.note(i, "processor", to_text(row.session_id), before, None)
    audit.write()
    return [by_session.pop(session_seq, 0) for session_seq in session_seqs]


def reclaim(memory: Memory, rules: Rules, tx: Transaction, asked_us: list[int]) -> list[Reclaimed]:
    """Ends the sessions that were not heard in time and the attempts that ran too long.

    In time means by the moment at which this was asked for. If it had to wait for the disk, so had the heartbeats, some
    of them longer than their callers did: then no session ends, and it is for the next time to say.
    """
    dead: list[int] = []
    timed_out: list[Held] = []
    next_us = _next_end(tx)
    if next_us is not None and next_us <= tx.now_us:
        had_to_wait = tx.now_us - min(asked_us) > SLOW_US
        dead = [] if had_to_wait else _late(tx, min(asked_us))
        _end_sessions(memory, rules, tx, dead, Outcome.LOST)
        is_over = schema.task.c.run_deadline_us <= tx.now_us
        timed_out = held_by(memory, tx.connection, schema.IS_TIMED, is_over, lock=True)
        failure = Failure(RUN_TIMEOUT, "ran longer than its run_timeout", "", 0, tx.now_us)
        _end_held(memory, rules, tx, timed_out, Outcome.TIMED_OUT, failure)
        next_us = _next_end(tx)
    # Whatever is known here: another server may have scheduled what is too late.
    soon = next_us, expire(memory, rules, tx)
    return [Reclaimed(dead, timed_out, min((at for at in soon if at is not None), default=None))] * len(asked_us)


def _next_end(tx: Transaction) -> int | None:
    """When the first session ends that is not heard again, or the first attempt that is not reported."""
    first_dead = select(func.min(schema.session.c.alive_until_us)).where(schema.IS_ALIVE).scalar_subquery()
    first_timeout = reading.first(schema.task.c.run_deadline_us, schema.IS_TIMED).scalar_subquery()
    soon = tx.connection.execute(select(first_dead, first_timeout)).one()
    return min((at for at in soon if at is not None), default=None)


def _late(tx: Transaction, asked_us: int) -> list[int]:
    session = schema.session
    late = (
        select(session.c.session_seq)
        .where(schema.IS_ALIVE, session.c.alive_until_us <= asked_us)
        .order_by(session.c.session_seq)
        .limit(MOST_SESSIONS_PER_RECLAIM)
        .with_for_update(skip_locked=True)
    )
    return list(tx.connection.execute(late).scalars())


def _end_sessions(
    memory: Memory,
    rules: Rules,
    tx: Transaction,
    seqs: list[int],
    outcome: Outcome,
    told: tuple[SignalKind, ...] = (SignalKind.ENDED,),
) -> list[Held]:
    """Answers what they held."""
    if not seqs:
        return []
    table, task, among = schema.session, schema.task, tx.sql.among
    alive = select(table.c.session_seq, table.c.session_id).where(among(table.c.session_seq, seqs), schema.IS_ALIVE)
    # Whoever leases to them now has finished before, or finds that they have ended.
    found = tx.connection.execute(alive.order_by(table.c.session_seq).with_for_update()).all()
    seqs = [session_seq for session_seq, _ in found]
    tx.hint(Topic.PROCESSORS, (to_text(session_id) for _, session_id in found))
    tx.connection.execute(update(table).where(among(table.c.session_seq, seqs)).values(end_time_us=tx.now_us))
    tx.sql.tell(tx, [NewSignal(session_seq, kind) for session_seq in seqs for kind in told])
    held = held_by(memory, tx.connection, schema.IS_RUNNING, among(task.c.session_seq, seqs))
    failure = Failure(PROCESSOR_LOST, "its processor was not heard of any more", "", 0, tx.now_us)
    _end_held(memory, rules, tx, held, outcome, failure if outcome is Outcome.LOST else None)
    return held


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
    return end(memory, rules, tx, endings) if endings else []
