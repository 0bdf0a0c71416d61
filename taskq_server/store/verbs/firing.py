"""Firing: what of the schedules is due becomes tasks, each firing once.

A firing's row, its task, and the step of its schedule to the next nominal time are one transaction, which has locked
the schedule's row. Whoever dies in the midst leaves all three undone; whoever comes second finds the schedule further
on.

Whether a firing may run beside others is decided from the tasks that are unfinished, which the tables of tasks tell:
nothing has to be reset after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Row, select, text, update

from taskq_server.core.errors import Fault, InvalidFields, ScheduleNotFound, TaskExists, TaskqError
from taskq_server.core.recurring import Firing, FiringOutcome, Key, Schedule, firing_task_id, task_of
from taskq_server.core.schedule import (
    CatchingUp,
    CatchUp,
    Decision,
    Overlap,
    Recurrence,
    catch_up,
    decide,
    tzdata_version,
)
from taskq_server.core.task import EnqueueOutcome, NewTask, TaskState
from taskq_server.store import schedule_rows, schema
from taskq_server.store.many import Many
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs import schedules
from taskq_server.store.verbs.adding import add
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.ending import cancel
from taskq_server.store.verbs.scheduling import as_it_stands, lock, standing
from taskq_server.task_id import new as new_id
from taskq_server.task_id import to_text

log = structlog.get_logger("taskq.store")

MOST_SCHEDULES_PER_FIRE = 1_000
MOST_FIRINGS_PER_FIRE = 1_000
"""However much has been missed: a transaction must end long before others lose patience."""
MOST_OF_ONE = 100
"""So many firings of one schedule, so that others are not kept waiting."""
MOST_BYTES_PER_FIRE = 16 * 1024 * 1024
MOST_CANCELLED = 1_000
LONGEST_FIRE_S = 0.25
"""Rules may cost what they like to be walked: then so long, and what a single one of them takes."""
MOST_BACKFILLED = 1_000
ON_TIME_US = 5_000_000
"""What is no older is on time, as `catch_up` would find at more expense."""
UNREADABLE_US = 60_000_000
"""A schedule that cannot be read is tried again after so long, and each time there is an error in the log."""
MOST_COMPLAINED = 10_000

_INSERT = Many.insert(
    schema.firing,
    ("schedule_seq", "nominal_us", "outcome", "task_id", "fire_time_us"),
    order_by=("schedule_seq", "nominal_us"),
    end="ON CONFLICT (schedule_seq, nominal_us) DO NOTHING",
)
_START = Many(
    schema.firing,
    "UPDATE firing SET outcome = 1, fire_time_us = {fire_time_us} {from rows} "
    "WHERE firing.schedule_seq = {schedule_seq} AND firing.nominal_us = {nominal_us}",
)
_STEP = Many(
    schema.schedule,
    "UPDATE schedule SET next_us = {next_us}, next_due_us = {next_due_us}, tzdata = {tzdata}, used = {used}, "
    "last_us = {last_us}, last_task_id = {last_task_id}, fired = {fired}, skipped = {skipped}, missed = {missed}, "
    "overlapped = {overlapped} {from rows} WHERE schedule.schedule_seq = {schedule_seq}",
)
# The first firing that waits in each buffer of which nothing is unfinished.
_STARTABLE = text(
    "SELECT firing.schedule_seq, min(firing.nominal_us) AS nominal_us FROM firing "  # noqa: S608 - our own words
    "JOIN schedule ON schedule.schedule_seq = firing.schedule_seq "
    "WHERE firing.outcome = 3 AND schedule.pause_time_us IS NULL "
    f"AND NOT EXISTS (SELECT 1 FROM {schedules.UNFINISHED}) "
    "GROUP BY firing.schedule_seq ORDER BY firing.schedule_seq LIMIT 1000"
)
_UNFINISHED = select(*schedules.counts(1), schema.schedule.c.schedule_seq)


class Stopped(NamedTuple):
    """An attempt that was cancelled, since another firing takes its place."""

    session_seq: int
    task_id: bytes
    attempt: int


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


@dataclass(slots=True)
class _Standing:
    """A schedule while it is fired: where it stands, and will stand after this transaction."""

    row: Row[Any]
    recurrence: Recurrence
    template: NewTask
    overlap: Overlap
    unfinished: int
    buffered: int
    next_us: int | None
    used: int
    last: tuple[int | None, bytes | None]
    by_hand: bool = False
    """What fires by hand does not count against `max_firings`."""
    fired: int = 0
    skipped: int = 0
    missed: int = 0
    overlapped: int = 0
    stands: dict[str, Any] | None = None
    """The columns that say when it fires next."""

    @classmethod
    def of(cls, row: Row[Any], unfinished: int, buffered: int) -> _Standing:
        recurrence = schedule_rows.recurrence_of(row.rule, row.schedule_id)
        template = schedule_rows.task_of(row.task, row.payload, row.content_hash)
        last = row.last_us, row.last_task_id
        overlap = Overlap(row.overlap)
        return cls(row, recurrence, template, overlap, unfinished, buffered, row.next_us, row.used, last)

    @property
    def seq(self) -> int:
        return int(self.row.schedule_seq)

    def settle(self) -> dict[str, Any]:
        """When it fires next, as it stands now."""
        self.stands = standing(self.recurrence, self.next_us, self.row.max_firings, self.used)
        if self.next_us == self.row.next_us:
            self.stands["tzdata"] = self.row.tzdata  # by which it was computed
        return self.stands

    @property
    def is_occupied(self) -> bool:
        """Whether a firing might have to wait for another, so that nothing can be said before its time."""
        return self.overlap is not Overlap.ALLOW_ALL and bool(self.unfinished or self.buffered)

    @property
    def left(self) -> int | None:
        """How often it may still fire."""
        most: int | None = self.row.max_firings
        return None if most is None else max(0, most - self.used)


class _Round:
    """What one transaction fires: decided one by one, written together."""

    def __init__(self, memory: Memory, rules: Rules, tx: Transaction) -> None:
        self._memory = memory
        self._rules = rules
        self._tx = tx
        self._made: list[tuple[_Standing, Firing, NewTask]] = []
        self._waiting: list[tuple[int, int, int, bytes, int]] = []
        self._started: list[tuple[int, int, int]] = []
        self._supersedes: set[int] = set()
        """Schedules whose unfinished tasks are to be cancelled first."""
        self._thins: set[int] = set()
        """Those of which some are cancelled, since they are too many for one transaction."""
        self._met = self._bytes = self._cancels = 0
        self._ends_s = 0.0
        self.stopped: list[Stopped] = []

    def begin(self) -> None:
        """From now on it takes time. To wait for the database does not count."""
        self._ends_s = monotonic() + LONGEST_FIRE_S

    @property
    def is_full(self) -> bool:
        """Whether it has enough to do for one transaction, if what it has met came to nothing too."""
        return (
            self._met >= MOST_FIRINGS_PER_FIRE
            or self._bytes >= MOST_BYTES_PER_FIRE
            or self._cancels >= MOST_CANCELLED
            or monotonic() >= self._ends_s
        )

    @property
    def left(self) -> int:
        """How many firings it still takes."""
        return max(0, MOST_FIRINGS_PER_FIRE - self._met)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def thins(self) -> bool:
        return bool(self._thins)

    def thin(self, at: _Standing) -> None:
        """Cancels some of what is unfinished, and fires when the rest is few."""
        self._thins.add(at.seq)
        self._cancels += MOST_CANCELLED

    def meet(self, at: _Standing, firing: Firing) -> FiringOutcome:
        """One firing whose time has come, as the overlap policy says."""
        self._met += 1
        decision = decide(at.overlap, at.unfinished, at.buffered, at.row.max_buffered)
        if at.is_occupied:
            at.overlapped += 1
        if decision is Decision.SKIP:
            at.skipped += 1
            return FiringOutcome.SKIPPED
        if not at.by_hand:
            at.used += 1
        if decision is Decision.BUFFER:
            at.buffered += 1
            now_us = self._tx.now_us
            self._waiting.append((at.seq, firing.nominal_us, int(FiringOutcome.BUFFERED), firing.task_id, now_us))
            return FiringOutcome.BUFFERED
        if decision is Decision.CANCEL_THEN_FIRE:
            self._supersede(at)
        self._make(at, firing)
        return FiringOutcome.FIRED

    def _supersede(self, at: _Standing) -> None:
        """Also what this round itself was about to make: nobody has seen it."""
        made_here = [one for one in self._made if one[0] is at]
        self._made = [one for one in self._made if one[0] is not at]
        at.skipped += len(made_here)
        at.fired -= len(made_here)
        if not at.by_hand:
            at.used -= len(made_here)
        if at.unfinished > len(made_here):
            self._supersedes.add(at.seq)
            self._cancels += at.unfinished - len(made_here)
        at.unfinished = 0

    def _make(self, at: _Standing, firing: Firing) -> None:
        row, payload = at.row, at.template.payload
        self._made.append((at, firing, task_of(at.seq, row.schedule_id, row.name, at.template, firing)))
        self._bytes += len(payload.data) if payload else 0
        at.unfinished += 1
        at.fired += 1

    def start(self, at: _Standing, firing: Firing) -> None:
        """A firing that has waited in the buffer."""
        at.buffered -= 1
        self._met += 1
        self._started.append((self._tx.now_us, at.seq, firing.nominal_us))
        self._make(at, firing)

    def drop(self, at: _Standing) -> None:
        """Nothing of this schedule, which has turned out to be bad."""
        self._made = [one for one in self._made if one[0] is not at]
        self._waiting = [one for one in self._waiting if one[0] != at.seq]
        self._started = [one for one in self._started if one[1] != at.seq]
        self._supersedes.discard(at.seq)
        self._thins.discard(at.seq)

    def write(self) -> None:
        """Cancels, stores the tasks, and notes which firings they are."""
        tx = self._tx
        if self._supersedes or self._thins:
            self._cancel_unfinished()
        if self._made:
            enqueued = add(self._memory, tx, [task for _, _, task in self._made])
            for place, answer in enumerate(enqueued):
                at, firing, _ = self._made[place]
                if answer.outcome is EnqueueOutcome.CONFLICT and self._is_taken(at, firing):
                    firing = self._make_another(place)
                elif answer.outcome is not EnqueueOutcome.CREATED:
                    at.fired -= 1  # it has fired before, and that is known no more
                    at.used -= not at.by_hand
                    continue
                if at.last[0] is None or firing.nominal_us >= at.last[0]:
                    at.last = firing.nominal_us, firing.task_id
        fired = int(FiringOutcome.FIRED)
        made = [(at.seq, firing.nominal_us, fired, firing.task_id, tx.now_us) for at, firing, _ in self._made]
        _INSERT.run(tx.connection, made + self._waiting)
        _START.run(tx.connection, self._started)

    def _is_taken(self, at: _Standing, firing: Firing) -> bool:
        """Whether somebody has given the id of a firing to a task of theirs: who sees a schedule can compute it."""
        if firing.task_id != firing_task_id(at.row.schedule_id, firing.nominal_us):
            return False
        task = schema.task
        whose = select(task.c.schedule_seq).where(task.c.task_id == firing.task_id)
        return self._tx.connection.execute(whose).scalar_one_or_none() != at.seq

    def _make_another(self, place: int) -> Firing:
        """The same firing under an id that nobody could know."""
        at, firing, task = self._made[place]
        log.warning("a firing's id is another task's; it gets a new one", name=at.row.name, task=firing.task_id.hex())
        firing = firing._replace(task_id=new_id())
        task = replace(task, task_id=firing.task_id)
        add(self._memory, self._tx, [task])
        self._made[place] = at, firing, task
        return firing

    def _cancel_unfinished(self) -> None:
        tx = self._tx
        task_ids = self._unfinished_of(self._supersedes) + self._unfinished_of(self._thins, MOST_CANCELLED)
        for task_id, cancelled in zip(task_ids, cancel(self._memory, self._rules, tx, task_ids), strict=True):
            if cancelled.state_before is TaskState.RUNNING and cancelled.session_seq is not None:
                self.stopped.append(Stopped(cancelled.session_seq, task_id, cancelled.attempt))

    def _unfinished_of(self, seqs: set[int], most: int | None = None) -> list[bytes]:
        if not seqs:
            return []
        task = schema.task
        where = schema.IS_OF_SCHEDULE, self._tx.sql.among(task.c.schedule_seq, sorted(seqs))
        return list(self._tx.connection.execute(select(task.c.task_id).where(*where).limit(most)).scalars())


# ── what is due ──────────────────────────────────────────────────────────────────────────────────────────────────────


def fire(memory: Memory, rules: Rules, tx: Transaction, ahead_us: list[int]) -> list[Fired]:
    """Fires what is due, and what will be within `ahead_us` and nothing can come between: its task waits for its time.
    Passes over schedules that another server is at."""
    fired = _fire(memory, rules, tx, max(ahead_us))
    rest = Fired(0, fired.first_due_us, fired.some_wait, fired.more)  # what has happened is told once
    return [fired, *[rest] * (len(ahead_us) - 1)]


def _fire(memory: Memory, rules: Rules, tx: Transaction, ahead_us: int) -> Fired:
    fired, making = Fired(), _Round(memory, rules, tx)
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
    _step(tx, touched.values())
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
    tx: Transaction, rows: Iterable[Row[Any]], known: dict[int, _Standing]
) -> Iterator[tuple[Row[Any], _Standing | None]]:
    """Where schedules stand that are locked by now; None for one that cannot be read."""
    rows = list(rows)
    counted = _counted(tx, [row.schedule_seq for row in rows if row.overlap != Overlap.ALLOW_ALL])
    cancels = [row.schedule_seq for row in rows if row.overlap == Overlap.CANCEL_OTHER]
    counted |= _counted(tx, [seq for seq in cancels if counted[seq][0]], MOST_CANCELLED + 1)
    return _read(tx, rows, counted, known)


def _read(
    tx: Transaction, rows: list[Row[Any]], counted: dict[int, tuple[int, int]], known: dict[int, _Standing]
) -> Iterator[tuple[Row[Any], _Standing | None]]:
    for row in rows:
        if row.schedule_seq in known:
            yield row, known[row.schedule_seq]
            continue
        try:
            yield row, _Standing.of(row, *counted.get(row.schedule_seq, (0, 0)))
        except Exception as error:  # noqa: BLE001 - whatever a row has that is none of ours
            _complain(tx, row, error)
            yield row, None


def _counted(tx: Transaction, seqs: list[int], most: int = 1) -> dict[int, tuple[int, int]]:
    """What is unfinished, not counted further than `most`, and what is buffered, by a statement of its own: it sees
    what others had done before the schedules were locked."""
    if not seqs:
        return {}
    among = tx.sql.among(schema.schedule.c.schedule_seq, seqs)
    counting = _UNFINISHED if most == 1 else select(*schedules.counts(most), schema.schedule.c.schedule_seq)
    found = tx.connection.execute(counting.where(among))
    return {row.schedule_seq: (row.unfinished, row.buffered) for row in found}


def _fire_one(tx: Transaction, making: _Round, at: _Standing, until_us: int, most: int) -> None:
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


def _caught_up(at: _Standing, until_us: int, most: int) -> CatchingUp:
    """What of the nominal times is due by then."""
    policy, window_us = CatchUp(at.row.catch_up), at.row.catch_up_window_us
    if at.next_us is None:
        raise ValueError("it is due and has no next nominal time")
    if until_us - ON_TIME_US <= at.recurrence.due_us(at.next_us) <= until_us:  # as a rule
        following_us = at.recurrence.next_after(at.next_us)
        if following_us is None or following_us > until_us:
            return CatchingUp([at.next_us], 0, following_us)  # no policy has a say
    return catch_up(at.recurrence, at.next_us, until_us, policy, window_us, most)


def _step(tx: Transaction, standings: Iterable[_Standing]) -> None:
    """Moves schedules on to where they stand now."""
    values = []
    for at in standings:
        row, to = at.row, at.stands or at.settle()
        happened = row.fired + at.fired, row.skipped + at.skipped
        counters = *happened, row.missed + at.missed, row.overlapped + at.overlapped
        values.append((to["next_us"], to["next_due_us"], to["tzdata"], at.used, *at.last, *counters, at.seq))
    _STEP.run(tx.connection, values)


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


def _start_buffered(tx: Transaction, making: _Round) -> Iterator[_Standing]:
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


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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
    lock(tx, [one.key for one in triggers])
    tx.signals = True
    return [_trigger(memory, rules, tx, one) for one in triggers]


def _trigger(memory: Memory, rules: Rules, tx: Transaction, asked: Trigger) -> Triggered | TaskqError:
    found = as_it_stands(tx, asked.key)
    if isinstance(found, ScheduleNotFound):
        return found
    if (before := _before(tx, found, asked.task_id)) is not None:
        return before
    at, making = _standing_of(tx, found, asked.overlap), _Round(memory, rules, tx)
    firing = Firing(_free(tx, found.schedule_seq), tx.now_us, asked.task_id)
    outcome = making.meet(at, firing)
    making.write()
    _step(tx, [at])
    if outcome is FiringOutcome.FIRED and not at.fired:
        return TaskExists(to_text(asked.task_id))  # somebody has enqueued it in this moment
    after = as_it_stands(tx, Key(found.schedule_id))
    assert not isinstance(after, ScheduleNotFound)
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


def _standing_of(tx: Transaction, found: Schedule, overlap: Overlap | None) -> _Standing:
    table, seq = schema.schedule, found.schedule_seq
    row = tx.connection.execute(select(table).where(table.c.schedule_seq == seq)).one()
    at = _Standing.of(row, *_counted(tx, [seq])[seq])
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
    lock(tx, [one.key for one in backfills])
    tx.signals = True
    return [_backfill(memory, rules, tx, one) for one in backfills]


def _backfill(memory: Memory, rules: Rules, tx: Transaction, asked: Backfill) -> Backfilled | TaskqError:
    found = as_it_stands(tx, asked.key)
    if isinstance(found, ScheduleNotFound):
        return found
    at, making, done = _standing_of(tx, found, asked.overlap), _Round(memory, rules, tx), Backfilled(found)
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
    _step(tx, [at])
    after = as_it_stands(tx, Key(found.schedule_id))
    assert not isinstance(after, ScheduleNotFound)
    done.fired, done.skipped, done.buffered, done.stopped = at.fired, at.skipped, buffered, making.stopped
    done.existing = len(nominal) - done.fired - done.skipped - done.buffered
    done.schedule = after
    return done


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
            at = _Standing.of(row, 0, 0)
            at.next_us = at.recurrence.next_after(max(tx.now_us, row.last_us or 0))
            at.settle()["tzdata"] = tzdata_version()
        except Exception as error:  # noqa: BLE001 - as above
            _complain(tx, row, error)  # another server may be able to, at its time
            continue
        standings.append(at)
    _step(tx, standings)
    return Followed(len(standings), rows[-1].schedule_seq if rows else None)
