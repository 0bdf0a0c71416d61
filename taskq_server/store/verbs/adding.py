"""Enqueue: new tasks, repeated ones, and those whose key another task holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Row, Select, select

from taskq_server.core.matching import Route
from taskq_server.core.task import (
    Dedup,
    DedupConflict,
    DedupHold,
    Enqueued,
    EnqueueOutcome,
    NewTask,
    TaskState,
)
from taskq_server.store import rows, schema
from taskq_server.store.many import Many
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Again, Transaction

_INSERT = Many.insert(
    schema.task, rows.INSERT_COLUMNS, order_by=("task_id", "seq"), end="ON CONFLICT (task_id) DO NOTHING"
)
_HOLD = Many.insert(schema.dedup, ("scope", "key", "task_id", "hold", "hold_until_us"), order_by=("scope", "key"))
_LET_GO = Many(schema.dedup, "DELETE FROM dedup {using rows} WHERE dedup.scope = {scope} AND dedup.key = {key}")
_MOVE = Many(
    schema.task,
    "UPDATE task SET due_time_us = {due_time_us} {from rows} WHERE task.task_id = {task_id} AND task.state + 0 = 1",
)
_REPLACE = Many(
    schema.task,
    "UPDATE task SET due_time_us = {due_time_us}, payload = {payload}, payload_crc = {payload_crc}, "
    "content_type = {content_type}, payload_metadata = {payload_metadata}, headers = {headers} {from rows} "
    "WHERE task.task_id = {task_id} AND task.state + 0 = 1",
)


CHANGES = DedupConflict.REPLACE, DedupConflict.DEBOUNCE
"""What may change the task that holds a key."""


def add(memory: Memory, tx: Transaction, tasks: list[NewTask]) -> list[Enqueued]:
    """Stores tasks in order. A known id or a held key leaves no second task behind, and the answer says so."""
    numbers = tx.sql.task_numbers(tx, len(tasks))
    keys = _Keys.of(tx, tasks)
    answers: list[Enqueued | None] = [None] * len(tasks)
    created: list[_Created] = []
    for i, task in enumerate(tasks):
        due_time_us = tx.now_us + task.delay_us if task.due_time_us is None else task.due_time_us
        if task.dedup is not None and (answer := keys.answer(task, due_time_us)) is not None:
            answers[i] = answer
        else:
            keys.known.setdefault(task.task_id, (task.content_hash, due_time_us))
            created.append(_Created(i, numbers[i], task, due_time_us))
    route_ids = memory.route_ids(tx, {new.task.route for new in created})
    for new, enqueued in zip(created, _insert(tx, created, route_ids), strict=True):
        answers[new.index] = enqueued
    stored = [new for new in created if answers[new.index].outcome is EnqueueOutcome.CREATED]  # type: ignore[union-attr]
    _note(memory, tx, stored, route_ids)
    tx.changed += [new.task.task_id for new in stored]
    tx.added.update(new.task.route.name for new in stored)
    tx.wakes = True
    keys.write(memory, tx, [new.task for new in stored if new.task.dedup], route_ids)
    return answers  # type: ignore[return-value]


@dataclass(slots=True)
class _Created:
    """A task on its way into the table."""

    index: int
    seq: int
    task: NewTask
    due_time_us: int


def _insert(tx: Transaction, created: list[_Created], route_ids: Mapping[Route, int]) -> list[Enqueued]:
    values = [
        rows.insert_row(new.seq, new.task, route_ids[new.task.route], new.due_time_us, tx.now_us) for new in created
    ]
    inserted = _INSERT.run(tx.connection, values)
    outcome = EnqueueOutcome.CREATED
    if inserted == len(created):
        return [Enqueued(new.task.task_id, outcome, new.due_time_us) for new in created]
    task = schema.task
    found = tx.connection.execute(
        select(task.c.task_id, task.c.seq, task.c.content_hash, task.c.due_time_us).where(
            tx.sql.among(task.c.task_id, [new.task.task_id for new in created])
        )
    )
    known = {row.task_id: row for row in found}
    answers = []
    for new in created:
        if (row := known.get(new.task.task_id)) is None:
            raise Again  # it was there, and has been pruned since
        outcome = EnqueueOutcome.CREATED if row.seq == new.seq else _repeated(row.content_hash, new.task)
        answers.append(Enqueued(row.task_id, outcome, row.due_time_us))
    return answers


def _repeated(content_hash: bytes, task: NewTask) -> EnqueueOutcome:
    return EnqueueOutcome.EXISTING if content_hash == task.content_hash else EnqueueOutcome.CONFLICT


def _note(memory: Memory, tx: Transaction, stored: list[_Created], route_ids: Mapping[Route, int]) -> None:
    earliest: dict[tuple[Route, int], int] = {}
    for new in stored:
        place = new.task.route, new.task.priority
        if new.due_time_us < earliest.get(place, new.due_time_us + 1):
            earliest[place] = new.due_time_us
    for (route, priority), due_time_us in earliest.items():
        where = route_ids[route], priority
        tx.scheduled[where] = min(due_time_us, tx.scheduled.get(where, due_time_us))  # others may share the transaction
    tx.after_commit.append(partial(memory.waiting.note_all, tx.scheduled))
    expiring = [new.task.expire_time_us for new in stored if new.task.expire_time_us is not None]
    if expiring:
        tx.after_commit.append(partial(memory.note_expiry, min(expiring)))


@dataclass(slots=True)
class _Holder:
    """The task that holds a key."""

    task_id: bytes
    due_time_us: int
    waits: bool
    route_id: int | None
    """None for one that is new in this transaction."""
    route: Route | None
    priority: int
    takes: NewTask | None = None
    """The content that it is given."""
    moved: bool = False


@dataclass(slots=True)
class _Keys:
    """The keys that a batch asks for: who holds them, and who will. Answers as if its tasks came one by one."""

    now_us: int
    holders: dict[tuple[str, str], _Holder] = field(default_factory=dict)
    known: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    """Content hash and due time of the tasks that exist."""
    over: list[tuple[str, str]] = field(default_factory=list)
    """Holds that have ended, and still stand in the table."""

    @classmethod
    def of(cls, tx: Transaction, tasks: list[NewTask]) -> _Keys:
        keys = cls(tx.now_us)
        asked = [(task, task.dedup) for task in tasks if task.dedup is not None]
        if asked:
            may_change = [(one.scope, one.key) for _, one in asked if one.on_conflict in CHANGES]
            tx.sql.lock_keys(tx, [(one.scope, one.key) for _, one in asked], may_change)
            keys._read(tx, asked)
        return keys

    def _read(self, tx: Transaction, asked: list[tuple[NewTask, Dedup]]) -> None:
        task = schema.task
        ids = tx.sql.among(task.c.task_id, [new.task_id for new, _ in asked])
        existing = select(task.c.task_id, task.c.content_hash, task.c.due_time_us).where(ids)
        self.known = {row[0]: (row[1], row[2]) for row in tx.connection.execute(existing)}
        wanted: dict[str, set[str]] = {}
        for _, dedup in asked:
            wanted.setdefault(dedup.scope, set()).add(dedup.key)
        for scope, keys in wanted.items():  # (scope, key) IN (VALUES ...) would read the whole table in SQLite
            self._learn(tx.connection.execute(_held(tx, scope, keys)).all())

    def _learn(self, found: Sequence[Row[Any]]) -> None:
        for row in found:
            in_time = row.hold_until_us is not None and row.hold_until_us > self.now_us
            unfinished = row.state is not None and not TaskState(row.state).finished
            if in_time or (unfinished and row.hold != DedupHold.TTL):
                waits = row.state == TaskState.SCHEDULED
                due_time_us = self.now_us if row.due_time_us is None else row.due_time_us
                self.holders[row.scope, row.key] = _Holder(
                    row.task_id, due_time_us, waits, row.route_id, None, row.priority or 0
                )
            else:
                self.over.append((row.scope, row.key))

    def answer(self, new: NewTask, due_time_us: int) -> Enqueued | None:
        """What becomes of a task whose key or id is taken; None when it is to be stored."""
        assert new.dedup is not None
        if (existing := self.known.get(new.task_id)) is not None:
            return Enqueued(new.task_id, _repeated(existing[0], new), existing[1])
        place = new.dedup.scope, new.dedup.key
        holder = self.holders.get(place)
        if holder is None:
            self.holders[place] = _Holder(new.task_id, due_time_us, True, None, new.route, new.priority)
            return None
        conflict = new.dedup.on_conflict
        if conflict is DedupConflict.REJECT:
            return Enqueued(holder.task_id, EnqueueOutcome.REJECTED, holder.due_time_us)
        if conflict is DedupConflict.RETURN_EXISTING or not holder.waits:
            return Enqueued(holder.task_id, EnqueueOutcome.EXISTING, holder.due_time_us)
        holder.due_time_us, holder.moved = due_time_us, True
        if conflict is DedupConflict.REPLACE:
            holder.takes = new
        return Enqueued(holder.task_id, EnqueueOutcome.REPLACED, due_time_us)

    def write(self, memory: Memory, tx: Transaction, stored: list[NewTask], route_ids: Mapping[Route, int]) -> None:
        if stored:
            _LET_GO.run(tx.connection, self.over)
            _HOLD.run(tx.connection, [self._hold(new.task_id, new.dedup) for new in stored if new.dedup])
        moved = [holder for holder in self.holders.values() if holder.moved]
        _MOVE.run(tx.connection, [(one.due_time_us, one.task_id) for one in moved if one.takes is None])
        _REPLACE.run(
            tx.connection,
            [_replacement(one.takes, one.due_time_us, one.task_id) for one in moved if one.takes is not None],
        )
        for one in moved:
            route_id = route_ids[one.route] if one.route is not None else one.route_id
            if route_id is not None:
                tx.after_commit.append(partial(memory.waiting.note, route_id, one.priority, one.due_time_us))
            tx.changed.append(one.task_id)

    def _hold(self, task_id: bytes, dedup: Dedup) -> tuple[str, str, bytes, int, int | None]:
        until_us = None if dedup.ttl_us is None else self.now_us + dedup.ttl_us
        return dedup.scope, dedup.key, task_id, int(dedup.hold), until_us


def _held(tx: Transaction, scope: str, keys: set[str]) -> Select[Any]:
    task, dedup = schema.task, schema.dedup
    holder = dedup, task, task.c.task_id == dedup.c.task_id
    held = select(dedup, task.c.state, task.c.due_time_us, task.c.route_id, task.c.priority)
    return held.join_from(*holder, isouter=True).where(dedup.c.scope == scope, tx.sql.among(dedup.c.key, keys))


def _replacement(new: NewTask, due_time_us: int, task_id: bytes) -> tuple[Any, ...]:
    data, content_type, metadata = rows.payload_columns(new.payload)
    return due_time_us, data, rows.crc_of(data), content_type, metadata, rows.json_or_null(new.headers), task_id
