"""Firing by hand: a trigger, now, and a backfill of what is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, TypeVar

from sqlalchemy import select

from taskq_server.core.errors import Fault, InvalidFields, ScheduleNotFound, TaskExists, TaskqError
from taskq_server.core.recurring import Firing, FiringOutcome, Key, Schedule, firing_task_id
from taskq_server.core.schedule import Overlap, Recurrence
from taskq_server.store import schema
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.auditing import Audit, Facts, time_text
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.firing_round import Round, Standing, Stopped, count_unfinished, step
from taskq_server.store.verbs.scheduling import as_it_stands, lock
from taskq_server.task_id import to_text

MOST_BACKFILLED = 1_000

Answer = TypeVar("Answer")
Note = Callable[[str, str, Facts, Facts], None]
"""Writes down what has changed: kind and name of the thing, what was, and what is."""


class Trigger(NamedTuple):
    """A schedule to be fired now, as what task, and by which policy; None: by its own."""

    key: Key
    task_id: bytes
    overlap: Overlap | None = None


@dataclass(slots=True)
class Triggered:
    """What became of it."""

    outcome: FiringOutcome
    nominal_us: int
    task_id: bytes
    schedule: Schedule
    stopped: list[Stopped] = field(default_factory=list)


def trigger(memory: Memory, rules: Rules, tx: Transaction, triggers: list[Trigger]) -> list[Triggered | TaskqError]:
    """Fires schedules now, each as the task whose id was given: once, however often it is asked for."""
    return _each(tx, triggers, lambda one, note: _trigger(memory, rules, tx, one, note))


def _trigger(memory: Memory, rules: Rules, tx: Transaction, asked: Trigger, note: Note) -> Triggered | TaskqError:
    found = as_it_stands(tx, asked.key)
    if isinstance(found, ScheduleNotFound):
        return found
    if (before := _before(tx, found, asked.task_id)) is not None:
        return before
    at, making = _standing_of(tx, found, asked.overlap), Round(memory, rules, tx)
    firing = Firing(_free(tx, found.schedule_seq), tx.now_us, asked.task_id)
    outcome = making.meet(at, firing)
    making.write()
    step(tx, [at])
    if outcome is FiringOutcome.FIRED and not at.fired:
        return TaskExists(to_text(asked.task_id))  # somebody has enqueued it in this moment
    after = as_it_stands(tx, Key(found.schedule_id))
    assert not isinstance(after, ScheduleNotFound)
    told = {"outcome": outcome.name, "nominal_time": time_text(firing.nominal_us), "task_id": to_text(asked.task_id)}
    note("schedule", after.definition.name, None, told)
    return Triggered(outcome, firing.nominal_us, asked.task_id, after, making.stopped)


def _before(tx: Transaction, found: Schedule, task_id: bytes) -> Triggered | TaskExists | None:
    """What became of the same trigger, if it was heard before."""
    task, firing = schema.task, schema.firing
    there = select(task.c.schedule_seq, task.c.nominal_us).where(task.c.task_id == task_id)
    if (row := tx.connection.execute(there).one_or_none()) is not None:
        if row.schedule_seq != found.schedule_seq:
            return TaskExists(to_text(task_id))
        return Triggered(FiringOutcome.FIRED, row.nominal_us, task_id, found)
    waits = schema.IS_BUFFERED, firing.c.schedule_seq == found.schedule_seq, firing.c.task_id == task_id
    if (nominal_us := tx.connection.execute(select(firing.c.nominal_us).where(*waits)).scalar()) is not None:
        return Triggered(FiringOutcome.BUFFERED, nominal_us, task_id, found)
    return None


def _free(tx: Transaction, seq: int) -> int:
    """The first instant from now on at which the schedule has not fired."""
    firing, nominal_us = schema.firing, tx.now_us
    while tx.connection.execute(
        select(firing.c.nominal_us).where(firing.c.schedule_seq == seq, firing.c.nominal_us == nominal_us)
    ).first():
        nominal_us += 1
    return nominal_us


def _standing_of(tx: Transaction, found: Schedule, overlap: Overlap | None) -> Standing:
    table, seq = schema.schedule, found.schedule_seq
    row = tx.connection.execute(select(table).where(table.c.schedule_seq == seq)).one()
    at = Standing.of(row, *count_unfinished(tx, [seq])[seq])
    at.by_hand, at.overlap = True, overlap or at.overlap
    return at


class Backfill(NamedTuple):
    """A range of nominal times that are over, to be fired by a policy; None: by the schedule's own."""

    key: Key
    start_us: int
    end_us: int
    overlap: Overlap | None = None


