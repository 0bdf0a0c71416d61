"""One batch of a bulk operation: what it does to each of a few hundred tasks, and which it has to leave out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import select

from taskq_server.core.bulk_operation import POSSIBLE, Action, ActionKind
from taskq_server.core.task import EnqueueOutcome, Payload, TaskState
from taskq_server.store import schema
from taskq_server.store.many import Many
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs import rerunning
from taskq_server.store.verbs.adding import add
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.ending import cancel_all
from taskq_server.store.verbs.firing_round import Stopped
from taskq_server.store.verbs.pruning import delete_finished
from taskq_server.store.verbs.rerunning import Finished, Template, new_id
from taskq_server.store.waiting import Place
from taskq_server.task_id import to_text

_MOVE = Many(schema.task, "UPDATE task SET due_time_us = {due_time_us} {from rows} WHERE task.seq = {seq}")
_REPRIORITISE = Many(schema.task, "UPDATE task SET priority = {priority} {from rows} WHERE task.seq = {seq}")
_LINK = Many(schema.task, "UPDATE task SET rerun_of = {rerun_of} {from rows} WHERE task.task_id = {task_id}")
_WAITING = "seq", "task_id", "state", "route_id", "priority", "due_time_us"
_GONE = "seq", "task_id", "state", "schedule_seq", "nominal_us"


@dataclass(slots=True)
class Batch:
    """What became of the tasks of a batch."""

    possible: frozenset[TaskState]
    done: int = 0
    skipped: list[str] = field(default_factory=list)
    """Why, for people."""
    stopped: list[Stopped] = field(default_factory=list)
    """Attempts that were cancelled, of whose end processors must hear."""

    def skip(self, task_id: bytes, state: TaskState | None) -> None:
        task = f"task {to_text(task_id)!r}"
        if state is None:
            self.skipped.append(f"{task} does not exist")
        else:
            possible = " or ".join(one.name.lower() for one in sorted(self.possible))
            self.skipped.append(f"{task} is {state.name.lower()}; must be {possible}")


@dataclass(frozen=True, slots=True)
class Doing:
    """What a batch is done with."""

    memory: Memory
    rules: Rules
    tx: Transaction
    operation_id: bytes
    action: Action
    states: frozenset[TaskState]
    """Those that are asked for."""

    @property
    def possible(self) -> frozenset[TaskState]:
        return POSSIBLE[self.action.kind] & self.states


def carry_out(doing: Doing, task_ids: list[bytes]) -> Batch:
    """Does the action to these tasks, as far as their states allow it."""
    batch = Batch(doing.possible)
    if task_ids:
        _DO[doing.action.kind](doing, batch, task_ids)
    return batch


def _cancel(doing: Doing, batch: Batch, task_ids: list[bytes]) -> None:
    cancelled = cancel_all(doing.memory, doing.rules, doing.tx, task_ids, batch.possible)
    for task_id, one in zip(task_ids, cancelled, strict=True):
        if one.state_before not in batch.possible:
            batch.skip(task_id, one.state_before)
            continue
        batch.done += 1
        if one.session_seq is not None:
            batch.stopped.append(Stopped(one.session_seq, task_id, one.attempt))


def _read(doing: Doing, batch: Batch, task_ids: list[bytes], columns: Iterable[str]) -> list[Sequence[Any]]:
    """The rows of those tasks to which it can be done, locked; the others are skipped. Number, id and state are their
    first columns."""
    rows = {row[1]: row for row in doing.tx.sql.read_to_end(doing.tx, ", ".join(columns), task_ids)}
    possible = []
    for task_id in task_ids:
        state = TaskState(rows[task_id][2]) if task_id in rows else None
        if state in batch.possible:
            possible.append(rows[task_id])
        else:
            batch.skip(task_id, state)
    return possible


def _rerun(doing: Doing, batch: Batch, task_ids: list[bytes]) -> None:
    if doing.action.payload is not None:
        _rerun_as_new(doing, batch, task_ids, doing.action.payload)
        return
    found = [Finished._make(row) for row in _read(doing, batch, task_ids, Finished._fields)]
    rerunning.rerun(doing.memory, doing.tx, found)
    batch.done += len(found)


def _rerun_as_new(doing: Doing, batch: Batch, task_ids: list[bytes], payload: Payload) -> None:
    """The ids of the new ones follow from the operation's and from those of the old."""
    tx = doing.tx
    read = _read(doing, batch, task_ids, Template._fields)
    found = {new_id(doing.operation_id, row[1]): Template._make(row) for row in read}
    new = []
    for task_id, old in found.items():
        route = doing.memory.route(tx.connection, old.route_id)
        try:
            new.append(old.again(task_id, route, payload))
        except (TypeError, ValueError):
            batch.skipped.append(f"task {to_text(old.task_id)!r} cannot be read")
    made = []
    for enqueued in add(doing.memory, tx, new):
        if enqueued.outcome is EnqueueOutcome.CREATED:
            made.append((found[enqueued.task_id].task_id, enqueued.task_id))
        else:
            batch.skipped.append(f"task {to_text(enqueued.task_id)!r} exists; must be a new id")
    _LINK.run(tx.connection, made)
    batch.done += len(made)


