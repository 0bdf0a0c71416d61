"""Bulk operations: started, looked at, cancelled, and worked on, a batch a transaction.

A batch, how far the operation is and what was counted are committed together: whatever dies in between, nothing is done
twice, and nothing left out. Whoever works on it has locked its row; another server takes over what has not moved for a
while.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Row, delete, func, insert, or_, select, update

from taskq_server.clock import SECOND_US
from taskq_server.core.bulk_operation import (
    Action,
    NewOperation,
    Operation,
    OperationState,
)
from taskq_server.core.errors import OperationConflict, OperationEnded, OperationNotFound, TaskqError
from taskq_server.store import bulk_rows, rows, schema
from taskq_server.store.few import few
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.auditing import Audit, Facts, time_text
from taskq_server.store.verbs.bulk_batch import Doing, carry_out
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.firing_round import Stopped
from taskq_server.store.verbs.listing import Page
from taskq_server.task_id import to_text

MOST_A_BATCH = 200
MOST_BYTES_A_BATCH = 4 << 20
"""Of what it makes anew."""
MOST_SAMPLES = 10
TAKE_OVER_US = 5 * SECOND_US
MOST_FORGOTTEN = 100

_table = schema.bulk_operation


def start(tx: Transaction, new: list[NewOperation]) -> list[Operation | TaskqError]:
    """Stores operations; of one that is there with the same content, answers how it stands."""
    tx.sql.lock_keys(tx, [("\0operation", one.operation_id.hex()) for one in new], ())
    audit = Audit(tx)
    answers: list[Operation | TaskqError] = []
    for i, one in enumerate(new):
        answer, is_new = _start(tx, one, "" if (origin := tx.origin_of(i)) is None else origin.principal)
        if is_new and isinstance(answer, Operation):
            audit.note(i, "operation", to_text(one.operation_id), None, _facts(answer))
        answers.append(answer)
    audit.write()
    return answers


def _start(tx: Transaction, new: NewOperation, principal: str) -> tuple[Operation | TaskqError, bool]:
    (found,) = get(tx, [new.operation_id])
    if found is not None:
        is_same = found.content_hash == new.content_hash
        return found if is_same else OperationConflict(to_text(new.operation_id)), False
    columns = bulk_rows.operation_columns(new)
    columns |= {"principal": principal, "start_time_us": tx.now_us, "server_seq": tx.server_seq}
    tx.connection.execute(insert(_table).values(work_time_us=tx.now_us, **columns))
    (stored,) = get(tx, [new.operation_id])
    assert stored is not None, "it has just been stored"
    return stored, True


def get(tx: Transaction, operation_ids: list[bytes]) -> list[Operation | None]:
    found = tx.connection.execute(select(_table).where(tx.sql.among(_table.c.operation_id, operation_ids)))
    by_id = {row.operation_id: bulk_rows.operation_of(row) for row in found}
    return [by_id.get(operation_id) for operation_id in operation_ids]


def find(tx: Transaction, pages: list[Page]) -> list[list[Operation]]:
    """Operations, those started last first; those before a number."""
    return [[bulk_rows.operation_of(row) for row in tx.connection.execute(_page(page))] for page in pages]


def _page(page: Page) -> Any:
    before = [_table.c.operation_seq < page.after] if page.after else []
    return select(_table).where(*before).order_by(_table.c.operation_seq.desc()).limit(page.at_most)


def cancel(tx: Transaction, operation_ids: list[bytes]) -> list[Operation | TaskqError]:
    """Ends operations, each after the batch at which it is; one that was cancelled already is fine."""
    audit = Audit(tx)
    answers: list[Operation | TaskqError] = []
    for i, operation_id in enumerate(operation_ids):
        one = select(_table).where(_table.c.operation_id == operation_id)
        row = tx.connection.execute(one.with_for_update(key_share=True)).one_or_none()
        if row is None:
            answers.append(OperationNotFound(to_text(operation_id)))
            continue
        before = bulk_rows.operation_of(row)
        if before.state is OperationState.SUCCEEDED:
            answers.append(OperationEnded(to_text(operation_id), before.state.name.lower()))
            continue
        if before.state is OperationState.RUNNING:
            _update(tx, row.operation_seq, **_ended(tx, OperationState.CANCELLED))
        (after,) = get(tx, [operation_id])
        assert after is not None, "it is locked"
        audit.note(i, "operation", to_text(operation_id), _standing(before), _standing(after))
        answers.append(after)
    audit.write()
    return answers


def _update(tx: Transaction, operation_seq: int, **columns: Any) -> None:
    tx.connection.execute(update(_table).where(_table.c.operation_seq == operation_seq).values(**columns))


def _ended(tx: Transaction, state: OperationState) -> dict[str, Any]:
    """The columns of an operation that has ended. Its payload is needed no more."""
    return {"state": int(state), "end_time_us": tx.now_us, "payload": None}


def count_ids(tx: Transaction, asked: list[tuple[bytes, ...]]) -> list[int]:
    """How many tasks there are of these."""
    task = schema.task
    return [
        sum(
            tx.connection.execute(select(func.count()).where(tx.sql.among(task.c.task_id, some))).scalar_one()
            for some in few(list(task_ids))
        )
        for task_ids in asked
    ]


# ── the work ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Advanced:
    """What a batch has done: None of it when the operation has ended, or is in other hands."""

    moved: bool = False
    ended: bool = False
    done: int = 0
    skipped: int = 0
    stopped: list[Stopped] = field(default_factory=list)


def running(tx: Transaction, asked: list[None]) -> list[list[int]]:
    """The operations at which this server is to work."""
    theirs = _table.c.work_time_us > tx.now_us - TAKE_OVER_US
    mine = or_(_table.c.server_seq == tx.server_seq, ~theirs)
    found = select(_table.c.operation_seq).where(schema.IS_WORKED_ON, mine).order_by(_table.c.operation_seq)
    return [list(tx.connection.execute(found).scalars())] * len(asked)


def advance(memory: Memory, rules: Rules, tx: Transaction, operation_seqs: list[int]) -> list[Advanced]:
    """Does one batch of each operation."""
    return [_advance(memory, rules, tx, operation_seq) for operation_seq in operation_seqs]


def _advance(memory: Memory, rules: Rules, tx: Transaction, operation_seq: int) -> Advanced:
    one = select(_table).where(_table.c.operation_seq == operation_seq, schema.IS_WORKED_ON)
    row = tx.connection.execute(one.with_for_update(key_share=True, skip_locked=True)).one_or_none()
    if row is None:
        return Advanced()
    action = bulk_rows.action_of(row)
    at_most = _batch_size(action)
    if row.max_tasks:
        at_most = min(at_most, row.max_tasks - row.done)
    found = select_ids(tx, row, at_most)
    batch = carry_out(Doing(memory, rules, tx, row.operation_id, action), found.task_ids)
    done, skipped = row.done + batch.done, row.skipped + len(batch.skipped)
    samples = [*json.loads(row.skipped_samples), *batch.skipped][:MOST_SAMPLES]
    columns = {"place": found.place, "done": done, "skipped": skipped, "skipped_samples": rows.to_json(samples)}
    columns |= {"server_seq": tx.server_seq, "work_time_us": tx.now_us}
    is_over = found.place >= row.upper or (row.max_tasks > 0 and done >= row.max_tasks)
    if is_over:
        columns |= _ended(tx, OperationState.SUCCEEDED)
    _update(tx, operation_seq, **columns)
    return Advanced(True, is_over, batch.done, len(batch.skipped), batch.stopped)


def _batch_size(action: Action) -> int:
    if action.payload is None:
        return MOST_A_BATCH
    return max(1, min(MOST_A_BATCH, MOST_BYTES_A_BATCH // max(1, len(action.payload.data))))


class Selected(NamedTuple):
    """The tasks of a batch, and the place at which the next one begins."""

    task_ids: list[bytes]
    place: int


def select_ids(tx: Transaction, row: Row[Any], at_most: int) -> Selected:
    """The next tasks of an operation."""
    task_ids = bulk_rows.task_ids_of(row.task_ids)[row.place : row.place + at_most]
    return Selected(list(task_ids), row.place + len(task_ids))


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────────────────────────


def forget(tx: Transaction, keep_us: list[int]) -> list[int]:
    """Deletes operations that ended longer ago than that, some at a time; answers how many."""
    before_us = tx.now_us - max(keep_us)
    old = select(_table.c.operation_seq).where(_table.c.end_time_us < before_us).order_by(_table.c.operation_seq)
    some = old.limit(MOST_FORGOTTEN).with_for_update(skip_locked=True)
    gone = tx.connection.execute(delete(_table).where(_table.c.operation_seq.in_(some))).rowcount
    return [gone] * len(keep_us)


def _facts(one: Operation) -> Facts:
    """What the audit tells of an operation that is started."""
    action = one.action
    told = {
        "action": action.kind.name,
        "due_time": time_text(action.due_time_us),
        "delay_us": action.delay_us,
        "priority": action.priority,
        "with_payload": action.payload is not None or None,
        "filter": one.filter or None,
        "task_ids": list(map(to_text, one.task_ids)) or None,
        "matched_tasks": one.matched,
        "max_tasks": one.max_tasks or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _standing(one: Operation) -> Facts:
    return {"state": one.state.name, "done_tasks": one.done, "skipped_tasks": one.skipped}
