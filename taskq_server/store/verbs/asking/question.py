"""What a filter asks of tasks: states and routes by themselves, the rest as conditions and checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Row, Select

from taskq_server.core.task import TaskState
from taskq_server.store import schema
from taskq_server.store.transaction import Transaction

MOST_IN_LIST = 5_000
"""Of numbers that are named in a statement."""

Check = Callable[[Row[Any]], bool]
Condition = ColumnElement[bool]

_task = schema.task.c
SEQ = _task.seq + 0
"""Offers no index."""
STATE = _task.state + 0
_STATES = frozenset(TaskState)
CHECKED = _task.route_id, _task.tags, _task.last_failure


@dataclass(slots=True)
class Asked:
    """What a filter asks of tasks."""

    now_us: int
    states: frozenset[TaskState] = _STATES
    route_ids: frozenset[int] | None = None
    """Of the names and requirements that are asked for; None for all."""
    where: list[Condition] = field(default_factory=list)
    """Of the rest, what a database can say."""
    checks: list[Check] = field(default_factory=list)
    """And what it cannot, on rows of CHECKED."""
    few: Select[Any] | None = None
    """The numbers of tasks that are looked up as quickly as they are named, all that are asked for among them."""
    due_until_us: int | None = None
    """Of those that are scheduled, none is due later."""

    @property
    def is_nothing(self) -> bool:
        """Whether no task can be meant."""
        return not self.states or (self.route_ids is not None and not self.route_ids)

    def conditions(self, tx: Transaction, *, by_state: bool = False) -> list[Condition]:
        """All of it; but for the states on the ways by state, so that the index alone can tell what it has."""
        found = list(self.where)
        if self.states < _STATES and not by_state:
            found.append(STATE.in_(sorted(self.states)))
        if self.route_ids is not None and len(self.route_ids) <= MOST_IN_LIST:
            found.append(tx.sql.among(_task.route_id, self.route_ids))
        return found

    def passes(self, row: Row[Any]) -> bool:
        return all(check(row) for check in self.checks)