def _reschedule(doing: Doing, batch: Batch, task_ids: list[bytes]) -> None:
    tx, action = doing.tx, doing.action
    due_time_us = max(tx.now_us, action.due_time_us or tx.now_us + (action.delay_us or 0))
    found = _read(doing, batch, task_ids, _WAITING)
    _MOVE.run(tx.connection, [(due_time_us, row[0]) for row in found])
    _wait(doing, found, {(row[3], row[4]): due_time_us for row in found})
    batch.done += len(found)


def _reprioritise(doing: Doing, batch: Batch, task_ids: list[bytes]) -> None:
    priority = doing.action.priority or 0
    found = _read(doing, batch, task_ids, _WAITING)
    _REPRIORITISE.run(doing.tx.connection, [(priority, row[0]) for row in found])
    earliest: dict[Place, int] = {}
    for row in found:
        place = row[3], priority
        earliest[place] = min(row[5], earliest.get(place, row[5]))
    _wait(doing, found, earliest)
    batch.done += len(found)


def _wait(doing: Doing, found: list[Sequence[Any]], earliest: dict[Place, int]) -> None:
    """What waits does so elsewhere, or until another time, from when this is committed."""
    doing.tx.changed += [row[1] for row in found]
    doing.tx.wakes = True
    doing.tx.after_commit.append(partial(doing.memory.waiting.note_all, earliest))


def _delete(doing: Doing, batch: Batch, task_ids: list[bytes]) -> None:
    """The schedules first, as whoever fires them does; keys that are held for a time go on being held, as when a task
    is pruned."""
    tx, task, table = doing.tx, schema.task, schema.schedule
    of = select(task.c.schedule_seq).where(tx.sql.among(task.c.task_id, task_ids), task.c.schedule_seq.is_not(None))
    if seqs := sorted(set(tx.connection.execute(of).scalars())):
        those = select(table.c.schedule_seq).where(tx.sql.among(table.c.schedule_seq, seqs))
        tx.connection.execute(those.order_by(table.c.schedule_seq).with_for_update(key_share=True)).all()
    found = _read(doing, batch, task_ids, _GONE)
    delete_finished(tx, [(row[0], row[3], row[4]) for row in found])
    tx.changed += [row[1] for row in found]
    batch.done += len(found)


_DO: dict[ActionKind, Callable[[Doing, Batch, list[bytes]], None]] = {
    ActionKind.CANCEL: _cancel,
    ActionKind.RERUN: _rerun,
    ActionKind.RESCHEDULE: _reschedule,
    ActionKind.REPRIORITISE: _reprioritise,
    ActionKind.DELETE: _delete,
}
