"""When a benchmark says that a commit is slower, and when a figure keeps to its target."""

from __future__ import annotations

import pytest

from benchmarks import compare, report
from benchmarks.compare import SAME, is_worse, table, verdicts
from benchmarks.report import Figures
from benchmarks.targets import Target

AGREES_ABOVE = [1.1, 1.02, 1.3]
AGREES_BELOW = [0.9, 0.98, 0.7]
DISAGREES = [0.98, 1.4, 1.5]


def runs(name: str, *values: float, early: float = 0) -> list[Figures]:
    return [{name: value, "early": early} for value in values]


def said(name: str, ratios: list[float]) -> str:
    """What is said of a figure whose ratios are these in the rounds."""
    _, found = verdicts(runs(name, *[100.0] * len(ratios)), runs(name, *(100 * ratio for ratio in ratios)))[name]
    return found


@pytest.mark.parametrize(
    ("name", "above", "below"),
    [
        ("lifecycle /s", "faster", "slower"),
        ("lateness p99 ms", "slower", "faster"),
        ("server CPU s/1000", "dearer", "cheaper"),
        ("server peak MiB", "dearer", "cheaper"),
        ("WAL KiB/1000", "dearer", "cheaper"),
    ],
)
def test_a_verdict_is_given_when_all_rounds_agree(name: str, above: str, below: str) -> None:
    assert said(name, AGREES_ABOVE) == above
    assert said(name, AGREES_BELOW) == below


def test_one_round_that_says_otherwise_is_enough_for_no_verdict() -> None:
    assert said("lifecycle /s", DISAGREES) == SAME


def test_a_round_without_a_difference_is_enough_for_no_verdict() -> None:
    assert said("lifecycle /s", [1.0, 1.2, 1.2]) == SAME


def test_a_ratio_is_that_of_the_two_runs_of_one_round() -> None:
    # the machine was half as fast in the second round, for both
    ratio, found = verdicts(runs("drain /s", 1000, 500, 1000), runs("drain /s", 1100, 540, 1050))["drain /s"]
    assert (ratio["min"], ratio["median"], ratio["max"]) == pytest.approx((1.05, 1.08, 1.1))
    assert found == "faster"


@pytest.mark.parametrize(("ratios", "worse"), [(AGREES_BELOW, True), (AGREES_ABOVE, False), (DISAGREES, False)])
def test_only_a_verdict_makes_a_commit_worse(ratios: list[float], worse: bool) -> None:
    base, head = runs("lifecycle /s", 10, 10, 10), runs("lifecycle /s", *(10 * ratio for ratio in ratios))
    assert is_worse(base, head) is worse


def test_a_commit_that_starts_tasks_early_is_worse_however_fast_it_is() -> None:
    assert is_worse(runs("drain /s", 10, 10), runs("drain /s", 20, 20, early=1))
    assert not is_worse(runs("drain /s", 10, 10, early=1), runs("drain /s", 20, 20))


def test_the_table_shows_medians_ratios_and_the_verdict() -> None:
    lines = table(runs("drain /s", 100, 110, 120), runs("drain /s", 50, 55, 90)).splitlines()
    assert lines[-1] == "| drain /s | 110 | 55.00 | 0.50 (0.50 to 0.75) | slower |"


def curve(*values: float) -> dict[str, object]:
    """A result whose curve has the points `0`, `1`, …, measured twice."""
    return {"curves": {"rows": report.compared({str(i): [{"x": value}] * 2 for i, value in enumerate(values)})}}


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target("rows", "1", "x", 5), True),
        (Target("rows", "1", "x", 4.9), False),
        (Target("rows", "1", "x", 0.5, relative=True), True),
        (Target("rows", "1", "x", 0.5, relative=True, at_least=True), True),
        (Target("rows", "1", "x", 0.6, relative=True, at_least=True), False),
    ],
)
def test_a_target_is_met_by_the_median(target: Target, met: bool) -> None:
    assert target.is_met(curve(10, 5)) is met
    assert target.row(curve(10, 5))[-1] == ("met" if met else "missed")


def test_what_was_nothing_in_a_round_has_no_ratio() -> None:
    _, second = report.compared({"a": [{"x": 1, "y": 2}, {"x": 0, "y": 2}], "b": [{"x": 1, "y": 4}, {"x": 1, "y": 6}]})
    assert second["relative"] == {"y": {"median": 2.5, "min": 2, "max": 3}}
    assert second["figures"]["x"]["median"] == 1


def test_both_commits_are_measured_by_the_benchmark_that_compares_them() -> None:
    with compare.laid_out("HEAD") as folder:
        for module in ("once.py", "lifecycle.py"):
            ours = compare.ROOT / "benchmarks" / module
            assert (folder / "benchmarks" / module).read_text() == ours.read_text()
        assert (folder / "taskq_server" / "server.py").is_file()
        assert (folder / "generated" / "taskq").is_dir()
