"""Rows by the million, written straight into the tables of a database as a server would have left them."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.database import Cluster, Database
from benchmarks.roles import PAYLOAD

NAMES = "bench.noop", "bench.later", "bench.now"
"""What the roles enqueue. The rows are of the same names and the same priority: if any can be in the way, they are."""
DAY_US = 86_400_000_000
RETENTION_US = 7 * DAY_US

Ask = Callable[..., Any]
"""Runs a statement, with its arguments as $1, $2, ..."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one database says otherwise than another."""

    numbers: str
    """Rows `i`, from 1 to $1."""
    seq: str
    task_id: str
    content_hash: str
    payload: str
    """$2, which is bytes."""


POSTGRES = Dialect(
    "generate_series(1, CAST($1 AS bigint)) AS n(i)",
    "nextval('task_seq_seq')",
    "uuid_send(uuidv7())",
    "decode(md5(i::text), 'hex')",
    "CAST($2 AS bytea)",
)
SQLITE = Dialect(
    "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) SELECT i FROM n)",
    "NULL",  # the next number
    "new_task_id()",
    "randomblob(16)",
    "$2",
)

_ROUTE = "INSERT INTO route (name, requires) VALUES ($1, '[]') ON CONFLICT DO NOTHING"
_COLUMNS = "seq, task_id, content_hash, route_id, state, priority, due_time_us, enqueue_time_us, payload, payload_crc"
_END = "attempt, session_seq, processor_name, lease_time_us, last_outcome, finish_time_us, prune_time_us"
_NOW = "CAST($4 AS bigint)"
_NAME = " ".join(["CASE i % 3", *(f"WHEN {i} THEN '{name}'" for i, name in enumerate(NAMES)), "END"])


def _insert(dialect: Dialect, *, finished: bool) -> str:
    state, due, end, columns = (
        (3, _NOW, f", 1, 1, 'bench', {_NOW}, 1, {_NOW}, {_NOW} + {RETENTION_US}", f"{_COLUMNS}, {_END}")
        if finished
        else (1, f"{_NOW} + {DAY_US}", "", _COLUMNS)
    )
    return f"""
      INSERT INTO task ({columns})
      SELECT {dialect.seq}, {dialect.task_id}, {dialect.content_hash},
        (SELECT route_id FROM route WHERE requires = '[]' AND name = {_NAME}),
        {state}, 0, {due}, {_NOW}, {dialect.payload}, CAST($3 AS bigint){end}
      FROM {dialect.numbers}
    """  # noqa: S608 - our own names


def fill(ask: Ask, dialect: Dialect, now_us: int, *, waiting: int = 0, finished: int = 0) -> None:
    """So many tasks that are due a day after `now_us`, and so many that have succeeded then."""
    for name in NAMES:
        ask(_ROUTE, name)
    for many, done in ((waiting, False), (finished, True)):
        if many:
            ask(_insert(dialect, finished=done), many, PAYLOAD, zlib.crc32(PAYLOAD), now_us)


def prepare(
    database: Database,
    name: str,
    scale: float = 1.0,
    *,
    waiting: int = 0,
    finished: int = 0,
    analyzed: bool = False,
) -> str:
    """A new database with so many tasks that are due tomorrow, or have succeeded; its URL. On PostgreSQL it is
    vacuumed, and unless it is `analyzed` too the planner knows nothing of what stands in it, and never will."""
    url = database.make(name)
    ask = partial(database.ask, of=name)
    shared = isinstance(database, Cluster)
    if shared:
        ask("ALTER TABLE task SET (autovacuum_analyze_threshold = 2000000000)")
    dialect = POSTGRES if shared else SQLITE
    many = {"waiting": round(waiting * scale), "finished": round(finished * scale)}
    fill(ask, dialect, time.time_ns() // 1_000, **many)
    if shared:
        ask("VACUUM ANALYZE task" if analyzed else "VACUUM task")
        ask("CHECKPOINT")
    return url
