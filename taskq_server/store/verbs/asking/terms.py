"""Each term of a filter, as a database can say it, or as it is checked on rows."""

from __future__ import annotations

import operator
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Column, Row, and_, not_, or_, select

from taskq_server.core.filter import PRESENT, Filter, Flag, Moment, Op, Term, Text
from taskq_server.core.task import TaskState
from taskq_server.store import rows, schema
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.asking.question import MOST_IN_LIST, STATE, Asked, Condition
from taskq_server.store.verbs.asking.routes import OF_ROUTE, is_of, learn_routes
from taskq_server.store.verbs.asking.texts import fold, holds, in_json, is_text

_task = schema.task.c
_OPERATORS: dict[Op, Callable[[Any, Any], Any]] = {
    Op.IS: operator.eq,
    Op.BELOW: operator.lt,
    Op.AT_MOST: operator.le,
    Op.ABOVE: operator.gt,
    Op.AT_LEAST: operator.ge,
}
_TIMES: dict[str, Column[int]] = {
    "due_time": _task.due_time_us,
    "enqueue_time": _task.enqueue_time_us,
    "expire_time": _task.expire_time_us,
    "lease_time": _task.lease_time_us,
    "finish_time": _task.finish_time_us,
}
_NUMBERS: dict[str, Column[int]] = {
    "priority": _task.priority,
    "attempt": _task.attempt,
    "failed_attempts": _task.failed_attempts,
}
_TEXTS: dict[str, Column[str]] = {
    "key": _task.dedup_key,
    "content_type": _task.content_type,
    "processor": _task.processor_name,
}
_OF_FLAG = {
    Flag.DUE: {TaskState.SCHEDULED},
    Flag.RETRYING: {TaskState.SCHEDULED},
    Flag.UNFINISHED: {state for state in TaskState if not state.finished},
    Flag.FINISHED: {state for state in TaskState if state.finished},
}


def asked(memory: Memory, tx: Transaction, wanted: Filter) -> Asked:
    """What a filter asks, at the time of the transaction."""
    found = Asked(tx.now_us)
    for term in wanted.terms:
        _ASK.get(term.key, _ask_column)(tx, found, term)
    routes = [term for term in wanted.terms if term.key in OF_ROUTE]
    if routes:
        learn_routes(memory, tx)
        all_routes = memory.routes
        found.route_ids = frozenset(number for number, route in all_routes.items() if is_of(route, routes))
        if len(found.route_ids) > MOST_IN_LIST:
            ids = found.route_ids
            found.checks.append(lambda row: row.route_id in ids)
    return found


def _ask_nothing(tx: Transaction, found: Asked, term: Term) -> None:
    """Routes are asked for together."""


def _ask_state(tx: Transaction, found: Asked, term: Term) -> None:
    states = frozenset(value for value in term.values if isinstance(value, TaskState))
    found.states = found.states - states if term.negated else found.states & states


def _ask_flag(tx: Transaction, found: Asked, term: Term) -> None:
    flags = [value for value in term.values if isinstance(value, Flag)]
    if not term.negated:
        found.states &= frozenset[TaskState]().union(*(_OF_FLAG[flag] for flag in flags))
        if len(flags) == 1:
            _ask_of_state(found, flags[0])
            return
    _add(found, term, [and_(STATE.in_(sorted(_OF_FLAG[flag])), *_beyond_state(found, flag)) for flag in flags])


def _ask_of_state(found: Asked, flag: Flag) -> None:
    """What one flag asks beside the states."""
    found.where += _beyond_state(found, flag)
    if flag is Flag.DUE:
        _note_due(found, found.now_us)


def _beyond_state(found: Asked, flag: Flag) -> list[Condition]:
    if flag is Flag.DUE:
        return [_task.due_time_us <= found.now_us]
    if flag is Flag.RETRYING:
        return [_task.failed_attempts > 0]
    return []


def _ask_time(tx: Transaction, found: Asked, term: Term) -> None:
    column, compare = _TIMES[term.key], _OPERATORS[term.op]
    times = [value.at(found.now_us) if isinstance(value, Moment) else None for value in term.values]
    _add(found, term, [column.is_not(None) if at is None else compare(column, at) for at in times], column)
    if term.key == "due_time" and not term.negated and term.op in (Op.BELOW, Op.AT_MOST) and times[0] is not None:
        _note_due(found, times[0])


def _note_due(found: Asked, until_us: int) -> None:
    found.due_until_us = until_us if found.due_until_us is None else min(found.due_until_us, until_us)


def _ask_number(tx: Transaction, found: Asked, term: Term) -> None:
    column, compare = _NUMBERS[term.key], _OPERATORS[term.op]
    _add(found, term, [compare(column, value) for value in term.values])


def _ask_column(tx: Transaction, found: Asked, term: Term) -> None:
    column = _TEXTS[term.key]
    _add(found, term, [is_text(column, value) for value in term.values if isinstance(value, Text)], column)


