"""Bulk operations: started, looked at, cancelled, and worked on, a batch a transaction.

A batch, how far the operation is and what was counted are committed together: whatever dies in between, nothing is done
twice, and nothing left out. Whoever works on it has locked its row; another server takes over what has not moved for a
while.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, delete, func, insert, not_, null, or_, select, update

from taskq_server.clock import SECOND_US
from taskq_server.core.bulk_operation import NewOperation, Operation, OperationState
from taskq_server.core.errors import OperationConflict, OperationEnded, OperationNotFound, TaskqError
from taskq_server.core.event import Topic
from taskq_server.core.filter import parse
from taskq_server.core.task import TaskState
from taskq_server.store import bulk_rows, rows, schema
from taskq_server.store.few import few
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs import asking, looking
from taskq_server.store.verbs.auditing import Audit, Facts, time_text
from taskq_server.store.verbs.bulk_batch import Doing, carry_out
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.firing_round import Stopped
from taskq_server.store.verbs.listing import Page
from taskq_server.store.verbs.looking import Look, Named
from taskq_server.task_id import to_text

MOST_A_BATCH = 200
MOST_BATCHES = 5
"""That are found by one look."""
LOOKED_AT = 20_000
"""Tasks in a look."""
MOST_BYTES_A_BATCH = 4 << 20
"""Of what it makes anew."""
MOST_SAMPLES = 10
TAKE_OVER_US = 5 * SECOND_US
MOST_FORGOTTEN = 100
MOST_TURNS = 4
"""Operations at which a server works by turns; the others wait until it comes to them."""
WAITS = "the operation waits: "
"""So begins what is told, among the samples, of one that cannot go on; the next batch takes it away."""

_table = schema.bulk_operation
_SHOWN = [null().label("payload") if column is _table.c.payload else column for column in _table.c]
"""All columns, but for what may be large and is shown to nobody."""


def start(tx: Transaction, new: list[NewOperation]) -> list[Operation | TaskqError]:
    """Stores operations; of one that is there with the same content, answers how it stands."""
    tx.sql.lock_keys(tx, [("\0operation", one.operation_id.hex()) for one in new], ())
    audit = Audit(tx)
    answers: list[Operation | TaskqError] = []
    for i, one in enumerate(new):
        answer, is_new = _start(tx, one, "" if (origin := tx.origin_of(i)) is None else origin.principal)
        if is_new and isinstance(answer, Operation):
            audit.note(i, "operation", to_text(one.operation_id), None, _facts(answer))
            tx.hint(Topic.BULK_OPERATIONS, [to_text(one.operation_id)])
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
    found = tx.connection.execute(select(*_SHOWN).where(tx.sql.among(_table.c.operation_id, operation_ids)))
    by_id = {row.operation_id: bulk_rows.operation_of(row) for row in found}
    return [by_id.get(operation_id) for operation_id in operation_ids]


def find(tx: Transaction, pages: list[Page]) -> list[list[Operation]]:
    """Operations, those started last first; those before a number."""
    return [[bulk_rows.operation_of(row) for row in tx.connection.execute(_page(page))] for page in pages]


def _page(page: Page) -> Any:
    before = [_table.c.operation_seq < page.after] if page.after else []
    return select(*_SHOWN).where(*before).order_by(_table.c.operation_seq.desc()).limit(page.at_most)


def cancel(tx: Transaction, operation_ids: list[bytes]) -> list[Operation | TaskqError]:
    """Ends operations, each after the batch at which it is; one that was cancelled already is fine."""
    audit = Audit(tx)
    answers: list[Operation | TaskqError] = []
    for i, operation_id in enumerate(operation_ids):
        one = select(*_SHOWN).where(_table.c.operation_id == operation_id)
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
        tx.hint(Topic.BULK_OPERATIONS, [to_text(operation_id)])
        answers.append(after)
    audit.write()
    return answers


def _update(tx: Transaction, operation_seq: int, **columns: Any) -> None:
    tx.connection.execute(update(_table).where(_table.c.operation_seq == operation_seq).values(**columns))


def _ended(tx: Transaction, state: OperationState) -> dict[str, Any]:
    """The columns of an operation that has ended. Its payload is needed no more."""
    return {"state": int(state), "end_time_us": tx.now_us, "payload": None}


def last_number(tx: Transaction, asked: list[None]) -> list[int]:
    """The number of the task that was enqueued last; 0 when there is none."""
    return [tx.connection.execute(select(func.max(schema.task.c.seq))).scalar() or 0] * len(asked)


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


class Step(NamedTuple):
    """What an operation comes to next, as far as a look has told, which keeps nobody waiting: the batch looks again."""

    operation_seq: int
    place: int
    """Where the operation was when that was looked for."""
    tasks: tuple[Named, ...]
    """None when they are named in the operation."""
    then: int
    """Where it is after these."""


@dataclass(slots=True)
class Advanced:
    """What a batch has done: nothing when the operation has ended, or has been moved on by another server."""

    moved: bool = False
    ended: bool = False
    stopped: list[Stopped] = field(default_factory=list)


class Turn(NamedTuple):
    """An operation at which this server is to work."""

    operation_seq: int
    operation_id: bytes


def turns(tx: Transaction, asked: list[frozenset[int]]) -> list[list[Turn]]:
    """The operations at which this server is to work, the one that has waited longest first; without those it is to
    spare."""
    theirs = _table.c.work_time_us > tx.now_us - TAKE_OVER_US
    mine = or_(_table.c.server_seq == tx.server_seq, ~theirs)
    waiting = select(_table.c.operation_seq, _table.c.operation_id).where(schema.IS_WORKED_ON, mine)
    in_turn = waiting.order_by(_table.c.work_time_us, _table.c.operation_seq).limit(MOST_TURNS)
    answers = []
    for spared in asked:
        found = in_turn.where(not_(tx.sql.among(_table.c.operation_seq, sorted(spared)))) if spared else in_turn
        answers.append([Turn(*row) for row in tx.connection.execute(found)])
    return answers


def next_steps(memory: Memory, tx: Transaction, operation_seqs: list[int]) -> list[list[Step]]:
    """What comes next in each of these operations; nothing in one that has ended."""
    return [_next_steps(memory, tx, operation_seq) for operation_seq in operation_seqs]


def _next_steps(memory: Memory, tx: Transaction, operation_seq: int) -> list[Step]:
    one: Select[Any] = select(*_SHOWN, func.length(_table.c.payload).label("payload_bytes"))
    row = tx.connection.execute(one.where(_table.c.operation_seq == operation_seq, schema.IS_WORKED_ON)).one_or_none()
    return [] if row is None else _steps(memory, tx, row)


def _steps(memory: Memory, tx: Transaction, row: Row[Any]) -> list[Step]:
    at_most = _batch_size(row.payload_bytes)
    if not row.filter:
        ends = range(row.place, 0, -at_most)[:MOST_BATCHES] or [0]  # one that is at its end has to end, too
        return [Step(row.operation_seq, end, (), max(0, end - at_most)) for end in ends]
    look = Look(parse(row.filter), row.place, MOST_BATCHES * at_most, LOOKED_AT)
    tasks, then = looking.names(memory, _as_at_start(tx, row), look)
    batches = [tuple(tasks[start : start + at_most]) for start in range(0, len(tasks), at_most)] or [()]
    places = [row.place, *(batch[-1].seq for batch in batches[:-1]), then or 0]
    return [Step(row.operation_seq, places[i], batch, places[i + 1]) for i, batch in enumerate(batches)]


def _as_at_start(tx: Transaction, row: Row[Any]) -> Transaction:
    """What a filter says of now it has said when the operation was started."""
    return replace(tx, now_us=row.start_time_us)


def advance(memory: Memory, rules: Rules, tx: Transaction, steps: list[Step]) -> list[Advanced]:
    """Does one batch of each operation."""
    return [_advance(memory, rules, tx, step) for step in steps]


def _advance(memory: Memory, rules: Rules, tx: Transaction, step: Step) -> Advanced:
    one = select(_table).where(_table.c.operation_seq == step.operation_seq, schema.IS_WORKED_ON)
    row = tx.connection.execute(one.with_for_update(key_share=True, skip_locked=True)).one_or_none()
    if row is None or row.place != step.place:
        return Advanced()
    found, states = (_matching if row.filter else _named)(memory, tx, row, step)
    then = step.then
    if row.max_tasks and len(found) > (left := row.max_tasks - row.done):
        found = found[:left]  # of which some may be skipped: then others take their turn
        then = found[-1].seq
    doing = Doing(memory, rules, tx, row.operation_id, bulk_rows.action_of(row), states)
    batch = carry_out(doing, [one.task_id for one in found])
    done, skipped = row.done + batch.done, row.skipped + len(batch.skipped)
    samples = [*_samples(row), *batch.skipped][:MOST_SAMPLES]
    columns = {"place": then, "done": done, "skipped": skipped, "skipped_samples": rows.to_json(samples)}
    columns |= {"server_seq": tx.server_seq, "work_time_us": tx.now_us}
    is_over = then == 0 or (row.max_tasks > 0 and done >= row.max_tasks)
    if is_over:
        columns |= _ended(tx, OperationState.SUCCEEDED)
    _update(tx, row.operation_seq, **columns)
    tx.hint(Topic.BULK_OPERATIONS, [to_text(row.operation_id)])
    return Advanced(True, is_over, batch.stopped)


def _samples(row: Row[Any]) -> list[str]:
    """Why tasks were skipped."""
    return [sample for sample in json.loads(row.skipped_samples) if not sample.startswith(WAITS)]


class Trouble(NamedTuple):
    """What keeps an operation from going on."""

    operation_seq: int
    why: str


def note_troubles(tx: Transaction, troubles: list[Trouble]) -> list[None]:
    """Lets those who look at an operation see why it does not move. Its time stays: others may take it over."""
    for trouble in troubles:
        one = select(*_SHOWN).where(_table.c.operation_seq == trouble.operation_seq, schema.IS_WORKED_ON)
        row = tx.connection.execute(one.with_for_update(key_share=True, skip_locked=True)).one_or_none()
        if row is None:
            continue
        samples = rows.to_json([WAITS + trouble.why, *_samples(row)][:MOST_SAMPLES])
        if samples != row.skipped_samples:
            _update(tx, row.operation_seq, skipped_samples=samples)
            tx.hint(Topic.BULK_OPERATIONS, [to_text(row.operation_id)])
    return [None] * len(troubles)


def _batch_size(payload_bytes: int | None) -> int:
    """Of operations that make something anew, by how much that is."""
    if payload_bytes is None:
        return MOST_A_BATCH
    return max(1, min(MOST_A_BATCH, MOST_BYTES_A_BATCH // max(1, payload_bytes)))


Found = tuple[list[Named], frozenset[TaskState]]
"""The tasks of a batch, each with the place after it, and the states in which it is asked for."""


def _named(memory: Memory, tx: Transaction, row: Row[Any], step: Step) -> Found:
    task_ids = bulk_rows.task_ids_of(row.task_ids)
    return [Named(i, task_ids[i]) for i in reversed(range(step.then, step.place))], frozenset(TaskState)


def _matching(memory: Memory, tx: Transaction, row: Row[Any], step: Step) -> Found:
    """Those that still match, and the states in which they do."""
    if not step.tasks:
        return [], frozenset()
    wanted, task = asking.asked(memory, _as_at_start(tx, row), parse(row.filter)), schema.task
    among = tx.sql.among(task.c.seq, [one.seq for one in step.tasks])
    if not wanted.checks:
        seqs = tx.sql.numbers(tx, select(task.c.seq).where(among, *wanted.conditions(tx)))
    else:
        those: Select[Any] = select(task.c.seq, *asking.CHECKED).where(among, *wanted.conditions(tx))
        seqs = {one.seq for one in tx.connection.execute(those) if wanted.passes(one)}
    return [one for one in step.tasks if one.seq in seqs], wanted.states


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
