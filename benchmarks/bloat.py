"""What old snapshots and old rows cost a dispatch, on PostgreSQL.

`make bench-bloat` lets tasks flow at a steady rate, one producer and one processor, and asks how long after its enqueue
each was started. Meanwhile somebody reads in a REPEATABLE READ transaction that stays open for minutes, so that no dead
row can be removed; then nobody does. And the same with two million finished rows in the table, in turns with none.
With BENCH_ARGS=--publish the figures are written to `benchmarks/results/` and `docs/scaling.md`.

    p50, p99    milliseconds from just before an enqueue to the start of its handler
    CPU         seconds of PostgreSQL's processes per 1,000 tasks
    dead rows   of the table of tasks, as PostgreSQL counts them
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg

from benchmarks import command, report, rows
from benchmarks.database import Cluster, new_cluster
from benchmarks.report import Cell, Figures, Result, Shown
from benchmarks.roles import Role, Server, serving

PER_SECOND = 100
WARM_SECONDS = 5
PHASE_SECONDS = 60
"""What is compared: a minute before, the last one of the snapshot, and one after a minute's rest."""
FINISHED = 2_000_000
TURNS = 3
TURN_SECONDS = 20
_DEAD = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'task'"


class Flow:
    """Tasks at a steady rate for so many seconds; `phase` names a span of them."""

    def __init__(self, cluster: Cluster, server: Server, seconds: float) -> None:
        self._cluster = cluster
        self._role = Role("time_starts", server.address, tasks=round(seconds * PER_SECOND), per_second=PER_SECOND)
        self._phases: dict[str, tuple[float, float]] = {}
        self._costs: dict[str, Figures] = {}
        self._role.go()

    @contextmanager
    def phase(self, name: str, database: str = "bench") -> Iterator[None]:
        began, before = time.time(), self._cluster.spent()["PostgreSQL CPU s"]
        yield
        ended, spent = time.time(), self._cluster.spent()["PostgreSQL CPU s"] - before
        self._phases[name] = began, ended
        tasks = (ended - began) * PER_SECOND
        self._costs[name] = {
            "CPU": spent * 1000 / tasks,
            "dead rows": self._cluster.ask(_DEAD, of=database),
        }

    def figures(self) -> dict[str, Figures]:
        """Of each phase, once the flow has ended."""
        answer = self._role.answer()
        timed = list(zip(answer["sent"], answer["seconds"], strict=True))
        found = {}
        for name, (began, ended) in self._phases.items():
            p50, p99 = report.percentiles_ms([seconds for sent, seconds in timed if began <= sent < ended])
            found[name] = {"p50 ms": p50, "p99 ms": p99, **self._costs[name]}
        return found


@contextmanager
def snapshot(cluster: Cluster) -> Iterator[None]:
    """Somebody reads, and does not end."""
    loop = asyncio.new_event_loop()
    connection: Any = loop.run_until_complete(asyncpg.connect(cluster.url))
    try:
        loop.run_until_complete(connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM task"))
        yield
    finally:
        loop.run_until_complete(connection.close())
        loop.close()


def with_snapshot(minutes: float) -> list[dict[str, Any]]:
    """A flow before, while and after somebody holds a snapshot for so many minutes."""
    seconds = minutes * 60
    phase = min(PHASE_SECONDS, seconds / 3)
    with new_cluster() as cluster, serving(cluster.url) as server:
        flow = Flow(cluster, server, WARM_SECONDS + 3 * phase + seconds)
        time.sleep(WARM_SECONDS)
        with flow.phase("before"):
            time.sleep(phase)
        with snapshot(cluster):
            with flow.phase("its first minute"):
                time.sleep(phase)
            time.sleep(seconds - 2 * phase)
            with flow.phase("its last minute"):
                time.sleep(phase)
        time.sleep(phase)
        with flow.phase("after"):
            time.sleep(phase)
        return report.compared({name: [figures] for name, figures in flow.figures().items()})


def with_finished(many: int, turns: int, seconds: float) -> list[dict[str, Any]]:
    """A flow beside nothing, and beside so many finished rows."""
    with new_cluster() as cluster:
        urls = {
            "none": ("rows0", rows.prepare(cluster, "rows0")),
            f"{many:,} finished": ("rows1", rows.prepare(cluster, "rows1", finished=many)),
        }

        def measure(title: str) -> Figures:
            database, url = urls[title]
            with serving(url) as server:
                flow = Flow(cluster, server, WARM_SECONDS + seconds)
                time.sleep(WARM_SECONDS)
                with flow.phase(title, database):
                    time.sleep(seconds - 1)
                return flow.figures()[title]

        return report.curve(list(urls), measure, turns)


def table(result: Result) -> str:
    """Both as docs/scaling.md shows them."""
    what = f"{PER_SECOND} tasks/s; a snapshot for {result['minutes']:g} minutes"
    facts = f"{result['database']}; {what}; {report.facts(result)}."
    columns: dict[str, Cell] = {}
    for name in ("p50 ms", "p99 ms", "CPU"):
        columns |= {name: report.median_of(name), f"relative {name[:3]}": report.median_of(name, "relative")}
    old_rows = {name: report.spread_of(name) for name in ("p50 ms", "p99 ms")}
    ratios = {f"relative {name[:3]}": report.spread_of(name, "relative") for name in ("p50 ms", "p99 ms", "CPU")}
    snapshot = report.points("a snapshot", result["snapshot"], columns | {"dead rows": report.median_of("dead rows")})
    return "\n\n".join([facts, snapshot, report.points("rows beside", result["finished"], old_rows | ratios)])


SHOWN = Shown("bloat", "make bench-bloat", "scaling.md", table)


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--minutes", type=float, default=3, help="for which the snapshot is held")
    parser.add_argument("--finished", type=int, default=FINISHED)
    given = parser.parse_args()
    with new_cluster() as cluster:
        frame = report.frame(cluster)
    seconds = min(TURN_SECONDS, given.minutes * 20)
    result = {
        **frame,
        "minutes": given.minutes,
        "snapshot": with_snapshot(given.minutes),
        "finished": with_finished(given.finished, TURNS, seconds),
    }
    command.finish(given, SHOWN, result)


if __name__ == "__main__":
    main()