def _ask_id(tx: Transaction, found: Asked, term: Term) -> None:
    ids = [value.bytes for value in term.values if isinstance(value, uuid.UUID)]
    among = tx.sql.among(_task.task_id, ids)
    if term.negated:
        found.where.append(not_(among))
    else:
        found.where.append(among)
        found.few = select(_task.seq).where(among)


def _ask_rerun(tx: Transaction, found: Asked, term: Term) -> None:
    ids = [value.bytes for value in term.values if isinstance(value, uuid.UUID)]
    if PRESENT in term.values:
        _add(found, term, [_task.rerun_of.is_not(None)])
        return
    among = tx.sql.among(_task.rerun_of, ids)
    _add(found, term, [among], _task.rerun_of)
    if not term.negated:
        found.few = select(_task.seq).where(schema.IS_RERUN, among)


def _ask_schedule(tx: Transaction, found: Asked, term: Term) -> None:
    schedule, firing = schema.schedule, schema.firing
    texts = [value for value in term.values if isinstance(value, Text)]
    if any(value.begins and not value.text for value in texts):
        _add(found, term, [_task.schedule_seq.is_not(None)])
        return
    named = select(schedule.c.schedule_seq).where(or_(*(is_text(schedule.c.name, value) for value in texts)))
    numbers = list(tx.connection.execute(named.limit(MOST_IN_LIST + 1)).scalars())
    are_few = len(numbers) <= MOST_IN_LIST
    among = tx.sql.among(_task.schedule_seq, numbers) if are_few else _task.schedule_seq.in_(named)
    _add(found, term, [among], _task.schedule_seq)
    if are_few and not term.negated:
        fired = select(firing.c.task_id).where(tx.sql.among(firing.c.schedule_seq, numbers)).limit(MOST_IN_LIST + 1)
        # Read first: joined, a planner that knows nothing of the two might compare each with each.
        ids = list(tx.connection.execute(fired).scalars())
        if len(ids) <= MOST_IN_LIST:
            found.few = select(_task.seq).where(tx.sql.among(_task.task_id, ids))


def _ask_tag(tx: Transaction, found: Asked, term: Term) -> None:
    values = [value for value in term.values if isinstance(value, Text)]
    if not term.negated:
        found.where.append(or_(*(holds(_task.tags, f'"{in_json(value.text)}') for value in values)))

    def check(row: Row[Any]) -> bool:
        tags = rows.tags_of(row.tags)
        return any(value.matches(tag) for value in values for tag in tags) != term.negated

    found.checks.append(check)


def _ask_error(tx: Transaction, found: Asked, term: Term) -> None:
    parts = [value for value in term.values if isinstance(value, Text)]
    if any(part.begins for part in parts):
        _add(found, term, [_task.last_failure.is_not(None)])
        return
    if not term.negated:
        found.where.append(or_(*(holds(_task.last_failure, in_json(part.text)) for part in parts)))
    folded = [fold(part.text) for part in parts]

    def check(row: Row[Any]) -> bool:
        failure = rows.legible_failure(row.last_failure)
        said = () if failure is None else (fold(failure.error_type), fold(failure.message))
        return any(part in words for part in folded for words in said) != term.negated

    found.checks.append(check)


def _ask_error_type(tx: Transaction, found: Asked, term: Term) -> None:
    """A failure begins with its type."""
    column = _task.last_failure
    ends = [(in_json(value.text), "" if value.begins else '",') for value in term.values if isinstance(value, Text)]
    _add(found, term, [is_text(column, Text(f'["{begin}{end}', begins=True)) for begin, end in ends], column)


def _ask_failure(tx: Transaction, found: Asked, term: Term) -> None:
    """By the group that failures are counted in. Of a task that was rerun since, it is no longer true."""
    column, texts = _task.failure_group, [value for value in term.values if isinstance(value, Text)]
    has_failed = STATE.in_([TaskState.FAILED])
    _add(found, term, [and_(has_failed, is_text(column, value)) for value in texts], column)
    if not term.negated:
        found.states &= {TaskState.FAILED}
        if not any(value.begins for value in texts):
            among = tx.sql.among(column, [value.text for value in texts])
            found.few = select(_task.seq).where(schema.IS_FAILED, among)


_ASK: dict[str, Callable[[Transaction, Asked, Term], None]] = {
    **dict.fromkeys(OF_ROUTE, _ask_nothing),
    **dict.fromkeys(_TIMES, _ask_time),
    **dict.fromkeys(_NUMBERS, _ask_number),
    "id": _ask_id,
    "state": _ask_state,
    "is": _ask_flag,
    "tag": _ask_tag,
    "error": _ask_error,
    "error_type": _ask_error_type,
    "failure": _ask_failure,
    "schedule": _ask_schedule,
    "rerun_of": _ask_rerun,
}


def _add(found: Asked, term: Term, one_of: Iterable[Condition], nullable: Column[Any] | None = None) -> None:
    """What is NULL makes a term false, and with a `-` true."""
    condition = or_(*one_of)
    if term.negated:
        condition = not_(condition) if nullable is None else or_(nullable.is_(None), not_(condition))
    found.where.append(condition)
