"""How long a page of tasks takes, among a million.

`make bench-listing`, or with DATABASE=postgres on PostgreSQL, takes about two minutes.

Most tasks have succeeded; one in a hundred has failed, one was cancelled, three wait, and a few run. Each filter is
followed page by page, to its end or for a hundred pages, over gRPC: what is shown is the time that a caller waits, and
how many of the pages were empty, as those of a filter are that matches little of what was looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass, field
from functools import partial

import grpc

from benchmarks import command
from benchmarks.database import Cluster, Database, opened
from benchmarks.roles import serving
from benchmarks.rows import DAY_US, POSTGRES, SQLITE, Ask, Dialect
from taskq.v1 import admin_service_pb2_grpc, admin_task_pb2

MOST_PAGES = 100
NAMES = 20
FILTERS = [
    "",
    "state:FAILED",
    "state:FAILED name:bench.7",
    "state:FAILED error:timeout",
    "state:FAILED error:nowhere",
    "state:CANCELLED",
    "state:FAILED,CANCELLED name:bench.7",
    "state:RUNNING",
    "state:SCHEDULED",
    "state:SCHEDULED name:bench.7",
    "is:due",
    "is:due name:bench.7",
    "is:unfinished processor:oven-3",
    "name:bench.7",
    "name:bench.old",
    "name:bench.nothing",
    "tag:urgent",
    "-tag:urgent",
    "tag:nowhere",
    "key:order-1000",
    "priority:9 -state:SUCCEEDED",
    "finish_time>now-1h",
    "enqueue_time<now-1d",
]

_STATE = (
    "CASE WHEN i % 100 = 1 THEN 4 WHEN i % 100 = 2 THEN 5 WHEN i % 100 IN (3, 4, 5) THEN 1 WHEN i % 5000 = 6 THEN 2 "
    "ELSE 3 END"
)
_ROUTE = "INSERT INTO route (name, requires) VALUES ($1, '[]') ON CONFLICT DO NOTHING"


def fill(ask: Ask, dialect: Dialect, many: int) -> None:
    """A million tasks as a year would have left them; the old ones are few."""
    names = [f"bench.{i}" for i in range(NAMES)]
    for name in (*names, "bench.old"):
        ask(_ROUTE, name)
    now = f"CAST({time.time_ns() // 1_000} AS bigint)"
    route = f"(SELECT min(route_id) FROM route) + CASE WHEN i < 10 THEN {NAMES} ELSE (i / 100) % {NAMES} END"  # noqa: S608
    failure = (
        """'["' || CASE i % 3 WHEN 1 THEN 'TimeoutError' ELSE 'ValueError' END || '","no answer","at line 1",1,1]'"""
    )
    ask(
        f"""
        INSERT INTO task (seq, task_id, content_hash, route_id, state, priority, due_time_us, enqueue_time_us, payload,
          payload_crc, tags, dedup_key, attempt, failed_attempts, session_seq, processor_name, lease_time_us,
          last_failure, last_outcome, finish_time_us, prune_time_us)
        SELECT {dialect.seq}, {dialect.task_id}, {dialect.content_hash}, {route}, state,
          CASE WHEN i % 10 = 3 THEN 9 ELSE 0 END,
          {now} + CASE WHEN i % 100 = 3 THEN -1000000 ELSE {DAY_US} END, {now} - 1000000, {dialect.payload}, 0,
          CASE WHEN i % 1000 = 7 THEN '["urgent","x"]' END, CASE WHEN i % 1000 = 0 THEN 'order-' || i END,
          CASE state WHEN 1 THEN 0 ELSE 1 END, CASE state WHEN 4 THEN 1 ELSE 0 END,
          CASE state WHEN 1 THEN NULL ELSE 1 END, CASE state WHEN 1 THEN NULL ELSE 'oven-' || i % 7 END,
          CASE state WHEN 1 THEN NULL ELSE {now} END, CASE state WHEN 4 THEN {failure} END,
          CASE WHEN state > 2 THEN state - 2 END, CASE WHEN state > 2 THEN {now} END,
          CASE WHEN state > 2 THEN {now} + 7 * {DAY_US} END
        FROM (SELECT i, {_STATE} AS state FROM {dialect.numbers}) AS made
        """,  # noqa: S608 - our own names
        many,
        b"x" * 100,
    )


@dataclass
class Walk:
    """What it took to follow a filter."""

    milliseconds: list[float] = field(default_factory=list)
    found: int = 0
    empty: int = 0
    at_end: bool = False

    def __str__(self) -> str:
        pages, slowest = len(self.milliseconds), max(self.milliseconds)
        first, middle = self.milliseconds[0], statistics.median(self.milliseconds)
        end = "all" if self.at_end else "so far"
        return (
            f"first {first:6.1f} ms, median {middle:6.1f}, slowest {slowest:6.1f}; "
            f"{pages:3} pages, {self.empty:3} empty, {self.found:,} tasks {end}"
        )


async def walk(stub: admin_service_pb2_grpc.AdminServiceAsyncStub, text: str, *, with_total: bool = False) -> Walk:
    found, token = Walk(), ""
    while len(found.milliseconds) < MOST_PAGES:
        request = admin_task_pb2.ListTasksRequest(filter=text, page_token=token, with_total=with_total)
        began = time.perf_counter()
        page = await stub.ListTasks(request)
        found.milliseconds.append(1_000 * (time.perf_counter() - began))
        found.found += len(page.tasks)
        found.empty += not page.tasks
        token = page.next_page_token
        if not token:
            found.at_end = True
            break
    return found


async def measure_pages(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = admin_service_pb2_grpc.AdminServiceStub(channel)
        some = await stub.ListTasks(admin_task_pb2.ListTasksRequest(page_size=1))
        for text in (*FILTERS, f"id:{some.tasks[0].task_id}"):
            print(f"{text or '(everything)':40} {await walk(stub, text)}", flush=True)
        for text in ("", "state:FAILED name:bench.7", "tag:nowhere"):
            print(f"{text or '(everything)':28} with total {await walk(stub, text, with_total=True)}", flush=True)


def measure(given: argparse.Namespace) -> None:
    with opened(given.database) as database:
        print(f"{database.title}; {given.tasks:,} tasks")
        url = prepared(database, given.tasks, analyzed=not given.unanalyzed)
        with serving(url) as server:
            asyncio.run(measure_pages(server.address))


def prepared(database: Database, many: int, *, analyzed: bool) -> str:
    url = database.make("listing")
    ask = partial(database.ask, of="listing")
    shared = isinstance(database, Cluster)
    fill(ask, POSTGRES if shared else SQLITE, many)
    if shared:
        ask("VACUUM ANALYZE task" if analyzed else "VACUUM task")
        ask("CHECKPOINT")
    return url


def main() -> None:
    parser = command.parser(__doc__, publishes=False)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--unanalyzed", action="store_true", help="PostgreSQL's planner knows nothing of the tasks")
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
