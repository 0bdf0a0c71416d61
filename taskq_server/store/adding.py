"""Enqueue: new tasks, repeated ones, and those whose key another task holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, bindparam, select, update

from taskq_server.core.task import (
    DedupConflict,
    DedupHold,
    Enqueued,
    EnqueueOutcome,
    NewTask,
    TaskState,
)
from taskq_server.store import rows, schema
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction

_INSERT = (
    f"INSERT INTO task ({', '.join(rows.INSERT_COLUMNS)}) "  # noqa: S608 - our own names
    f"VALUES ({', '.join('?' * len(rows.INSERT_COLUMNS))}) ON CONFLICT (task_id) DO NOTHING"
)


def add(memory: Memory, tx: Transaction, tasks: list[NewTask]) -> list[Enqueued]:
    """Stores tasks in order. A known id or a held key leaves no second task behind, and the answer says so."""
    keys = _Keys.of(tx, tasks)
    answers: list[Enqueued | None] = [None] * len(tasks)
    created: list[_Created] = []
    for i, task in enumerate(tasks):
        due_time_us = tx.now_us + task.delay_us if task.due_time_us is None else task.due_time_us
        if task.dedup is not None and (answer := keys.answer(task, due_time_us)) is not None:
            answers[i] = answer
        else:
            keys.known.setdefault(task.task_id, (task.content_hash, due_time_us))
            created.append(_Created(i, memory.take_seq(), task, memory.route_id(tx, task.route), due_time_us))
    for new, enqueued in zip(created, _insert(tx, created), strict=True):
        answers[new.index] = enqueued
    stored = [new for new in created if answers[new.index].outcome is EnqueueOutcome.CREATED]  # type: ignore[union-attr]
    _note(memory, stored)
    tx.changed += [new.task.task_id for new in stored]
    tx.wakes = True
    keys.write(memory, tx, [new.task for new in stored if new.task.dedup])
    return answers  # type: ignore[return-value]


@dataclass(slots=True)
class _Created:
    """A task on its way into the table."""

    index: int
    seq: int
    task: NewTask
    route_id: int
    due_time_us: int


def _insert(tx: Transaction, created: list[_Created]) -> list[Enqueued]:
    if not created:
        return []
    values = [rows.insert_row(new.seq, new.task, new.route_id, new.due_time_us, tx.now_us) for new in created]
    inserted = tx.connection.exec_driver_sql(_INSERT, values).rowcount
    outcome = EnqueueOutcome.CREATED
    if inserted == len(created):
        return [Enqueued(new.task.task_id, outcome, new.due_time_us) for new in created]
    task = schema.task
    found = tx.connection.execute(
        select(task.c.task_id, task.c.seq, task.c.content_hash, task.c.due_time_us).where(
            task.c.task_id.in_([new.task.task_id for new in created])
        )
    )
    known = {row.task_id: row for row in found}
    answers = []
    for new in created:
        row = known[new.task.task_id]
        outcome = EnqueueOutcome.CREATED if row.seq == new.seq else _repeated(row.content_hash, new.task)
        answers.append(Enqueued(row.task_id, outcome, row.due_time_us))
    return answers


def _repeated(content_hash: bytes, task: NewTask) -> EnqueueOutcome:
    return EnqueueOutcome.EXISTING if content_hash == task.content_hash else EnqueueOutcome.CONFLICT


def _note(memory: Memory, stored: list[_Created]) -> None:
    earliest: dict[tuple[int, int], int] = {}
    for new in stored:
        place = new.route_id, new.task.priority
        if new.due_time_us < earliest.get(place, new.due_time_us + 1):
            earliest[place] = new.due_time_us
        memory.note_expiry(new.task.expire_time_us)
    for (route_id, priority), due_time_us in earliest.items():
        memory.waiting.note(route_id, priority, due_time_us)


@dataclass(slots=True)
class _Holder:
    """The task that holds a key."""

    task_id: bytes
    due_time_us: int
    waits: bool
    route_id: int = 0
    priority: int = 0
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
        asked = [task for task in tasks if task.dedup is not None]
        if asked:
            keys._read(tx, asked)
        return keys

    def _read(self, tx: Transaction, asked: list[NewTask]) -> None:
        task, dedup = schema.task, schema.dedup
        ids = [new.task_id for new in asked]
        existing = select(task.c.task_id, task.c.content_hash, task.c.due_time_us).where(task.c.task_id.in_(ids))
        self.known = {row[0]: (row[1], row[2]) for row in tx.connection.execute(existing)}
        wanted: dict[str, set[str]] = {}
        for new in asked:
            if new.dedup is not None:
                wanted.setdefault(new.dedup.scope, set()).add(new.dedup.key)
        held = select(dedup, task.c.state, task.c.due_time_us, task.c.route_id, task.c.priority).join_from(
            dedup, task, task.c.task_id == dedup.c.task_id, isouter=True
        )
        for scope, names in wanted.items():  # (scope, key) IN (VALUES ...) would read the whole table in SQLite
            self._learn(tx.connection.execute(held.where(dedup.c.scope == scope, dedup.c.key.in_(names))).all())

    def _learn(self, found: Sequence[Row[Any]]) -> None:
        for row in found:
            in_time = row.hold_until_us is not None and row.hold_until_us > self.now_us
            unfinished = row.state is not None and not TaskState(row.state).finished
            if in_time or (unfinished and row.hold != DedupHold.TTL):
                waits = row.state == TaskState.SCHEDULED
                due_time_us = self.now_us if row.due_time_us is None else row.due_time_us
                self.holders[row.scope, row.key] = _Holder(
                    row.task_id, due_time_us, waits, row.route_id or 0, row.priority or 0
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
            self.holders[place] = _Holder(new.task_id, due_time_us, waits=True)
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

    def write(self, memory: Memory, tx: Transaction, stored: list[NewTask]) -> None:
        if stored:
            self._hold(tx, stored)
        for holder in self.holders.values():
            if holder.moved:
                self._change(memory, tx, holder)

    def _hold(self, tx: Transaction, stored: list[NewTask]) -> None:
        dedup = schema.dedup
        if self.over:
            ended = dedup.delete().where(dedup.c.scope == bindparam("its_scope"), dedup.c.key == bindparam("its_key"))
            tx.connection.execute(ended, [{"its_scope": scope, "its_key": key} for scope, key in self.over])
        tx.connection.execute(
            dedup.insert(),
            [
                {
                    "scope": new.dedup.scope,
                    "key": new.dedup.key,
                    "task_id": new.task_id,
                    "hold": int(new.dedup.hold),
                    "hold_until_us": None if new.dedup.ttl_us is None else tx.now_us + new.dedup.ttl_us,
                }
                for new in stored
                if new.dedup
            ],
        )

    def _change(self, memory: Memory, tx: Transaction, holder: _Holder) -> None:
        task = schema.task
        values: dict[str, object] = {"due_time_us": holder.due_time_us}
        if (new := holder.takes) is not None:
            data, content_type, metadata = rows.payload_columns(new.payload)
            values |= {"payload": data, "payload_crc": rows.crc_of(data), "content_type": content_type}
            values |= {"payload_metadata": metadata, "headers": rows.json_or_null(new.headers)}
        waiting = task.c.task_id == bindparam("holder_id")
        change = update(task).where(waiting, schema.IS_SCHEDULED).values(values)
        place = change.returning(task.c.route_id, task.c.priority)
        for route_id, priority in tx.connection.execute(place, {"holder_id": holder.task_id}):
            memory.waiting.note(route_id, priority, holder.due_time_us)
        tx.changed.append(holder.task_id)
