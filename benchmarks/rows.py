"""Rows by the million, written straight into the tables of a PostgreSQL database as a server would have left them."""

from __future__ import annotations

import zlib

from benchmarks.database import Cluster
from benchmarks.roles import PAYLOAD

NAMES = "bench.noop", "bench.later", "bench.now"
"""What the roles enqueue. The rows are of the same names and the same priority: if any can be in the way, they are."""
DAY_US = 86_400_000_000

_ROUTES = "INSERT INTO route (name, requires) SELECT unnest($1::text[]), '[]' ON CONFLICT DO NOTHING"
_COMMON = """
  seq, task_id, content_hash, route_id, state, priority, due_time_us, enqueue_time_us, payload, payload_crc
"""
_VALUES = """
  nextval('task_seq_seq'), uuid_send(uuidv7()), decode(md5(i::text), 'hex'),
  (SELECT route_id FROM route WHERE name = ($2::text[])[1 + i % 3]), {state}, 0, {due}, now_us, $3::bytea, $4::bigint
"""
_FROM = """
FROM generate_series(1, $1::bigint) AS i, (SELECT (extract(epoch FROM now()) * 1000000)::bigint AS now_us) AS clock
"""
_WAITING = f"INSERT INTO task ({_COMMON}) SELECT {_VALUES.format(state=1, due=f'now_us + {DAY_US}')} {_FROM}"
_FINISHED = f"""
INSERT INTO task ({_COMMON}, attempt, session_seq, processor_name, lease_time_us, last_outcome, finish_time_us,
  prune_time_us)
SELECT {_VALUES.format(state=3, due="now_us")}, 1, 1, 'bench', now_us, 1, now_us, now_us + {7 * DAY_US} {_FROM}
"""


def prepare(
    cluster: Cluster, database: str, scale: float = 1.0, *, waiting: int = 0, finished: int = 0, analyzed: bool = False
) -> str:
    """A new database with so many tasks that are due tomorrow, or have succeeded; its URL. Vacuumed, and unless it is
    `analyzed` too the planner knows nothing of what stands in it, and never will."""
    url = cluster.make(database)
    cluster.ask("ALTER TABLE task SET (autovacuum_analyze_threshold = 2000000000)", of=database)
    cluster.ask(_ROUTES, list(NAMES), of=database)
    for sql, many in ((_WAITING, waiting), (_FINISHED, finished)):
        if many:
            cluster.ask(sql, round(many * scale), list(NAMES), PAYLOAD, zlib.crc32(PAYLOAD), of=database)
    cluster.ask("VACUUM ANALYZE task" if analyzed else "VACUUM task", of=database)
    cluster.ask("CHECKPOINT", of=database)
    return url
