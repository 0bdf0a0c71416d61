"""What docs/performance.md shows of a comparison: medians with the least and the most, and ratios.

A ratio is ours divided by theirs in the same round, so that what slows the machine down slows both; shown is the median
of these ratios. Of rates, more than one is better; of times, less.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import report
from benchmarks.peers import latency
from benchmarks.peers.field import ALL, Command, System
from benchmarks.report import Cell, Figures, Result, Shown

OURS = {"sqlite": "SQLite ÷", "postgres": "PostgreSQL ÷"}
BEST = "the best of the others in each round"
NOTHING = "–"


def ratio(ours: Sequence[Figures], theirs: Sequence[Figures], name: str) -> Figures:
    """The spread of ours divided by theirs, round by round; empty where a round has nothing to divide by."""
    if any(not run[name] for run in theirs):
        return {}
    return report.spread([our[name] / their[name] for our, their in zip(ours, theirs, strict=True)])


def best(runs: Mapping[str, Sequence[Figures]], name: str) -> list[Figures]:
    """The largest that any but ours reached, of each round; empty where none took part."""
    theirs = [figures for system, figures in runs.items() if system not in OURS]
    return [{name: max(run[name] for run in round_)} for round_ in zip(*theirs, strict=True)]


def lifecycle(result: Result) -> str:
    columns: dict[str, Cell] = {"durable": _durable}
    for name in ("enqueue /s", "drain /s", "lifecycle /s"):
        columns[name] = _spread(name)
    columns |= _ratios(result, "lifecycle /s")
    for name in ("CPU s/1000", "log KiB/1000", "peak MiB"):
        columns[name] = report.median_of(name)
    what = f"{result['tasks']:,} tasks of 100 bytes a run, {_rounds(result)}"
    return _page(result, what, report.points("", _points(result), columns))


def one_by_one(result: Result) -> str:
    points = _points(result)
    if others := best(result["runs"], "enqueue /s"):
        points.append({"point": BEST, "figures": report.spreads(others), "runs": others})
    columns = {"enqueue /s": _spread("enqueue /s"), **_ratios(result, "enqueue /s")}
    what = f"{result['tasks']:,} tasks a run, {_rounds(result)}"
    return _page(result, what, report.points("64 callers", points, columns))


def latency_table(result: Result) -> str:
    tables = []
    for rate in latency.RATES:
        columns: dict[str, Cell] = {}
        for share in latency.PER_MILLE:
            columns[f"{share} ms"] = _spread(f"{rate}/s {share} ms")
        for share in ("p50", "p99"):
            columns |= _ratios(result, f"{rate}/s {share} ms", f"{share} ")
        columns["sent /s"] = report.median_of(f"{rate}/s sent /s")
        tables.append(report.points(f"{rate:,} tasks/s", _points(result), columns))
    return _page(result, _rounds(result), *tables)


def lateness(result: Result) -> str:
    tables = []
    titles = {
        "flow": f"100/s for {60 * result['scale']:g} s",
        "burst": f"{10_000 * result['scale']:,.0f} in one second",
    }
    for name, title in titles.items():
        columns: dict[str, Cell] = {}
        for figure in ("p50 ms", "p99 ms", "max ms"):
            columns[figure] = _spread(f"{name} {figure}")
        columns["early"] = report.median_of(f"{name} early")
        if name == "burst":
            columns["s until all were started"] = _spread("burst s")
            columns["enqueued in time"] = _in_time
        for share in ("p50", "p99"):
            columns |= _ratios(result, f"{name} {share} ms", f"{share} ")
        tables.append(report.points(title, _points(result), columns))
    return _page(result, f"seed {result['seed']}, {_rounds(result)}", *tables)


def settings() -> str:
    """Of everybody, for people."""
    return "\n".join(_setting(system) for system in ALL if not system.fsync)


def _setting(system: System) -> str:
    options = "".join(f", `{name}={value!r}`" for name, value in system.options.items())
    others = f"; where instants are measured {_commands(system.prompt_workers)}" if system.prompt_workers else ""
    timers = f"; for due times also {_commands(system.timers)}" if system.timers else ""
    return (
        f"- **{system.title}**. Durable: {system.durable}. Enqueues by {system.enqueues}. "
        f"Workers: {_commands(system.workers)}{options}{others}{timers}. {system.reasons}"
    )


def _commands(commands: Sequence[Command]) -> str:
    return " and ".join(f"`python {shlex.join(command)}`" for command in commands)


def _page(result: Result, what: str, *tables: str) -> str:
    return "\n\n".join([f"{what}; {report.facts(result)}.", *tables])


def _rounds(result: Result) -> str:
    return f"{result['rounds']} rounds"


def _points(result: Result) -> list[dict[str, Any]]:
    return [
        {
            "point": result["systems"][name]["title"],
            "durable": result["systems"][name]["durable"],
            "figures": report.spreads(runs),
            "runs": runs,
            "name": name,
        }
        for name, runs in result["runs"].items()
    ]


def _ratios(result: Result, name: str, before: str = "") -> dict[str, Cell]:
    runs = result["runs"]
    return {f"{before}{title}": _ratio_cell(runs[ours], name) for ours, title in OURS.items() if ours in runs}


def _ratio_cell(ours: Sequence[Figures], name: str) -> Cell:
    def cell(point: dict[str, Any]) -> str:
        spread = ratio(ours, point["runs"], name)
        return report.figure(spread["median"]) if spread else NOTHING

    return cell


def _spread(name: str) -> Cell:
    return report.spread_of(name)


def _durable(point: dict[str, Any]) -> str:
    return str(point["durable"]).partition(":")[0]


def _in_time(point: dict[str, Any]) -> str:
    return "yes" if point["figures"]["burst in time"]["min"] else "no"


TABLES: dict[str, Callable[[Result], str]] = {
    "lifecycle": lifecycle,
    "one-by-one": one_by_one,
    "latency": latency_table,
    "lateness": lateness,
}
SHOWN = {part: Shown(f"peers-{part}", "make bench-peers", "performance.md", table) for part, table in TABLES.items()}
