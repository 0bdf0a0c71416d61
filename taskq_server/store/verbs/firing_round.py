"""What one transaction fires: where schedules stand, and what becomes of each firing whose time has come.

Whether a firing may run beside others is decided from the tasks that are unfinished, which the tables of tasks tell:
nothing has to be reset after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Row, select

from taskq_server.core.event import Topic
from taskq_server.core.recurring import Firing, FiringOutcome, firing_task_id, task_of
from taskq_server.core.schedule import (
    Decision,
    Overlap,
    Recurrence,
    decide,
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
from taskq_server.store.verbs.scheduling import standing
from taskq_server.task_id import new as new_id

log = structlog.get_logger("taskq.store")

MOST_FIRINGS_PER_FIRE = 1_000
"""However much has been missed: a transaction must end long before others lose patience."""
MOST_BYTES_PER_FIRE = 16 * 1024 * 1024
MOST_CANCELLED = 1_000
LONGEST_FIRE_S = 0.25
"""Rules may cost what they like to be walked: then so long, and what a single one of them takes."""

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
_UNFINISHED = select(*schedules.counts(1), schema.schedule.c.schedule_seq)


class Stopped(NamedTuple):
    """An attempt that was cancelled, since another firing takes its place, or together with many others."""

    session_seq: int
    task_id: bytes
    attempt: int


@dataclass(slots=True)
class Standing:
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
    def of(cls, row: Row[Any], unfinished: int, buffered: int) -> Standing:
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


class Round:
    """What one transaction fires: decided one by one, written together."""

    def __init__(self, memory: Memory, rules: Rules, tx: Transaction) -> None:
        self._memory = memory
        self._rules = rules
        self._tx = tx
        self._made: list[tuple[Standing, Firing, NewTask]] = []
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

    def thin(self, at: Standing) -> None:
        """Cancels some of what is unfinished, and fires when the rest is few."""
        self._thins.add(at.seq)
        self._cancels += MOST_CANCELLED

    def meet(self, at: Standing, firing: Firing) -> FiringOutcome:
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

    def _supersede(self, at: Standing) -> None:
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

    def _make(self, at: Standing, firing: Firing) -> None:
        row, payload = at.row, at.template.payload
        self._made.append((at, firing, task_of(at.seq, row.schedule_id, row.name, at.template, firing)))
        self._bytes += len(payload.data) if payload else 0
        at.unfinished += 1
        at.fired += 1

    def start(self, at: Standing, firing: Firing) -> None:
        """A firing that has waited in the buffer."""
        at.buffered -= 1
        self._met += 1
        self._started.append((self._tx.now_us, at.seq, firing.nominal_us))
        self._make(at, firing)

    def drop(self, at: Standing) -> None:
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

    def _is_taken(self, at: Standing, firing: Firing) -> bool:
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


def count_unfinished(tx: Transaction, seqs: list[int], most: int = 1) -> dict[int, tuple[int, int]]:
    """What is unfinished, not counted further than `most`, and what is buffered, by a statement of its own: it sees
    what others had done before the schedules were locked."""
    if not seqs:
        return {}
    among = tx.sql.among(schema.schedule.c.schedule_seq, seqs)
    counting = _UNFINISHED if most == 1 else select(*schedules.counts(most), schema.schedule.c.schedule_seq)
    found = tx.connection.execute(counting.where(among))
    return {row.schedule_seq: (row.unfinished, row.buffered) for row in found}


def step(tx: Transaction, standings: Iterable[Standing]) -> None:
    """Moves schedules on to where they stand now."""
    values = []
    for at in standings:
        row, to = at.row, at.stands or at.settle()
        happened = row.fired + at.fired, row.skipped + at.skipped
        counters = *happened, row.missed + at.missed, row.overlapped + at.overlapped
        values.append((to["next_us"], to["next_due_us"], to["tzdata"], at.used, *at.last, *counters, at.seq))
        tx.hint(Topic.SCHEDULES, [row.name])
    _STEP.run(tx.connection, values)
