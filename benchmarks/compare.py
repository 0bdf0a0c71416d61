"""Whether one commit is slower than another: the whole path of both, in turns, and the ratios of their figures.

`make bench-compare BASE=<commit>`, or with HEAD=<commit> and DATABASE=postgres, takes about five minutes. It measures
taskq as it is in each commit with the benchmark of this working tree, and with the packages that are installed here.

A round measures both, one right after the other, the next round in the other order, so that a machine that grows busier
harms neither. A ratio is HEAD's figure to BASE's in the same round; what is printed is the median of the rounds, with
the smallest and the largest. When the ratios of all rounds lie on one side of 1, the figure is said to be

    faster, slower     rates, and milliseconds
    cheaper, dearer    CPU, memory, WAL

and else there is no difference that these rounds can show. Of figures that do not differ, one in 2 ** (rounds - 1) is
said to: with seven rounds one in 64, and a run has more than a dozen. Believe a verdict that is large, or comes again.
With BENCH_ARGS=--strict the exit code is 1 when anything is slower or dearer, or has started early.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import command, report
from benchmarks.database import ROOT
from benchmarks.report import Figures

EARLY = "early"
"""What must be 0, and so has no ratio."""
SAME = "no difference"
WORSE = "slower", "dearer"


def verdict(name: str, ratio: Figures) -> str:
    """What the ratios of a figure say, if they agree."""
    if ratio["min"] <= 1 <= ratio["max"]:
        return SAME
    grew = ratio["min"] > 1
    if name.endswith("/s"):
        return "faster" if grew else "slower"
    if name.endswith(" ms"):
        return "slower" if grew else "faster"
    return "dearer" if grew else "cheaper"


def verdicts(base: Sequence[Figures], head: Sequence[Figures]) -> dict[str, tuple[Figures, str]]:
    """The ratio of each figure, and what it says; the runs of each round stand at the same place."""
    runs = {"base": _without_early(base), "head": _without_early(head)}
    _, compared = report.compared(runs)
    return {name: (ratio, verdict(name, ratio)) for name, ratio in compared["relative"].items()}


def _without_early(runs: Sequence[Figures]) -> list[Figures]:
    return [{name: value for name, value in run.items() if name != EARLY} for run in runs]


def table(base: Sequence[Figures], head: Sequence[Figures]) -> str:
    before, after = report.spreads(base), report.spreads(head)
    body = [
        [name, *(report.figure(of[name]["median"]) for of in (before, after)), _ratio(ratio), said]
        for name, (ratio, said) in verdicts(base, head).items()
    ]
    return report.rows(("figure", "base", "head", "head/base", ""), body)


def _ratio(spread: Figures) -> str:
    """Of ratios, the hundredth is what one looks at."""
    return f"{spread['median']:.2f} ({spread['min']:.2f} to {spread['max']:.2f})"


def is_worse(base: Sequence[Figures], head: Sequence[Figures]) -> bool:
    started_early = sum(run[EARLY] for run in head) > sum(run[EARLY] for run in base)
    return started_early or any(said in WORSE for _, said in verdicts(base, head).values())


@contextmanager
def laid_out(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit, measured by the benchmark of this working tree."""
    with TemporaryDirectory(prefix="taskq-commit-") as name:
        folder = Path(name)
        archive = subprocess.run(["git", "-C", ROOT, "archive", commit], check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        shutil.rmtree(folder / "benchmarks", ignore_errors=True)
        shutil.copytree(ROOT / "benchmarks", folder / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
        yield folder


def run(folder: Path, kind: str, tasks: int) -> Figures:
    """The figures of one run of what is in that folder."""
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{folder / 'generated'}"}
    code = [sys.executable, "-m", "benchmarks.once", kind, str(tasks)]
    with subprocess.Popen(code, cwd=folder, env=environment, stdout=subprocess.PIPE) as process:
        try:
            answer, _ = process.communicate()
        except BaseException:
            process.terminate()  # not killed: it has a server and a database to end
            raise
    if process.returncode:
        raise SystemExit(f"the benchmark failed in {folder}")
    figures: Figures = json.loads(answer)
    return figures


def in_turns(folders: Sequence[Path], kind: str, tasks: int, rounds: int) -> list[list[Figures]]:
    """The runs of each folder."""
    runs: list[list[Figures]] = [[] for _ in folders]
    for round_ in range(rounds):
        sides = list(enumerate(folders))
        for side, folder in sides if round_ % 2 == 0 else reversed(sides):
            figures = run(folder, kind, tasks)
            runs[side].append(figures)
            told = f"lifecycle/s {report.figure(figures['lifecycle /s'])}"
            print(f"round {round_ + 1}, {('base', 'head')[side]}: {told}", file=sys.stderr, flush=True)
    return runs


def named(commit: str) -> str:
    """Its short name, and its first line."""
    shown = ["git", "-C", str(ROOT), "log", "-1", "--format=%h %s", commit]
    return subprocess.run(shown, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = command.parser(__doc__, publishes=False)
    parser.add_argument("base", help="the commit to compare with")
    parser.add_argument("head", nargs="?", default="HEAD", help="the commit that may be slower")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--strict", action="store_true", help="exit with 1 when anything is slower or dearer")
    given = parser.parse_args()
    with laid_out(given.base) as base_folder, laid_out(given.head) as head_folder:
        base, head = in_turns([base_folder, head_folder], given.database, given.tasks, given.rounds)
    print(f"base {named(given.base)}\nhead {named(given.head)}\n")
    print(table(base, head))
    if any(run[EARLY] for run in (*base, *head)):
        print(f"started early: base {sum(run[EARLY] for run in base):g}, head {sum(run[EARLY] for run in head):g}")
    if given.strict and is_worse(base, head):
        sys.exit(1)


if __name__ == "__main__":
    main()
