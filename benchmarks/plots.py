"""Curves as SVG: the median of each figure, and between which values its rounds lie.

Drawn by matplotlib, which `make` installs for the benchmarks alone (`pip install 'taskq[bench]'`). The same result is
drawn as the same bytes by the same version. The ground is transparent and the ink a middle grey, so that a page may be
light or dark.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import report
from benchmarks.database import ROOT
from benchmarks.report import Result, Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOLDER = ROOT / "docs" / "figures"
INK = "#7d8590"
COLOURS = "#3b82f6", "#e0712b", "#2f9e63"
"""Told apart also by those who do not tell red from green, by their lightness and their markers."""
MARKERS = "o", "s", "^"
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "taskq",
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 9,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True, slots=True)
class Panel:
    """Figures that share an axis: what each is called in it."""

    title: str
    figures: Mapping[str, str]
    log: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """How a curve is drawn. Its points stand at equal distances: each is a multiple of the one before."""

    label: str
    """Of what grows."""
    panels: Sequence[Panel]
    ticks: Mapping[Any, str] | None = None
    """What a point is called, where it is too long."""
    joined: int | None = None
    """So many points are one growth; the others stand by themselves. None: all."""

    def svg(self, curve: Sequence[dict[str, Any]]) -> str:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        with matplotlib.rc_context(_SETTINGS):
            figure = Figure(figsize=(3.2 * len(self.panels), 2.7), layout="constrained")
            FigureCanvasSVG(figure)
            for place, panel in enumerate(self.panels, 1):
                self._draw(figure.add_subplot(1, len(self.panels), place), panel, curve)
            written = io.StringIO()
            figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return written.getvalue()

    def _draw(self, axes: Axes, panel: Panel, curve: Sequence[dict[str, Any]]) -> None:
        from matplotlib.ticker import LogLocator, NullLocator

        called = report.titled if self.ticks is None else self.ticks.__getitem__
        names = [called(point["point"]) for point in curve]
        for (label, name), colour, marker in zip(panel.figures.items(), COLOURS, MARKERS, strict=False):
            spreads = [point["figures"][name] for point in curve]
            self._draw_figure(axes, spreads, label, colour, marker)
        axes.set_title(panel.title)
        axes.set_xlabel(self.label)
        axes.set_xticks(range(len(names)), names)
        axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.6)
        if len(panel.figures) > 1:
            axes.margins(y=0.3)
            axes.legend(frameon=False)
        if panel.log:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
        else:
            axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")

    def _draw_figure(self, axes: Axes, spreads: list[dict[str, float]], label: str, colour: str, marker: str) -> None:
        joined = len(spreads) if self.joined is None else self.joined
        median, least, most = ([spread[which] for spread in spreads] for which in ("median", "min", "max"))
        places = range(len(spreads))
        axes.plot(places[:joined], median[:joined], color=colour, marker=marker, markersize=4, label=label)
        axes.fill_between(places[:joined], least[:joined], most[:joined], color=colour, alpha=0.25, linewidth=0)
        if joined < len(spreads):
            alone = slice(joined, None)
            below = [middle - low for middle, low in zip(median[alone], least[alone], strict=True)]
            above = [high - middle for middle, high in zip(median[alone], most[alone], strict=True)]
            spans = [below, above]
            axes.errorbar(places[alone], median[alone], spans, color=colour, marker=marker, markersize=4, linestyle="")


@dataclass(frozen=True, slots=True)
class Drawn(Shown):
    """A result whose curves are also drawn, each in a file of its own."""

    plots: Mapping[str, Plot]

    def publish(self, result: Result) -> None:
        drawn = {name: plot.svg(result["curves"][name]) for name, plot in self.plots.items()}
        Shown.publish(self, result)
        FOLDER.mkdir(exist_ok=True)
        for name, svg in drawn.items():
            (FOLDER / f"{self.name}-{name}.svg").write_text(svg)


def must_be_possible() -> None:
    """SystemExit when nothing can be drawn: before half an hour of measuring, not after it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise SystemExit("needs matplotlib: pip install 'taskq[bench]'")


def image(result_name: str, curve: str) -> str:
    """What stands for a drawn curve in a page."""
    return f"![{curve}](figures/{result_name}-{curve}.svg)"
