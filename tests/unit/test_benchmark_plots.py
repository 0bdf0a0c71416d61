"""Curves are drawn as files that any browser shows, and that change only with their figures."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import plots, report
from benchmarks.plots import Drawn, Panel, Plot

PANELS = [
    Panel("tasks a second", {"rate": "rate"}),
    Panel("lateness, ms", {"p50": "late p50 ms", "p99": "late p99 ms"}, log=True),
]
PLOT = Plot("processors", PANELS)


def result(factor: float = 1.0) -> report.Result:
    def a_run(rate: float) -> report.Figures:
        return {"rate": rate * factor, "late p50 ms": 2.0, "late p99 ms": 9.0}

    rounds = {1: [a_run(900), a_run(1000)], 10: [a_run(700), a_run(800)], 100: [a_run(10), a_run(20)]}
    return {"curves": {"processors": report.compared(rounds)}}


def drawn(plot: Plot = PLOT, factor: float = 1.0) -> str:
    return plot.svg(result(factor)["curves"]["processors"])


def texts(svg: str) -> list[str]:
    elements = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(element.itertext()).strip() for element in elements]


def test_the_same_figures_are_drawn_as_the_same_bytes() -> None:
    assert drawn() == drawn()


def test_other_figures_are_drawn_otherwise() -> None:
    assert drawn() != drawn(factor=1.1)


def test_a_drawing_does_not_say_when_it_was_made() -> None:
    assert "date" not in drawn()


def test_a_drawing_names_what_it_shows_as_text() -> None:
    assert {"tasks a second", "lateness, ms", "processors", "p50", "p99", "1", "10", "100"} <= set(texts(drawn()))


def test_points_that_are_no_growth_are_not_joined_with_the_others() -> None:
    whole, parted = drawn(), drawn(Plot("processors", PANELS, joined=2))
    assert whole.count("LineCollection") == 0 < parted.count("LineCollection")


def test_a_point_may_be_called_otherwise() -> None:
    ticks = {1: "one", 10: "ten", 100: "a hundred"}
    assert {"one", "ten", "a hundred"} <= set(texts(drawn(Plot("processors", PANELS, ticks))))


def test_a_result_is_published_with_its_drawings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a page with a place for it
    for folder in ("docs", "benchmarks"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(plots, "FOLDER", tmp_path / "docs" / "figures")
    shown = Drawn("scale", "make it", "page.md", lambda _: plots.image("scale", "processors"), {"processors": PLOT})
    page = tmp_path / "docs" / "page.md"
    page.write_text(f"before\n{shown.begin}\n{shown.end}\nafter\n")
    # when
    shown.publish(result())
    # then
    assert shown.on_page() == shown.kept() == "![processors](figures/scale-processors.svg)"
    assert page.read_text().startswith("before\n") and page.read_text().endswith("\nafter\n")
    assert (page.parent / "figures" / "scale-processors.svg").read_text() == drawn()
