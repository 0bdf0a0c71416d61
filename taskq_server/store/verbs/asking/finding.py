"""The way on which a database comes soonest to the tasks that are asked for."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select, text

from taskq_server.core.task import TaskState
from taskq_server.store import schema
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.asking.question import MOST_IN_LIST, Asked
from taskq_server.store.verbs.asking.routes import learn_routes

MOST_PLACES = 512
"""Routes whose due times are looked for one by one."""

_task = schema.task.c
_BY_INDEX = {
    TaskState.SCHEDULED: schema.IS_SCHEDULED,
    TaskState.RUNNING: schema.IS_RUNNING,
    TaskState.FAILED: schema.IS_FAILED,
    TaskState.CANCELLED: schema.IS_CANCELLED,
}
"""Those that have an index. SUCCEEDED has none: most tasks are."""
IN_ORDER = {
    frozenset({TaskState.FAILED}): schema.IS_FAILED,
    frozenset({TaskState.CANCELLED}): schema.IS_CANCELLED,
}
"""Those whose index has them in the order of enqueueing."""
_ALL_PRIORITIES = text("priority IN (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)")


def ways(memory: Memory, tx: Transaction, wanted: Asked) -> list[Select[Any]]:
    """Where the tasks that are meant are found among few others, in no order; nothing when there is no such way."""
    if wanted.few is not None:
        return [wanted.few]
    if wanted.states in IN_ORDER or not wanted.states <= _BY_INDEX.keys():
        return []
    return [_by_state(memory, tx, wanted, state) for state in sorted(wanted.states)]


def _by_state(memory: Memory, tx: Transaction, wanted: Asked, state: TaskState) -> Select[Any]:
    way = select(_task.seq).where(_BY_INDEX[state])
    if state is not TaskState.SCHEDULED:
        return way
    route_ids = wanted.route_ids
    if wanted.due_until_us is not None:  # the index has due times in order within a route and a priority
        if route_ids is None:
            learn_routes(memory, tx)
            route_ids = frozenset(memory.routes)
        if len(route_ids) <= MOST_PLACES:
            way = way.where(_ALL_PRIORITIES, _task.due_time_us <= wanted.due_until_us)
    if route_ids is not None and len(route_ids) <= MOST_IN_LIST:
        way = way.where(tx.sql.among(_task.route_id, route_ids))
    return way
