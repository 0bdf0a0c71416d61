"""Figures: their spread over several runs, as tables, as files, and in the documentation.

A page shows a table between two marks, which name the command that writes it; a test compares the two.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import machine
from benchmarks.database import ROOT, Database

Result = dict[str, Any]
Figures = dict[str, float]
Point = TypeVar("Point")
Cell = Callable[[dict[str, Any]], str]
"""What a column shows of a point of a curve."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A result, where it is kept, and where and how it is shown."""

    name: str
    """Of its file, and in its marks."""
    command: str
    page: str
    table: Callable[[Result], str]

    @property
    def begin(self) -> str:
        return f"<!-- {self.name}: written by {self.command} BENCH_ARGS=--publish -->"

    @property
    def end(self) -> str:
        return f"<!-- /{self.name} -->"

    @property
    def _page(self) -> Path:
        return ROOT / "docs" / self.page

    @property
    def _file(self) -> Path:
        return ROOT / "benchmarks" / "results" / f"{self.name}.json"

    def publish(self, result: Result) -> None:
        self._file.parent.mkdir(exist_ok=True)
        self._file.write_text(json.dumps(result, indent=2) + "\n")
        before, _, rest = self._page.read_text().partition(self.begin)
        self._page.write_text(f"{before}{self.begin}\n{self.table(result)}\n{self.end}{rest.partition(self.end)[2]}")

    @property
    def is_kept(self) -> bool:
        """Whether a result was published."""
        return self._file.exists()

    def publish_again(self) -> None:
        """What was published last, as it is shown now."""
        self.publish(json.loads(self._file.read_text()))

    def kept(self) -> str:
        """The table of what was published last."""
        return self.table(json.loads(self._file.read_text()))

    def has_a_place(self) -> bool:
        """Whether its page has its marks, once."""
        text = self._page.read_text()
        return text.count(self.begin) == text.count(self.end) == 1

    def on_page(self) -> str:
        """What the page shows."""
        return self._page.read_text().partition(f"{self.begin}\n")[2].partition(f"\n{self.end}")[0]


def frame(database: Database) -> Result:
    """What every result begins with: on what it was measured."""
    versions = database.versions | machine.versions("grpcio", "protobuf", "sqlalchemy")
    return {"database": database.title, "machine": machine.facts(), "versions": versions}


def facts(result: Result) -> str:
    return ", ".join(f"{name} {value}" for name, value in {**result["machine"], **result["versions"]}.items())


def extent(result: Result) -> str:
    """How much was measured; a part of all numbers is never published."""
    part = "" if result["scale"] == 1 else f", with {result['scale']:g} of all numbers that are named"
    return f"{result['rounds']} rounds{part}"


def spread(values: Sequence[float]) -> Figures:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def spreads(runs: Sequence[Figures]) -> dict[str, Figures]:
    return {name: spread([run[name] for run in runs]) for name in runs[0]}


def curve(points: Sequence[Point], measure: Callable[[Point], Figures], rounds: int) -> list[dict[str, Any]]:
    """Measures each point in each round."""
    runs: dict[Point, list[Figures]] = {point: [] for point in points}
    for _ in range(rounds):
        for point in points:
            runs[point].append(measure(point))
    return compared(runs)


def told(measure: Callable[[Point], Figures], name: str = "") -> Callable[[Point], Figures]:
    """It takes long: each run is told on stderr."""

    def tell(point: Point) -> Figures:
        figures = measure(point)
        values = ", ".join(f"{name} {figure(value)}" for name, value in figures.items())
        print(f"{name}{point}: {values}", file=sys.stderr, flush=True)
        return figures

    return tell


def compared(runs: Mapping[Point, Sequence[Figures]]) -> list[dict[str, Any]]:
    """The spread of each figure at each point, and of what it is relative to the first point in the same round: if it
    was something there, in each round."""
    first = next(iter(runs.values()))
    names = [name for name in first[0] if all(base[name] for base in first)]
    found = []
    for point, figures in runs.items():
        ratios = [{name: run[name] / base[name] for name in names} for run, base in zip(figures, first, strict=True)]
        found.append({"point": point, "figures": spreads(figures), "relative": spreads(ratios)})
    return found


def percentiles_ms(seconds: Sequence[float]) -> tuple[float, float]:
    """Their median and 99th percentile."""
    cuts = statistics.quantiles(seconds, n=100)
    return cuts[49] * 1000, cuts[98] * 1000


def percentile_ms(seconds: Sequence[float], per_mille: int) -> float:
    """The least of them that so many thousandths do not exceed."""
    # Rounded up, in whole numbers: floats would be off by one here and there.
    rank = -(-len(seconds) * per_mille // 1000)
    return sorted(seconds)[max(rank, 1) - 1] * 1000


def rows(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table whose first column is words and whose others are numbers."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *body]
    marked = [f"| {' | '.join(cells)} |" for cells in lines]
    marked[1] = marked[1].replace(" ", "")
    return "\n".join(marked)


def figure(value: float, like: float | None = None) -> str:
    """A number, to about three digits; as exact as another."""
    size = abs(value if like is None else like)
    digits = 0 if size >= 100 else 2 if size >= 1 or not size else 3
    return f"{value:,.{digits}f}"


def cells(spread: Figures) -> list[str]:
    return [figure(spread[which], like=spread["median"]) for which in ("median", "min", "max")]


def points(name: str, curve: Sequence[dict[str, Any]], columns: dict[str, Cell]) -> str:
    """A curve as a table; its points stand in the first column, under `name`."""
    body = [[titled(point["point"]), *(cell(point) for cell in columns.values())] for point in curve]
    return rows([name, *columns], body)


def titled(point: object) -> str:
    return f"{point:,}" if isinstance(point, int) else str(point)


def median_of(name: str, kind: str = "figures") -> Cell:
    return lambda point: figure(point[kind][name]["median"])


def spread_of(name: str, kind: str = "figures") -> Cell:
    return lambda point: spread_text(point[kind][name])


def spread_text(spread: Figures) -> str:
    median, least, most = cells(spread)
    return f"{median} ({least} to {most})"
