"""PostgreSQL's own way: several servers at once, so rows are locked before anything is decided about them.

Locks are taken in one order, each transaction runs one verb, and rows that another server has locked to take them are
passed over: nobody waits in a circle. Arrays carry batches: each statement is one round trip and keeps one plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Column, ColumnElement, Connection, Integer, Select, any_, bindparam, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.elements import Grouping

from taskq_server.core.matching import Candidate, Seats
from taskq_server.store import rows
from taskq_server.store.many import array_of
from taskq_server.store.sql import Asked, Due, NewSignal, Sql, Succeeded
from taskq_server.store.transaction import Transaction

MOST_LOCKS = 1_024
_FIRST_LOCK = int.from_bytes(b"taskq") << 16
"""Of a range that nobody else should use."""

_LEASING = _FIRST_LOCK + MOST_LOCKS
"""Shared by those who lease; whoever decides what may be leased has it alone."""
LEASE = f"pg_advisory_xact_lock_shared({_LEASING})"
_KEEP_FROM_LEASING = f"SELECT pg_advisory_xact_lock({_LEASING})"
_TAKE_TURN = f"SELECT pg_advisory_xact_lock({_LEASING + 1})"

NUMBERS = "ARRAY (SELECT nextval('task_seq_seq') FROM generate_series(1, {many}::bigint))"
"""Of so many new tasks."""
_NUMBERS = f"SELECT {NUMBERS.format(many='$1')}"
_LOCK_KEYS = "SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS key"
_LOCK_HOLDERS = """
SELECT task.seq FROM task
WHERE task.task_id IN (
  SELECT dedup.task_id FROM unnest($1::text[], $2::text[]) AS asked (scope, key)
  JOIN dedup ON dedup.scope = asked.scope AND dedup.key = asked.key
) ORDER BY task.seq FOR NO KEY UPDATE
"""
_OWN = """
SELECT session_seq, server_seq FROM session WHERE session_seq = ANY ($1::bigint[]) ORDER BY session_seq FOR KEY SHARE
"""
# The sessions first, as everybody does who ends attempts; they stay where they are until this is over.
_SUCCEED = """
WITH own AS MATERIALIZED (
  SELECT session_seq FROM session WHERE session_seq = ANY ($8::bigint[]) AND server_seq = $9::bigint
  ORDER BY session_seq FOR KEY SHARE
)
UPDATE task SET state = 3, finish_time_us = $10::bigint,
  prune_time_us = $10::bigint + coalesce(task.retention_us, $11::bigint), run_deadline_us = NULL, last_outcome = 1,
  result = new.result, result_type = new.result_type, result_metadata = new.result_metadata
FROM unnest($1::bytea[], $2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::bigint[], $7::bigint[])
  AS new (result, result_type, result_metadata, seq, task_id, attempt, session_seq)
WHERE task.seq = new.seq AND task.task_id || '' = new.task_id AND task.attempt = new.attempt
  AND task.session_seq = new.session_seq AND task.state + 0 = 2 AND task.dedup_key IS NULL
  AND (new.session_seq IN (SELECT session_seq FROM own)) IS TRUE
