"""The whole path: one producer, one server, one processor with no-op handlers, each a process; fsync on.

`make bench` prints a table, of SQLite or with DATABASE=postgres of PostgreSQL; with BENCH_ARGS=--publish it is written
to `benchmarks/results/` and `docs/performance.md`. A figure is the median of several runs, with the smallest and the
largest:

    enqueue     tasks/s from the first enqueue to the last answer, with nobody processing
    drain       tasks/s from the processor's start to the last accepted result, with all of them waiting
    lifecycle   tasks/s from the first enqueue to the last accepted result, both at once
    CPU, WAL    of 1,000 tasks of a lifecycle: seconds of each process, of PostgreSQL's together; what its log grew by
    MiB         the most that the server has held; what PostgreSQL's processes hold in the end, shared buffers once
    start       milliseconds from just before an enqueue to the start of its handler, at 500 tasks/s
    lateness    milliseconds from due to the start of the handler, for 500 tasks/s due at given instants
    early       handlers that started before their task was due

With `--tls` each run is one in plaintext and one by mutual TLS, and the figures of either stand side by side.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from benchmarks import command, machine, report
from benchmarks.database import Database, opened
from benchmarks.report import Figures, Result, Shown
from benchmarks.roles import PAYLOAD, Role, Server, serving
from benchmarks.wire import PLAINTEXT, Wire, mutual_tls

PER_SECOND = 500
TIMED_SECONDS = 4


def run_once(kind: str, tasks: int, wire: Wire = PLAINTEXT) -> Figures:
    """Every figure, once."""
    with opened(kind) as database, serving(database.url, wire=wire) as server:
        figures = _apart(server, tasks) | _together(database, server, tasks)
    with opened(kind) as database, serving(database.url, wire=wire) as server:
        starts, lateness = (_timed(role, server) for role in ("time_starts", "time_later"))
    for name, seconds in (("start", starts), ("lateness", lateness)):
        figures[f"{name} p50 ms"], figures[f"{name} p99 ms"] = report.percentiles_ms(seconds)
    figures["early"] = sum(late < 0 for late in lateness)
    return figures


def _apart(server: Server, tasks: int) -> Figures:
    producer = _client("produce", server, tasks=tasks)
    processor = _client("process", server, tasks=tasks)
    producer.go()
    produced = producer.answer()
    processor.go()
    processed = processor.answer()
    return {
        "enqueue /s": tasks / (produced["ended"] - produced["started"]),
        "drain /s": tasks / (processed["ended"] - processed["started"]),
    }


def _together(database: Database, server: Server, tasks: int) -> Figures:
    producer = _client("produce", server, tasks=tasks)
    processor = _client("process", server, tasks=tasks)
    processor.go()
    time.sleep(0.5)  # registered by then; its time does not count
    before = _spent(database, server)
    producer.go()
    produced, processed = producer.answer(), processor.answer()
    after = _spent(database, server)
    clients = {"producer CPU s": produced["cpu_seconds"], "processor CPU s": processed["cpu_seconds"]}
    costs = {name: value - before[name] for name, value in after.items()} | clients
    return {
        "lifecycle /s": tasks / (processed["ended"] - produced["started"]),
        **{f"{name}/1000": cost * 1000 / tasks for name, cost in costs.items()},
        "server peak MiB": machine.peak_mib(server.pid),
        **database.held(),
    }


def _client(role: str, server: Server, **given: Any) -> Role:
    return Role(role, server.address, environment={**os.environ, **server.wire.client}, **given)


def _spent(database: Database, server: Server) -> Figures:
    return {"server CPU s": machine.cpu_seconds(server.pid), **database.spent()}


def _timed(role: str, server: Server) -> list[float]:
    timer = _client(role, server, tasks=PER_SECOND * TIMED_SECONDS, per_second=PER_SECOND)
    timer.go()
    return list(timer.answer()["seconds"])


def table(result: Result) -> str:
    """The figures as docs/performance.md shows them."""
    what = f"{result['tasks']:,} tasks of {len(PAYLOAD)} bytes a run, {result['runs']} runs"
    body = [[name, *report.cells(figure)] for name, figure in result["figures"].items()]
    return f"{result['database']}; {what}; {report.facts(result)}.\n\n" + report.rows(
        ("figure", "median", "min", "max"), body
    )


def _by_tls(given: argparse.Namespace) -> str:
    """The figures of mutual TLS beside those of plaintext."""
    with mutual_tls() as tls:
        wires = {"plaintext": PLAINTEXT, "mutual TLS": tls}

        def measure(name: str) -> Figures:
            return run_once(given.database, given.tasks, wires[name])

        plaintext, by_tls = report.curve(list(wires), report.told(measure), given.runs)
    body = []
    for name, ratio in by_tls["relative"].items():
        medians = (report.figure(one["figures"][name]["median"]) for one in (plaintext, by_tls))
        body.append([name, *medians, *report.cells(ratio)])
    return report.rows(("figure", "plaintext", "mutual TLS", "ratio", "min", "max"), body)


SHOWN = {
    "sqlite": Shown("lifecycle", "make bench", "performance.md", table),
    "postgres": Shown("lifecycle-postgres", "make bench DATABASE=postgres", "performance.md", table),
}


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--database", choices=SHOWN, default="sqlite")
    parser.add_argument("--tasks", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tls", action="store_true", help="in plaintext and by mutual TLS, in turns; not published")
    given = parser.parse_args()
    if given.tls:
        if given.publish:
            parser.error("what --tls measures is not published")
        print(_by_tls(given))
        return
    with opened(given.database) as database:
        frame = report.frame(database)
    figures = report.spreads([run_once(given.database, given.tasks) for _ in range(given.runs)])
    result = {**frame, "tasks": given.tasks, "runs": given.runs, "figures": figures}
    command.finish(given, SHOWN[given.database], result)


if __name__ == "__main__":
    main()
