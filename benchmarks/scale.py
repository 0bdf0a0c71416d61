"""How the cost of a task grows with what else there is: one server, and more rows, processors, capabilities, bytes.

`make bench-scale`, or with DATABASE=postgres on PostgreSQL, takes about half an hour. The points of a curve take turns
in each round, each on a database of its own that is new; a figure is the median of the rounds, with the smallest and
the largest. With BENCH_ARGS=--publish they are written to `benchmarks/results/`, `docs/figures/` and
`docs/performance.md`.

    lifecycle/s   tasks/s from the first enqueue to the last accepted result, one producer enqueueing meanwhile
    relative      to the first point of the curve, in the same round
    CPU           seconds per 1,000 tasks: of the server, of PostgreSQL's processes, of the producer and all processors
    lateness      milliseconds from due to the start of the handler, for tasks due at given instants: 500 a second,
                  with payloads 100 a second
    server MiB    the most that the server has held

What waits is due tomorrow, and what waits or has finished has the names and the priority of what flows. All processors
are in one process, which is full when the clients' CPU times lifecycle/s is near 1,000; together they hold up to 4,000
tasks. The tasks that flow are of so many names in turn as there are capabilities, and every processor has all of them.
Payloads are random bytes, from a seed; of 10 KiB and more there are fewer, a hundred MiB in a run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import command, machine, plots, report, rows, targets
from benchmarks.database import Database, opened
from benchmarks.flow import PER_SECOND, flow, late
from benchmarks.plots import Drawn, Panel, Plot
from benchmarks.report import Cell, Figures, Result
from benchmarks.roles import PAYLOAD, SEED, serving
from benchmarks.targets import Target

EMPTY = "none"
WAITING = "1,000,000 waiting"
FINISHED = "1,000,000 finished"
BOTH = "1,000,000 waiting, 1,000,000 finished"
ROWS: dict[str, dict[str, Any]] = {
    EMPTY: {},
    "10,000 waiting": {"waiting": 10_000},
    "100,000 waiting": {"waiting": 100_000},
    WAITING: {"waiting": 1_000_000},
    FINISHED: {"finished": 1_000_000},
    BOTH: {"waiting": 1_000_000, "finished": 1_000_000},
}
PROCESSORS = 1, 10, 100, 1_000
CAPABILITIES = 1, 10, 100
PAYLOADS_KIB = 0.1, 1, 10, 100

TASKS = 20_000
MOST_BYTES = 100 * 1024 * 1024
LATE_SECONDS = 4
LATE_PAYLOADS_PER_SECOND = 100
ENQUEUED_BYTES_PER_SECOND = 5 * 1024 * 1024
"""At least; what is due at given instants is enqueued before."""
RUN = "run"
"""The database of a run."""


class Bench:
    """Runs at points of the curves, on one database after the other."""

    def __init__(self, database: Database, scale: float) -> None:
        self._database = database
        self._scale = scale
        self._tasks = round(TASKS * scale)
        self._templates = {title: f"template_{i}" for i, title in enumerate(ROWS)}
        self._made: set[str] = set()

    def rows(self, title: str) -> Figures:
        return self._run(self._tasks, {}, title)

    def processors(self, many: int) -> Figures:
        return self._run(self._tasks, {"processors": many})

    def capabilities(self, many: int) -> Figures:
        return self._run(self._tasks, {"names": many})

    def payloads(self, kib: float) -> Figures:
        size = round(kib * 1024)
        tasks = min(self._tasks, round(MOST_BYTES * self._scale) // size)
        late_bytes = LATE_SECONDS * LATE_PAYLOADS_PER_SECOND * size
        ahead_seconds = 2 + late_bytes / ENQUEUED_BYTES_PER_SECOND
        return self._run(
            tasks, {"payload_bytes": size}, per_second=LATE_PAYLOADS_PER_SECOND, ahead_seconds=ahead_seconds
        )

    def _run(
        self,
        tasks: int,
        given: dict[str, int],
        beside: str = EMPTY,
        per_second: int = PER_SECOND,
        ahead_seconds: float = 2,
    ) -> Figures:
        database = self._database
        url = database.make(RUN, self._template(beside))
        try:
            with serving(url) as server:
                figures = flow(database, [server], tasks, of=RUN, **given)
                figures |= late(server, LATE_SECONDS * per_second, per_second, ahead_seconds=ahead_seconds, **given)
                figures |= {"server MiB": machine.peak_mib(server.pid), **database.held()}
        finally:
            database.drop(RUN)
        return figures

    def _template(self, title: str) -> str:
        """A database with such rows, which is copied for each run."""
        name = self._templates[title]
        if name not in self._made:
            rows.prepare(self._database, name, self._scale, **ROWS[title])
            self._made.add(name)
        return name


POINTS: dict[str, tuple[Any, ...]] = {
    "rows": tuple(ROWS),
    "processors": PROCESSORS,
    "capabilities": CAPABILITIES,
    "payloads": PAYLOADS_KIB,
}
TITLES = {
    "rows": "rows beside",
    "processors": "connected processors",
    "capabilities": "capabilities",
    "payloads": "KiB of payload",
}


def measure(kind: str, rounds: int, scale: float, curves: list[str]) -> Result:
    with opened(kind) as database:
        bench = Bench(database, scale)
        found = {}
        for name in curves:
            measure_at = report.told(getattr(bench, name), f"{name} ")
            found[name] = report.curve(POINTS[name], measure_at, rounds)
        frame = report.frame(database)
    return {**frame, "seed": SEED, "rounds": rounds, "scale": scale, "tasks": TASKS, "curves": found}


def _columns(point: dict[str, Any]) -> dict[str, Cell]:
    columns = {
        "lifecycle/s": report.spread_of("lifecycle/s"),
        "relative": report.spread_of("lifecycle/s", "relative"),
        "server CPU": report.median_of("servers CPU"),
    }
    if "PostgreSQL CPU" in point["figures"]:
        columns["PostgreSQL CPU"] = report.median_of("PostgreSQL CPU")
    columns["clients CPU"] = report.median_of("clients CPU")
    columns |= {f"lateness {which} ms": report.spread_of(f"late {which} ms") for which in ("p50", "p99")}
    return {**columns, "server MiB": report.median_of("server MiB")}


def _table(name: str, bounds: tuple[Target, ...]) -> Callable[[Result], str]:
    def table(result: Result) -> str:
        """The curves as docs/performance.md shows them."""
        what = f"{result['tasks']:,} tasks of {len(PAYLOAD)} bytes a run, {report.extent(result)}"
        parts = [f"{result['database']}; {what}, seed {result['seed']}; {report.facts(result)}."]
        parts.append(targets.table([bound for bound in bounds if bound.curve in result["curves"]], result))
        for curve, points in result["curves"].items():
            parts += [plots.image(name, curve), report.points(TITLES[curve], points, _columns(points[0]))]
        return "\n\n".join(parts)

    return table


def _panels(*, log: bool = False, postgres: bool) -> list[Panel]:
    cpu = {"server": "servers CPU"} | ({"PostgreSQL": "PostgreSQL CPU"} if postgres else {})
    return [
        Panel("lifecycle/s", {"lifecycle/s": "lifecycle/s"}, log),
        Panel("CPU s per 1,000 tasks", cpu, log),
        Panel("lateness, ms", {"p50": "late p50 ms", "p99": "late p99 ms"}, log=True),
    ]


_TICKS = {
    EMPTY: "0",
    "10,000 waiting": "10k",
    "100,000 waiting": "100k",
    WAITING: "1M",
    FINISHED: "1M\nfinished",
    BOTH: "both",
}


def _shown(kind: str, command: str, p50_ms: float, p99_ms: float) -> Drawn:
    postgres = kind == "postgres"
    panels = _panels(postgres=postgres)
    name = f"scale-{kind}"
    bounds = (
        Target("rows", WAITING, "lifecycle/s", 0.85, at_least=True, relative=True),
        Target("rows", FINISHED, "lifecycle/s", 0.85, at_least=True, relative=True),
        Target("rows", BOTH, "lifecycle/s", 0.85, at_least=True, relative=True),
        Target("rows", WAITING, "server MiB", 150),
        Target("rows", WAITING, "late p50 ms", p50_ms),
        Target("rows", WAITING, "late p99 ms", p99_ms),
    )
    drawn = {
        "rows": Plot("tasks beside, waiting", panels, _TICKS, joined=4),
        "processors": Plot(TITLES["processors"], panels),
        "capabilities": Plot(TITLES["capabilities"], panels),
        "payloads": Plot(TITLES["payloads"], _panels(log=True, postgres=postgres)),
    }
    return Drawn(name, command, "performance.md", _table(name, bounds), drawn)


SHOWN = {
    "sqlite": _shown("sqlite", "make bench-scale", 2, 5),
    "postgres": _shown("postgres", "make bench-scale DATABASE=postgres", 3, 15),
}


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--database", choices=SHOWN, default="sqlite")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers of tasks and rows")
    parser.add_argument("--only", choices=POINTS, action="append", help="this curve; may be repeated")
    given = parser.parse_args()
    if given.publish and (given.only or given.scale != 1.0):
        parser.error("a part of the figures is not published")
    if given.publish:
        plots.must_be_possible()
    machine.allow_files()
    result = measure(given.database, given.rounds, given.scale, given.only or list(POINTS))
    command.finish(given, SHOWN[given.database], result)


if __name__ == "__main__":
    main()
