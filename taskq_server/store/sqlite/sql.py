"""SQLite's own way: one writer at a time, so nothing has to be locked, and statements are cheap."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, func, literal_column, select

from taskq_server.core.matching import Candidate, Seats
from taskq_server.store import rows, schema
from taskq_server.store.few import MOST_AT_ONCE, few
from taskq_server.store.many import Many
from taskq_server.store.sql import Asked, Due, NewSignal, Sql, Succeeded
from taskq_server.store.sqlite.packed import Packed
from taskq_server.store.transaction import Transaction

_DUE = Packed(
    schema.task,
    ("seq", "due_time_us", "coalesce(length(payload), 0) + coalesce(length(checkpoint), 0) AS size"),
    "FROM task WHERE state = 1 AND route_id = ? AND priority = ? AND due_time_us >= ? "
    "AND (expire_time_us IS NULL OR failed_attempts > 0 OR expire_time_us > ?) ORDER BY due_time_us, seq LIMIT ?",
)
_TAKE = Many(
    schema.task,
    "UPDATE task SET state = 2, attempt = attempt + 1, session_seq = {session_seq}, "
    "processor_name = {processor_name}, lease_time_us = max({now_us}, due_time_us), "
    "run_deadline_us = max({now_us}, due_time_us) + run_timeout_us {from rows} "
    "WHERE task.seq = {seq} AND task.state + 0 = 1",
    shared=("now_us",),
)
_AMONG = "IN (SELECT value FROM json_each(?))"
_TAKEN = Packed(schema.task, rows.ASSIGNMENT_COLUMNS, f"FROM task WHERE seq {_AMONG} AND state + 0 = 2")
_SUCCEED = Many(
    schema.task,
    "UPDATE task SET state = 3, finish_time_us = {now_us}, "
    "prune_time_us = {now_us} + coalesce(task.retention_us, {usual_retention_us}), run_deadline_us = NULL, "
    "last_outcome = 1, result = {result}, result_type = {result_type}, result_metadata = {result_metadata} {from rows} "
    "WHERE task.seq = {seq} AND task.task_id = {task_id} AND task.attempt = {attempt} "
    "AND task.session_seq = {session_seq} AND task.state + 0 = 2 AND task.dedup_key IS NULL",
    shared=("now_us", "usual_retention_us"),
)
MOST_BYTES_AT_ONCE = 4 << 20


class SQLiteSql(Sql):
    """Counts tasks itself: there is no other server that could."""

    def __init__(self) -> None:
        self._next_number = 1

    def begin(self, connection: Connection) -> None:
        """Takes up counting where the last server stopped."""
        self._next_number = (connection.execute(select(func.max(schema.task.c.seq))).scalar() or 0) + 1

    def among(self, column: Column[Any], values: Collection[Any]) -> ColumnElement[bool]:
        return column.in_(values)

    def value_of(self, column: Column[int], values: Mapping[int, int]) -> ColumnElement[int]:
        """From one text: it is the same statement however many there are, which is parsed once."""
        return func.json_extract(json.dumps(values), literal_column("'$.\"'").concat(column).concat('"'))

    def numbers(self, tx: Transaction, those: Select[Any]) -> set[int]:
        """As one row, since the driver gives Python's lock away for each."""
        found = those.subquery("those")
        return set(json.loads(tx.connection.execute(select(func.json_group_array(found.c.seq))).scalar_one()))

    def task_numbers(self, tx: Transaction, many: int) -> Sequence[int]:
        first, self._next_number = self._next_number, self._next_number + many
        return range(first, self._next_number)

    def lock_keys(
        self, tx: Transaction, keys: Sequence[tuple[str, str]], may_change: Sequence[tuple[str, str]]
    ) -> None:
        pass

    def succeed(self, tx: Transaction, succeeded: list[Succeeded], retention_us: int) -> int:
        return _SUCCEED.run(tx.connection, succeeded, tx.now_us, retention_us)

    def read_to_end(self, tx: Transaction, columns: str, task_ids: list[bytes]) -> Sequence[Sequence[Any]]:
        found: list[Sequence[Any]] = []
        for some in few(task_ids):
            found += _read_to_end(columns, len(some)).rows(tx.connection, tuple(some))
        return found

    def own(self, tx: Transaction, session_seqs: Collection[int]) -> set[int]:
        return set(session_seqs)

    def keep_from_leasing(self, tx: Transaction) -> None:
        pass

    def in_turn(self, tx: Transaction) -> None:
        pass

    def due(self, tx: Transaction, priority: int, asked: list[Asked], until_us: int) -> list[Due]:
        return [_due(tx, priority, one, until_us) for one in asked]

    def take(self, tx: Transaction, placed: list[tuple[Candidate, Seats]]) -> Sequence[Sequence[Any]]:
        values = [(seats.session_seq, seats.processor_name, candidate.seq) for candidate, seats in placed]
        _TAKE.run(tx.connection, values, tx.now_us)
        taken: list[Sequence[Any]] = []
        for some in _by_size(placed):
            taken += _TAKEN.rows(tx.connection, (rows.to_json(some),))
        return taken

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


def _due(tx: Transaction, priority: int, asked: Asked, until_us: int) -> Due:
    """Reads one row more than asked for, to know what comes next."""
    route_id, known_us, at_most = asked
    found = _DUE.rows(tx.connection, (route_id, priority, known_us, tx.now_us, at_most + 1))
    in_order = sorted((at, seq, size) for seq, at, size in found)
    due = [Candidate(seq, route_id, priority, at, size) for at, seq, size in in_order[:at_most] if at <= until_us]
    return Due((route_id, priority), due, in_order[len(due)][0] if len(due) < len(in_order) else None)


def _by_size(placed: list[tuple[Candidate, Seats]]) -> Iterator[list[int]]:
    """The numbers of tasks that together hold no more than can be read at once, or of a single one."""
    seqs: list[int] = []
    size_bytes = 0
    for candidate, _ in placed:
        size_bytes += candidate.size_bytes
        if seqs and size_bytes > MOST_BYTES_AT_ONCE:
            yield seqs
            seqs, size_bytes = [], candidate.size_bytes
        seqs.append(candidate.seq)
    if seqs:
        yield seqs


@lru_cache(maxsize=2 * MOST_AT_ONCE)
def _read_to_end(columns: str, many: int) -> Packed:
    return Packed(schema.task, columns.split(", "), f"FROM task WHERE task_id IN ({', '.join('?' * many)})")
