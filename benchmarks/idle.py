"""What a server costs that has nothing to do: with a thousand processors connected, and a million tasks for tomorrow.

`make bench-idle`, or with DATABASE=postgres on PostgreSQL, takes about twenty minutes. The points take turns in each
round; a figure is the median of the rounds, with the smallest and the largest. With BENCH_ARGS=--publish they are
written to `benchmarks/results/` and `docs/performance.md`.

    CPU %            of one core: of the server, of PostgreSQL's processes together
    statements/s     that the database runs for the server, BEGIN and COMMIT among them (`benchmarks/statements.py`)
    transactions/s   the COMMITs among them
    MiB              the most that the server has held; what PostgreSQL's processes hold in the end

Each processor is what users have: a connection with its stream and another with its heartbeats, one every three fifths
of a lease of 30 seconds, as none holds a task. All of them are in one process, whose CPU does not count. Once they are
registered, some time passes in which each has sent a heartbeat; then it is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks import command, machine, report, rows, targets
from benchmarks.database import Database, opened
from benchmarks.flow import spent
from benchmarks.report import Cell, Figures, Result, Shown
from benchmarks.roles import Role, all_registered, until
from benchmarks.statements import LOGGED, counted
from benchmarks.targets import Target

POINTS: dict[str, tuple[int, int]] = {
    "nobody, nothing waits": (0, 0),
    "1,000,000 waiting": (0, 1_000_000),
    "1,000 processors": (1_000, 0),
    "1,000 processors, 1,000,000 waiting": (1_000, 1_000_000),
}
"""How many processors, how many tasks that wait for tomorrow."""
BUSIEST = "1,000 processors, 1,000,000 waiting"
SETTLE_SECONDS = 20
"""Longer than it takes from one heartbeat to the next, and than the housekeeper sleeps."""
SECONDS = 30


class Idle:
    """Servers that have nothing to do, on databases that are made once."""

    def __init__(self, database: Database, seconds: float, scale: float) -> None:
        self._database = database
        self._seconds = seconds
        self._scale = scale
        self._urls: dict[int, str] = {}

    def measure(self, point: str) -> Figures:
        processors, waiting = POINTS[point]
        database = self._database
        with (
            counted(database, self._url(waiting)) as (server, statements),
            _connected(server.address, round(processors * self._scale)),
        ):
            time.sleep(SETTLE_SECONDS)
            statements.skip()
            began, before = time.monotonic(), spent(database, [server])
            time.sleep(self._seconds)
            words = statements.words()
            seconds, after = time.monotonic() - began, spent(database, [server])
            memory = {"server MiB": machine.peak_mib(server.pid), **database.held()}
        costs = {name.replace("servers", "server"): now - before[name] for name, now in after.items()}
        return {
            **{f"{name} %": 100 * cpu_seconds / seconds for name, cpu_seconds in costs.items()},
            "statements/s": len(words) / seconds,
            "transactions/s": words.count("COMMIT") / seconds,
            **memory,
        }

    def _url(self, waiting: int) -> str:
        if waiting not in self._urls:
            self._urls[waiting] = rows.prepare(self._database, f"rows{waiting}", self._scale, waiting=waiting)
        return self._urls[waiting]


@contextmanager
def _connected(address: str, processors: int) -> Iterator[None]:
    """So many processors, in a process of their own."""
    if not processors:
        yield
        return
    role = Role("process", address, processors=processors)
    role.go()
    until(lambda: all_registered([role]), [role])
    yield
    role.stop()
    role.answer()


def measure(kind: str, rounds: int, seconds: float, scale: float) -> Result:
    settings = LOGGED if kind == "postgres" else {}
    with opened(kind, **settings) as database:
        points = report.curve(list(POINTS), report.told(Idle(database, seconds, scale).measure), rounds)
        frame = report.frame(database)
    return {**frame, "rounds": rounds, "seconds": seconds, "scale": scale, "curves": {"idle": points}}


def _table(bounds: tuple[Target, ...]) -> Callable[[Result], str]:
    def table(result: Result) -> str:
        """The figures as docs/performance.md shows them."""
        points = result["curves"]["idle"]
        what = f"{result['seconds']:g} seconds a run, {report.extent(result)}"
        facts = f"{result['database']}; {what}; {report.facts(result)}."
        columns: dict[str, Cell] = {
            name: report.spread_of(name) for name in points[0]["figures"] if not name.endswith("MiB")
        }
        columns |= {name: report.median_of(name) for name in points[0]["figures"] if name.endswith("MiB")}
        return "\n\n".join([facts, targets.table(bounds, result), report.points("idle", points, columns)])

    return table


def _shown(name: str, command: str, most_statements: float) -> Shown:
    bounds = (
        Target("idle", BUSIEST, "server CPU %", 5),
        Target("idle", BUSIEST, "statements/s", most_statements),
    )
    return Shown(name, command, "performance.md", _table(bounds))


SHOWN = {
    "sqlite": _shown("idle-sqlite", "make bench-idle", 1),
    "postgres": _shown("idle-postgres", "make bench-idle DATABASE=postgres", 5),
}


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--database", choices=SHOWN, default="sqlite")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for which each point is measured")
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers of processors and tasks")
    given = parser.parse_args()
    if given.publish and given.scale != 1.0:
        parser.error("a part of the figures is not published")
    machine.allow_files()
    result = measure(given.database, given.rounds, given.seconds, given.scale)
    command.finish(given, SHOWN[given.database], result)


if __name__ == "__main__":
    main()
