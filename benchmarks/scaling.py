"""How PostgreSQL and the servers on it bear more: more servers, more processors, more rows.

`make bench-scaling` takes about ten minutes. The points of a curve take turns in one run; a figure is the median of the
rounds, with the smallest and the largest. With BENCH_ARGS=--publish they are written to `benchmarks/results/` and
`docs/scaling.md`.

    tasks/s     from the first enqueue to the start of the last handler, of all servers together
    relative    to the first point of the curve, in the same round
    CPU         seconds per 1,000 tasks: of all servers, of PostgreSQL's processes, of producers and processors
    lateness    milliseconds from due to the start of the handler, for 500 tasks/s due at given instants
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks import command, report, rows
from benchmarks.database import Cluster, new_cluster
from benchmarks.flow import flow, late
from benchmarks.report import Figures, Result, Shown
from benchmarks.roles import PAYLOAD, Server, serving

SERVERS = 1, 2, 4
PROCESSORS = 1, 10, 100
ROWS: dict[str, dict[str, Any]] = {
    "none": {},
    "10,000 waiting": {"waiting": 10_000},
    "100,000 waiting": {"waiting": 100_000},
    "1,000,000 waiting": {"waiting": 1_000_000},
    "1,000,000 waiting, analyzed": {"waiting": 1_000_000, "analyzed": True},
    "100,000 finished": {"finished": 100_000},
    "1,000,000 finished": {"finished": 1_000_000},
    "1,000,000 finished, analyzed": {"finished": 1_000_000, "analyzed": True},
}
"""What is in the table beside the tasks that flow. Waiting is due tomorrow."""
LATE_TASKS = 1_000
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'taskq/%'"


def _flow(cluster: Cluster, servers: Sequence[Server], tasks: int, processors: int = 1, of: str = "bench") -> Figures:
    return {**flow(cluster, servers, tasks, processors, of=of), "connections": cluster.ask(_CONNECTIONS)}


@contextmanager
def serving_several(url: str, many: int) -> Iterator[list[Server]]:
    with ExitStack() as stack:
        yield [stack.enter_context(serving(url)) for _ in range(many)]


def with_servers(many: int, tasks: int) -> Figures:
    with new_cluster() as cluster, serving_several(cluster.url, many) as servers:
        return _flow(cluster, servers, tasks)


def with_processors(many: int, tasks: int) -> Figures:
    with new_cluster() as cluster, serving(cluster.url) as server:
        return _flow(cluster, [server], tasks, processors=many)


def with_rows(cluster: Cluster, url: str, tasks: int) -> Figures:
    with serving(url) as server:
        return _flow(cluster, [server], tasks, of=url.rpartition("/")[2]) | late(server, LATE_TASKS)


def measure(rounds: int, scale: float) -> Result:
    tasks = round(40_000 * scale)
    curves = {
        "servers": report.curve(SERVERS, lambda many: with_servers(many, tasks), rounds),
        "processors": report.curve(PROCESSORS, lambda many: with_processors(many, tasks // 2), rounds),
    }
    with new_cluster() as cluster:
        urls = {
            title: rows.prepare(cluster, f"rows{i}", scale, **rows_) for i, (title, rows_) in enumerate(ROWS.items())
        }
        curves["rows"] = report.curve(list(urls), lambda title: with_rows(cluster, urls[title], tasks // 2), rounds)
        frame = report.frame(cluster)
    return {**frame, "rounds": rounds, "scale": scale, "curves": curves}


def table(result: Result) -> str:
    """The curves as docs/scaling.md shows them."""
    cpu = {f"{name} CPU": report.median_of(f"{name} CPU") for name in ("servers", "PostgreSQL", "clients")}
    rate = {"tasks/s": report.spread_of("tasks/s"), "relative": report.spread_of("tasks/s", "relative")}
    late = {f"lateness {which} ms": report.spread_of(f"late {which} ms") for which in ("p50", "p99")}
    columns = {
        "servers": {**rate, **cpu, "connections": report.median_of("connections")},
        "processors": {**rate, **cpu},
        "rows": {**rate, "PostgreSQL CPU": cpu["PostgreSQL CPU"], **late},
    }
    facts = f"{result['database']}; tasks of {len(PAYLOAD)} bytes, {result['rounds']} rounds; {report.facts(result)}."
    tables = [report.points(name, points, columns[name]) for name, points in result["curves"].items()]
    return "\n\n".join([facts, *tables])


SHOWN = Shown("scaling", "make bench-scaling", "scaling.md", table)


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers of tasks and rows")
    given = parser.parse_args()
    command.finish(given, SHOWN, measure(given.rounds, given.scale))


if __name__ == "__main__":
    main()
