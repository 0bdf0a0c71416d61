"""Ours and the peers, side by side on this machine.

`make bench-peers` makes an environment for the peers and runs four parts, of which each can be run alone:

    lifecycle    20,000 tasks that do nothing, until every result is recorded
    one-by-one   64 callers, each of whom waits for one enqueue at a time
    latency      from enqueue to start, at 50, 500 and 2,000 tasks a second
    lateness     tasks that are due at given instants; ours also beside 100,000 and 1,000,000 others that wait

In each round every system has its turn, each round beginning with the next one; a figure is the median of the rounds.
What a part measures stands in its module, the settings of each system in benchmarks/peers/field.py. With --publish the
figures are written to `benchmarks/results/` and docs/performance.md, each part's as soon as it has ended.
"""

from __future__ import annotations

import dataclasses
import sqlite3
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import command, machine
from benchmarks.database import new_cluster
from benchmarks.peers import latency, lateness, lifecycle, one_by_one, redis, tables
from benchmarks.peers.field import ALL, BESIDE, WITHOUT_FSYNC, System
from benchmarks.peers.stage import PEERS_PYTHON
from benchmarks.report import Figures, Result

ONE_BY_ONE_SHARE = 4
"""Of the tasks of a lifecycle one in so many, since the slowest takes a millisecond for each."""


@dataclass(frozen=True, slots=True)
class Part:
    systems: Sequence[System]
    run: Callable[[System], Figures]
    facts: dict[str, Any]


def parts(tasks: int, scale: float, seed: int) -> dict[str, Part]:
    few = tasks // ONE_BY_ONE_SHARE
    return {
        "lifecycle": Part(ALL, lambda system: lifecycle.run(system, tasks), {"tasks": tasks}),
        "one-by-one": Part(ALL, lambda system: one_by_one.run(system, few), {"tasks": few}),
        "latency": Part(WITHOUT_FSYNC, lambda system: latency.run(system, scale), {"scale": scale}),
        "lateness": Part(
            (*WITHOUT_FSYNC, *BESIDE),
            lambda system: lateness.run(system, scale, seed),
            {"scale": scale, "seed": seed},
        ),
    }


def in_turns(name: str, part: Part, systems: Sequence[System], rounds: int) -> dict[str, list[Figures]]:
    """The figures of each system, one of each round."""
    runs: dict[str, list[Figures]] = {system.name: [] for system in systems}
    for turn in range(rounds):
        first = turn % len(systems)
        for system in (*systems[first:], *systems[:first]):
            began = time.monotonic()
            figures = part.run(system)
            runs[system.name].append(figures)
            said = ", ".join(f"{figure} {value:,.4g}" for figure, value in figures.items())
            took = time.monotonic() - began
            print(f"{name}, round {turn + 1} of {rounds}, {system.title}, {took:.0f} s: {said}", flush=True)
    return runs


def versions(systems: Sequence[System]) -> dict[str, str]:
    """Of all that is measured."""
    found: dict[str, str] = {}
    stores = {system.store for system in systems}
    ours = {package for system in systems if system.is_ours for package in system.packages}
    theirs = {package for system in systems if not system.is_ours for package in system.packages}
    if "sqlite" in stores:
        found |= {"sqlite": sqlite3.sqlite_version}
    if "postgres" in stores:
        with new_cluster() as cluster:
            found |= {"postgresql": cluster.versions["postgresql"]}
    if "redis" in stores:
        found |= {"redis-server": redis.version()}
    return found | machine.versions(*sorted(ours)) | _peers_versions(sorted(theirs))


def _peers_versions(packages: Sequence[str]) -> dict[str, str]:
    if not packages:
        return {}
    ask = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    answer = subprocess.run([PEERS_PYTHON, "-c", ask, *packages], check=True, capture_output=True, text=True)
    return dict(zip(packages, answer.stdout.split(), strict=True))


def described(system: System) -> dict[str, Any]:
    """For the result: all that says how it was run."""
    return {name: value for name, value in dataclasses.asdict(system).items() if name not in ("name", "player")}


def main() -> None:
    parser = command.parser(__doc__)
    names = [system.name for system in (*ALL, *BESIDE)]
    parser.add_argument("--parts", nargs="+", choices=tables.TABLES, default=list(tables.TABLES), metavar="PART")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=20_000, help="of a lifecycle; a quarter of them one by one")
    parser.add_argument("--scale", type=float, default=1.0, help="of how long latency and lateness are measured")
    parser.add_argument("--seed", type=int, default=1, help="of the instants at which tasks are due")
    given = parser.parse_args()
    chosen = [system for system in (*ALL, *BESIDE) if system.name in given.only]
    found = versions(chosen)
    for name in given.parts:
        part = parts(given.tasks, given.scale, given.seed)[name]
        systems = [system for system in part.systems if system in chosen]
        result: Result = {
            "machine": machine.facts(),
            "versions": found,
            "rounds": given.rounds,
            **part.facts,
            "systems": {system.name: described(system) for system in systems},
            "runs": in_turns(name, part, systems, given.rounds),
        }
        command.finish(given, tables.SHOWN[name], result)


if __name__ == "__main__":
    main()