@dataclass(slots=True)
class Backfilled:
    """How many firings of a backfill have become what."""

    schedule: Schedule
    fired: int = 0
    skipped: int = 0
    buffered: int = 0
    existing: int = 0
    stopped: list[Stopped] = field(default_factory=list)


def backfill(memory: Memory, rules: Rules, tx: Transaction, backfills: list[Backfill]) -> list[Backfilled | TaskqError]:
    """Fires at nominal times that are over and have not fired."""
    return _each(tx, backfills, lambda one, note: _backfill(memory, rules, tx, one, note))


def _backfill(memory: Memory, rules: Rules, tx: Transaction, asked: Backfill, note: Note) -> Backfilled | TaskqError:
    found = as_it_stands(tx, asked.key)
    if isinstance(found, ScheduleNotFound):
        return found
    at, making, done = _standing_of(tx, found, asked.overlap), Round(memory, rules, tx), Backfilled(found)
    recurrence = Recurrence(replace(found.definition.rule, start_us=None), found.schedule_id)
    nominal = _between(recurrence, asked.start_us, asked.end_us)
    if (faults := _faults(tx, asked, nominal, at.row.pruned_until_us, at.next_us)) is not None:
        return faults
    if at.next_us is not None and nominal and nominal[-1] >= at.next_us:  # paused, or late by its jitter
        at.next_us = at.recurrence.next_after(nominal[-1])
    firing = schema.firing
    there = select(firing.c.nominal_us).where(
        firing.c.schedule_seq == found.schedule_seq,
        firing.c.nominal_us >= asked.start_us,
        firing.c.nominal_us < asked.end_us,
    )
    existing = set(tx.connection.execute(there).scalars())
    for nominal_us in nominal:
        if nominal_us in existing:
            done.existing += 1
            continue
        making.meet(at, Firing(nominal_us, nominal_us, firing_task_id(found.schedule_id, nominal_us)))
    buffered = making.waiting
    making.write()
    step(tx, [at])
    after = as_it_stands(tx, Key(found.schedule_id))
    assert not isinstance(after, ScheduleNotFound)
    done.fired, done.skipped, done.buffered, done.stopped = at.fired, at.skipped, buffered, making.stopped
    done.existing = len(nominal) - done.fired - done.skipped - done.buffered
    done.schedule = after
    if (made := {"fired": done.fired, "skipped": done.skipped, "buffered": done.buffered}) and any(made.values()):
        told = {"start_time": time_text(asked.start_us), "end_time": time_text(asked.end_us), **made}
        note("schedule", after.definition.name, None, told)
    return done


Asked = TypeVar("Asked", Trigger, Backfill)


def _each(tx: Transaction, asked: list[Asked], do: Callable[[Asked, Note], Answer]) -> list[Answer]:
    """Does what is asked of schedules, one by one, and writes down what has changed by it."""
    lock(tx, [one.key for one in asked])
    tx.signals = True
    audit = Audit(tx)
    answers = [do(one, partial(audit.note, i)) for i, one in enumerate(asked)]
    audit.write()
    return answers


def _between(recurrence: Recurrence, start_us: int, end_us: int) -> list[int]:
    """The nominal times of a range, and one more than are allowed at the most."""
    found: list[int] = []
    after_us = start_us - 1
    while len(found) <= MOST_BACKFILLED:
        next_us = recurrence.next_after(after_us)
        if next_us is None or next_us >= end_us:
            break
        found.append(next_us)
        after_us = next_us
    return found


def _faults(
    tx: Transaction, asked: Backfill, nominal: list[int], pruned_until_us: int | None, next_us: int | None
) -> InvalidFields | None:
    faults = []
    if next_us is not None and nominal and next_us < nominal[0]:
        rule = (
            f"must not be later than {next_us / 1_000_000:.6f} s since 1970: the times from then on are still to come"
        )
        faults.append(Fault("start_time", rule))
    if asked.end_us > tx.now_us:
        faults.append(Fault("end_time", "must not be later than now"))
    if len(nominal) > MOST_BACKFILLED:
        faults.append(Fault("end_time", f"must leave at most {MOST_BACKFILLED:,} nominal times in the range"))
    if pruned_until_us is not None and asked.start_us <= pruned_until_us:
        rule = f"must be later than {pruned_until_us / 1_000_000:.6f} s since 1970: what fired until then was pruned"
        faults.append(Fault("start_time", rule))
    return InvalidFields(faults) if faults else None
