"""Firing: what of the schedules is due becomes tasks, each firing once.

A firing's row, its task, and the step of its schedule to the next nominal time are one transaction, which has locked
the schedule's row. Whoever dies in the midst leaves all three undone; whoever comes second finds the schedule further
on.

Whether a firing may run beside others is decided from the tasks that are unfinished, which the tables of tasks tell:
nothing has to be reset after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Row, select, text, update

from taskq_server.core.recurring import Firing, firing_task_id
from taskq_server.core.schedule import (
    CatchingUp,
    CatchUp,
    Overlap,
    catch_up,
    tzdata_version,
)
from taskq_server.store import schema
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs import schedules
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.firing_round import (
    MOST_CANCELLED,
    MOST_FIRINGS_PER_FIRE,
    Round,
    Standing,
    Stopped,
    count_unfinished,
    step,
)

log = structlog.get_logger("taskq.store")

MOST_SCHEDULES_PER_FIRE = 1_000
MOST_OF_ONE = 100
"""So many firings of one schedule, so that others are not kept waiting."""
ON_TIME_US = 5_000_000
"""What is no older is on time, as `catch_up` would find at more expense."""
UNREADABLE_US = 60_000_000
"""A schedule that cannot be read is tried again after so long, and each time there is an error in the log."""
MOST_COMPLAINED = 10_000

# The first firing that waits in each buffer of which nothing is unfinished.
_STARTABLE = text(
    "SELECT firing.schedule_seq, min(firing.nominal_us) AS nominal_us FROM firing "  # noqa: S608 - our own words
    "JOIN schedule ON schedule.schedule_seq = firing.schedule_seq "
    "WHERE firing.outcome = 3 AND schedule.pause_time_us IS NULL "
    f"AND NOT EXISTS (SELECT 1 FROM {schedules.UNFINISHED}) "
    "GROUP BY firing.schedule_seq ORDER BY firing.schedule_seq LIMIT 1000"
)


@dataclass(slots=True)
class Fired:
    """What a round of firing has done, and what is left to do."""

    tasks: int = 0
    first_due_us: int | None = None
    """When the first firing that is left is due; None when none is to come."""
    some_wait: bool = False
    more: bool = False
    """There was more to do than one transaction does."""
    stopped: list[Stopped] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    """By the names of their schedules: how many nominal times did not fire, by the overlap policy."""
    missed: dict[str, int] = field(default_factory=dict)
    """The same of those that came too late."""


# ── what is due ──────────────────────────────────────────────────────────────────────────────────────────────────────


def fire(memory: Memory, rules: Rules, tx: Transaction, ahead_us: list[int]) -> list[Fired]:
    """Fires what is due, and what will be within `ahead_us` and nothing can come between: its task waits for its time.
    Passes over schedules that another server is at."""
    fired = _fire(memory, rules, tx, max(ahead_us))
    rest = Fired(0, fired.first_due_us, fired.some_wait, fired.more)  # what has happened is told once
    return [fired, *[rest] * (len(ahead_us) - 1)]


def _fire(memory: Memory, rules: Rules, tx: Transaction, ahead_us: int) -> Fired:
    fired, making = Fired(), Round(memory, rules, tx)
    table = schema.schedule
    touched = {at.seq: at for at in _start_buffered(tx, making)}
    until_us = tx.now_us + ahead_us
    due = (
        select(table)
        .where(schema.IS_FIRING, table.c.next_due_us <= until_us)
        .order_by(table.c.next_due_us)
        .limit(MOST_SCHEDULES_PER_FIRE)
        .with_for_update(key_share=True, skip_locked=True)
    )
    rows = tx.connection.execute(due).all()
    most_of_one = min(MOST_OF_ONE, max(1, MOST_FIRINGS_PER_FIRE // max(1, len(rows))))
    standings, seen = _standings(tx, rows, touched), 0
    making.begin()
    for row, at in standings:
        if seen and making.is_full:
            fired.more = True
            break
        seen += 1
        if at is None:
            _postpone(tx, row)
            continue
        before_us = at.next_us
        try:
            _fire_one(tx, making, at, until_us, most_of_one)
            stands = at.settle()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one, such as a zone that is gone
            _complain(tx, row, error)
            making.drop(at)
            touched.pop(at.seq, None)
            _postpone(tx, row)
            continue
        fired.more |= at.next_us is not None and at.next_us <= tx.now_us and at.next_us != before_us
        if at.next_us != before_us or stands["next_due_us"] != row.next_due_us:  # it may have been postponed
            touched[at.seq] = at
    fired.more |= making.thins
    making.write()
    step(tx, touched.values())
    for at in touched.values():
        if at.skipped:
            fired.skipped[at.row.name] = at.skipped
        if at.missed:
            fired.missed[at.row.name] = at.missed
    (left,) = schedules.to_fire(tx, [None])
    fired.tasks, fired.stopped = sum(at.fired for at in touched.values()), making.stopped
    fired.first_due_us, fired.some_wait = left.first_due_us, left.some_wait
    fired.more |= len(rows) == MOST_SCHEDULES_PER_FIRE and bool(touched)
    return fired


def _standings(
    tx: Transaction, rows: Iterable[Row[Any]], known: dict[int, Standing]
) -> Iterator[tuple[Row[Any], Standing | None]]:
    """Where schedules stand that are locked by now; None for one that cannot be read."""
    rows = list(rows)
    counts = count_unfinished(tx, [row.schedule_seq for row in rows if row.overlap != Overlap.ALLOW_ALL])
    cancels = [row.schedule_seq for row in rows if row.overlap == Overlap.CANCEL_OTHER]
    counts |= count_unfinished(tx, [seq for seq in cancels if counts[seq][0]], MOST_CANCELLED + 1)
    return _read(tx, rows, counts, known)


def _read(
    tx: Transaction, rows: list[Row[Any]], counted: dict[int, tuple[int, int]], known: dict[int, Standing]
) -> Iterator[tuple[Row[Any], Standing | None]]:
    for row in rows:
        if row.schedule_seq in known:
            yield row, known[row.schedule_seq]
            continue
        try:
            yield row, Standing.of(row, *counted.get(row.schedule_seq, (0, 0)))
        except Exception as error:  # noqa: BLE001 - whatever a row has that is none of ours
            _complain(tx, row, error)
            yield row, None


def _fire_one(tx: Transaction, making: Round, at: Standing, until_us: int, most: int) -> None:
    if at.is_occupied:
        until_us = tx.now_us
    if at.row.next_due_us > until_us:
        return  # what is unfinished now may be finished then
    caught = _caught_up(at, until_us, max(1, min(most, making.left)))
    if caught.fire_us and at.left != 0 and at.overlap is Overlap.CANCEL_OTHER and at.unfinished > MOST_CANCELLED:
        making.thin(at)
        return
    at.missed += caught.missed
    at.next_us = caught.next_us
    for i, nominal_us in enumerate(caught.fire_us):
        due_us = at.recurrence.due_us(nominal_us)
        if due_us > tx.now_us and at.is_occupied:
            at.next_us = nominal_us
            break
        if at.left == 0:
            break
        firing = Firing(nominal_us, due_us, firing_task_id(at.row.schedule_id, nominal_us))
        making.meet(at, firing)
        if making.is_full and i + 1 < len(caught.fire_us):
            at.next_us = caught.fire_us[i + 1]
            break


def _caught_up(at: Standing, until_us: int, most: int) -> CatchingUp:
    """What of the nominal times is due by then."""
    policy, window_us = CatchUp(at.row.catch_up), at.row.catch_up_window_us
    if at.next_us is None:
        raise ValueError("it is due and has no next nominal time")
    if until_us - ON_TIME_US <= at.recurrence.due_us(at.next_us) <= until_us:  # as a rule
        following_us = at.recurrence.next_after(at.next_us)
        if following_us is None or following_us > until_us:
            return CatchingUp([at.next_us], 0, following_us)  # no policy has a say
    return catch_up(at.recurrence, at.next_us, until_us, policy, window_us, most)


_complained: dict[bytes, int] = {}
"""By the ids of schedules: when the log had something to say of them."""


def _complain(tx: Transaction, row: Row[Any], error: Exception) -> None:
    """Once a minute: what waits in its buffer brings a schedule up four times a second."""
    if 0 <= tx.now_us - _complained.get(row.schedule_id, -UNREADABLE_US) < UNREADABLE_US:
        return
    if len(_complained) >= MOST_COMPLAINED:
        _complained.clear()
    _complained[row.schedule_id] = tx.now_us
    log.error("a schedule cannot be read or used, and does not fire", name=row.name, why=repr(error))


def _postpone(tx: Transaction, row: Row[Any]) -> None:
    table = schema.schedule
    later = update(table).where(table.c.schedule_seq == row.schedule_seq)
    tx.connection.execute(later.values(next_due_us=tx.now_us + UNREADABLE_US))


# ── what waits in buffers ────────────────────────────────────────────────────────────────────────────────────────────


def _start_buffered(tx: Transaction, making: Round) -> Iterator[Standing]:
    """Of each schedule of which nothing is unfinished, the first that waits."""
    seqs = [row.schedule_seq for row in tx.connection.execute(_STARTABLE)]
    if not seqs:
        return
    table, firing = schema.schedule, schema.firing
    mine = select(table).where(tx.sql.among(table.c.schedule_seq, seqs)).order_by(table.c.schedule_seq)
    rows = tx.connection.execute(mine.with_for_update(key_share=True, skip_locked=True)).all()
    # Another server may have started it before this one had locked it.
    startable = {row.schedule_seq: row.nominal_us for row in tx.connection.execute(_STARTABLE)}
    rows = [row for row in rows if row.schedule_seq in startable]
    standings = _standings(tx, rows, {})
    making.begin()
    for row, at in standings:
        if making.is_full:
            break  # what is left still waits, and is looked at again soon
        if at is None:
            continue
        nominal_us = startable[row.schedule_seq]
        of = firing.c.schedule_seq == row.schedule_seq, firing.c.nominal_us == nominal_us
        task_id = tx.connection.execute(select(firing.c.task_id).where(*of)).scalar_one()
        try:
            making.start(at, Firing(nominal_us, nominal_us, task_id))
            at.settle()
        except Exception as error:  # noqa: BLE001 - as above
            _complain(tx, row, error)
            making.drop(at)
            continue
        yield at


# ── time zones ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Followed(NamedTuple):
    """How many of a page of schedules were computed anew, and where the next page begins; None: there is none."""

    many: int
    last_seq: int | None


def follow_zones(tx: Transaction, pages: list[int]) -> list[Followed]:
    """Computes anew when some of the schedules after each of those fire that were computed by another time zone
    database. What is due already stays due. Whoever is at one of them is waited for."""
    return [_follow_zones(tx, after_seq) for after_seq in pages]


def _follow_zones(tx: Transaction, after_seq: int) -> Followed:
    table = schema.schedule
    other = (
        select(table)
        .where(table.c.schedule_seq > after_seq, table.c.tzdata != tzdata_version(), table.c.next_us > tx.now_us)
        .order_by(table.c.schedule_seq)
        .limit(MOST_SCHEDULES_PER_FIRE)
        .with_for_update(key_share=True)
    )
    rows = tx.connection.execute(other).all()
    standings = []
    for row in rows:
        try:
            at = Standing.of(row, 0, 0)
            at.next_us = at.recurrence.next_after(max(tx.now_us, row.last_us or 0))
            at.settle()["tzdata"] = tzdata_version()
        except Exception as error:  # noqa: BLE001 - as above
            _complain(tx, row, error)  # another server may be able to, at its time
            continue
        standings.append(at)
    step(tx, standings)
    return Followed(len(standings), rows[-1].schedule_seq if rows else None)