"""
# What is due later than known_us alone is looked at: what lies before it in the index has been leased already, and may
# be dead rows by the thousands when somebody holds an old snapshot.
_DUE = """
WITH asked AS MATERIALIZED (
  SELECT asked.route_id, asked.known_us, asked.at_most, (
    SELECT due_time_us FROM task
    WHERE state = 1 AND route_id = asked.route_id AND priority = $4::smallint AND due_time_us > $6::bigint
    ORDER BY due_time_us LIMIT 1
  ) AS after_us
  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS asked (route_id, known_us, at_most)
)
SELECT asked.route_id, asked.after_us, due.seq, due.due_time_us, due.size
FROM asked LEFT JOIN LATERAL (
  SELECT seq, due_time_us, coalesce(octet_length(payload), 0) + coalesce(octet_length(checkpoint), 0) AS size
  FROM task
  WHERE state = 1 AND route_id = asked.route_id AND priority = $4::smallint
    AND due_time_us >= asked.known_us AND due_time_us <= $6::bigint
    AND (expire_time_us IS NULL OR failed_attempts > 0 OR expire_time_us > $5::bigint)
  ORDER BY due_time_us, seq LIMIT asked.at_most
  FOR NO KEY UPDATE SKIP LOCKED
) AS due ON true
"""
# A session's row is share-locked, so that while it is given tasks it can neither end, nor be drained, nor move to
# another server. The lease begins by the clock of this statement, which has seen how the attempt before has ended.
_TAKE = f"""
WITH taken AS MATERIALIZED (
  SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS taken (seq, session_seq, processor_name)
), open AS MATERIALIZED (
  SELECT session_seq FROM session
  WHERE session_seq = ANY ($4::bigint[]) AND end_time_us IS NULL AND drain_time_us IS NULL AND server_seq = $5::bigint
  ORDER BY session_seq FOR KEY SHARE
), clock AS MATERIALIZED (
  SELECT coalesce($6::bigint, (extract(epoch FROM statement_timestamp()) * 1000000)::bigint) AS now_us
)
UPDATE task SET state = 2, attempt = task.attempt + 1, session_seq = taken.session_seq,
  processor_name = taken.processor_name, lease_time_us = greatest(clock.now_us, task.due_time_us),
  run_deadline_us = greatest(clock.now_us, task.due_time_us) + task.run_timeout_us
