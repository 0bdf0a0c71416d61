"""What a published figure has to keep to, and whether it does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks import report
from benchmarks.report import Figures, Result


@dataclass(frozen=True, slots=True)
class Target:
    """A bound of the median of a figure at a point of a curve."""

    curve: str
    point: Any
    figure: str
    bound: float
    at_least: bool = False
    """Else at most."""
    relative: bool = False
    """To the first point of the curve."""

    def of(self, result: Result) -> Figures:
        """What was measured."""
        point = next(one for one in result["curves"][self.curve] if one["point"] == self.point)
        found: Figures = point["relative" if self.relative else "figures"][self.figure]
        return found

    def is_met(self, result: Result) -> bool:
        median = self.of(result)["median"]
        return median >= self.bound if self.at_least else median <= self.bound

    def row(self, result: Result) -> list[str]:
        what = f"{self.figure}, {self.point}" + (" (relative)" if self.relative else "")
        sign = "≥" if self.at_least else "≤"
        measured = report.spread_text(self.of(result))
        return [what, f"{sign} {self.bound:g}", measured, "met" if self.is_met(result) else "missed"]


def table(targets: Iterable[Target], result: Result) -> str:
    return report.rows(("target", "bound", "measured", ""), [target.row(result) for target in targets])
