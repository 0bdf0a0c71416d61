"""SQLite's own way: one writer at a time, so nothing has to be locked, and statements are cheap."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Row, func, select

from taskq_server.core.matching import Candidate, Seats
from taskq_server.store import rows, schema
from taskq_server.store.few import few
from taskq_server.store.sql import Asked, Due, NewSignal, Sql
from taskq_server.store.transaction import Transaction

_DUE = (
    "SELECT seq, due_time_us, coalesce(length(payload), 0) + coalesce(length(checkpoint), 0) FROM task "
    "WHERE state = 1 AND route_id = ? AND priority = ? "
    "AND (expire_time_us IS NULL OR failed_attempts > 0 OR expire_time_us > ?) ORDER BY due_time_us, seq LIMIT ?"
)
_TAKE = (
    "UPDATE task SET state = 2, attempt = attempt + 1, session_seq = taken.value ->> 1, "  # noqa: S608 - our own names
    "processor_name = taken.value ->> 2, lease_time_us = :now, run_deadline_us = :now + run_timeout_us "
    "FROM (SELECT value FROM json_each(:taken)) AS taken WHERE task.seq = taken.value ->> 0 AND task.state = 1 "
    f"RETURNING {', '.join('task.' + name for name in rows.ASSIGNMENT_COLUMNS)}"
)


class SQLiteSql(Sql):
    """Counts tasks itself: there is no other server that could."""

    def __init__(self) -> None:
        self._next_number = 1

    def begin(self, connection: Connection) -> None:
        """Takes up counting where the last server stopped."""
        self._next_number = (connection.execute(select(func.max(schema.task.c.seq))).scalar() or 0) + 1

    def among(self, column: Column[Any], values: Collection[Any]) -> ColumnElement[bool]:
        return column.in_(values)

    def task_numbers(self, tx: Transaction, many: int) -> Sequence[int]:
        first, self._next_number = self._next_number, self._next_number + many
        return range(first, self._next_number)

    def lock_keys(
        self, tx: Transaction, keys: Sequence[tuple[str, str]], may_change: Sequence[tuple[str, str]]
    ) -> None:
        pass

    def read_to_end(self, tx: Transaction, columns: str, task_ids: list[bytes]) -> Sequence[Row[Any]]:
        found: list[Row[Any]] = []
        for some in few(task_ids):
            marks = ", ".join("?" * len(some))
            statement = f"SELECT {columns} FROM task WHERE task_id IN ({marks})"  # noqa: S608 - our own names
            found += tx.connection.exec_driver_sql(statement, tuple(some)).all()
        return found

    def own(self, tx: Transaction, session_seqs: Collection[int]) -> set[int]:
        return set(session_seqs)

    def keep_from_leasing(self, tx: Transaction) -> None:
        pass

    def due(self, tx: Transaction, priority: int, asked: list[Asked]) -> list[Due]:
        return [_due(tx, priority, one) for one in asked]

    def take(self, tx: Transaction, placed: list[tuple[Candidate, Seats]]) -> Sequence[Row[Any]]:
        taken = rows.to_json([(candidate.seq, seats.session_seq, seats.processor_name) for candidate, seats in placed])
        return tx.connection.exec_driver_sql(_TAKE, {"now": tx.now_us, "taken": taken}).all()

    def tell(self, tx: Transaction, signals: list[NewSignal]) -> None:
        pass

    def first_due(self, connection: Connection) -> Iterator[tuple[int, int, int]]:
        task = schema.task
        for route_id in connection.execute(select(schema.route.c.route_id)).scalars().all():
            for priority in range(10):
                due = connection.execute(
                    select(task.c.due_time_us)
                    .where(schema.IS_SCHEDULED, task.c.route_id == route_id, task.c.priority == priority)
                    .order_by(task.c.due_time_us)
                    .limit(1)
                ).scalar()
                if due is not None:
                    yield route_id, priority, due


def _due(tx: Transaction, priority: int, asked: Asked) -> Due:
    """Reads one row more than asked for, to know what comes next."""
    route_id, _, at_most = asked
    found = tx.connection.exec_driver_sql(_DUE, (route_id, priority, tx.now_us, at_most + 1)).all()
    due = [Candidate(seq, route_id, priority, at, size) for seq, at, size in found[:at_most] if at <= tx.now_us]
    return Due((route_id, priority), due, found[len(due)][1] if len(due) < len(found) else None)