FROM taken, clock
WHERE task.seq = taken.seq AND task.state + 0 = 1 AND (taken.session_seq IN (SELECT session_seq FROM open)) IS TRUE
RETURNING {", ".join("task." + name for name in rows.ASSIGNMENT_COLUMNS)}
"""  # noqa: S608 - our own names
_TELL = """
INSERT INTO signal (server_seq, session_seq, kind, task_id, attempt)
SELECT session.server_seq, new.session_seq, new.kind, new.task_id, new.attempt
FROM unnest($1::bigint[], $2::smallint[], $3::bytea[], $4::integer[]) AS new (session_seq, kind, task_id, attempt)
JOIN session ON session.session_seq = new.session_seq
WHERE session.server_seq NOT IN (0, $5::bigint)
"""
# One seek from each place to the next, however many tasks wait in it.
_FIRST_DUE = """
WITH RECURSIVE place (route_id, priority, due_time_us) AS (
  (SELECT route_id, priority, due_time_us FROM task WHERE state = 1
   ORDER BY route_id, priority, due_time_us LIMIT 1)
  UNION ALL
  SELECT following.* FROM place CROSS JOIN LATERAL (
    SELECT task.route_id, task.priority, task.due_time_us FROM task
    WHERE state = 1 AND (task.route_id, task.priority) > (place.route_id, place.priority)
    ORDER BY task.route_id, task.priority, task.due_time_us LIMIT 1
  ) AS following
)
SELECT route_id, priority, due_time_us FROM place
"""


class PostgresSql(Sql):
    """Keeps nothing of its own: what several servers count, the database counts."""

    def among(self, column: Column[Any], values: Collection[Any]) -> ColumnElement[bool]:
        # A number from outside may be larger than the column can hold; then nothing has it.
        kind = BigInteger() if isinstance(column.type, Integer) else column.type
        return column == any_(bindparam(None, list(values), ARRAY(kind)))

    def value_of(self, column: Column[int], values: Mapping[int, int]) -> ColumnElement[int]:
        numbers, those = (bindparam(None, list(some), ARRAY(BigInteger())) for some in (values, values.values()))
        return Grouping(those)[func.array_position(numbers, column)]

    def numbers(self, tx: Transaction, those: Select[Any]) -> set[int]:
        return set(tx.connection.execute(those).scalars())

    def task_numbers(self, tx: Transaction, many: int) -> Sequence[int]:
        if len(tx.numbers) == many:
            return tx.numbers
        numbers: list[int] = tx.connection.exec_driver_sql(_NUMBERS, (many,)).scalar_one()
        return numbers

    def lock_keys(
        self, tx: Transaction, keys: Sequence[tuple[str, str]], may_change: Sequence[tuple[str, str]]
    ) -> None:
        tx.connection.exec_driver_sql(_LOCK_KEYS, (sorted({_lock_of(scope, key) for scope, key in keys}),))
        if may_change:
            tx.connection.exec_driver_sql(_LOCK_HOLDERS, tuple(map(list, zip(*may_change, strict=True))))

    def succeed(self, tx: Transaction, succeeded: list[Succeeded], retention_us: int) -> int:
        sessions = sorted({one.session_seq for one in succeeded})
        values = (*map(array_of, zip(*succeeded, strict=True)), sessions, tx.server_seq, tx.now_us, retention_us)
        return tx.connection.exec_driver_sql(_SUCCEED, values).rowcount

    def read_to_end(self, tx: Transaction, columns: str, task_ids: list[bytes]) -> Sequence[Sequence[Any]]:
        statement = f"SELECT {columns} FROM task WHERE task_id = ANY ($1::bytea[]) ORDER BY seq FOR NO KEY UPDATE"  # noqa: S608
        return tx.connection.exec_driver_sql(statement, (task_ids,)).all()

    def own(self, tx: Transaction, session_seqs: Collection[int]) -> set[int]:
        found = tx.connection.exec_driver_sql(_OWN, (sorted(session_seqs),))
        return {session_seq for session_seq, server_seq in found if server_seq == tx.server_seq}

    def keep_from_leasing(self, tx: Transaction) -> None:
        tx.connection.exec_driver_sql(_KEEP_FROM_LEASING)

    def in_turn(self, tx: Transaction) -> None:
        tx.connection.exec_driver_sql(_TAKE_TURN)

    def due(self, tx: Transaction, priority: int, asked: list[Asked], until_us: int) -> list[Due]:
        columns = tuple(map(list, zip(*asked, strict=True)))
        found: dict[int, Due] = {}
        for route_id, after_us, seq, due_time_us, size in tx.connection.exec_driver_sql(
            _DUE, (*columns, priority, tx.now_us, until_us)
        ):
            due = found.setdefault(route_id, Due((route_id, priority), [], after_us))
            if seq is not None:
                due.candidates.append(Candidate(seq, route_id, priority, due_time_us, size))
        for one in asked:  # there may be more than were asked for
            of_route = found[one.route_id]
            if len(of_route.candidates) == one.at_most:
                of_route.after_us = of_route.candidates[-1].due_time_us
        return list(found.values())

    def take(self, tx: Transaction, placed: list[tuple[Candidate, Seats]]) -> Sequence[Sequence[Any]]:
        seqs = [candidate.seq for candidate, _ in placed]
        sessions = [seats.session_seq for _, seats in placed]
        names = [seats.processor_name for _, seats in placed]
        values = (seqs, sessions, names, sorted(set(sessions)), tx.server_seq, tx.manual_us)
        return tx.connection.exec_driver_sql(_TAKE, values).all()

    def tell(self, tx: Transaction, signals: list[NewSignal]) -> None:
        if signals:
            columns = tuple(map(list, zip(*signals, strict=True)))
            if tx.connection.exec_driver_sql(_TELL, (*columns, tx.server_seq)).rowcount:
                tx.signals = True

    def first_due(self, connection: Connection) -> Iterator[tuple[int, int, int]]:
        for place in connection.exec_driver_sql(_FIRST_DUE):
            yield place[0], place[1], place[2]


def _lock_of(scope: str, key: str) -> int:
    """Many keys share a lock, at the price of a short wait: the instance has room for only so many at a time, which it
    shares with everybody (`max_locks_per_transaction`)."""
    digest = hashlib.blake2b(f"{scope}\0{key}".encode(), digest_size=8).digest()
    return _FIRST_LOCK + int.from_bytes(digest, "big") % MOST_LOCKS
