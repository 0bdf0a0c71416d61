"""What every benchmark's command line has."""

from __future__ import annotations

import argparse
import signal
import sys

from benchmarks.report import Result, Shown

TERMINATED = 143


def unwind_when_terminated() -> None:
    """From now on SIGTERM unwinds, as Ctrl-C does, so that whoever was started is ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))


def parser(about: str | None, *, publishes: bool = True) -> argparse.ArgumentParser:
    """One that knows --publish, if there is anything to publish. SIGTERM unwinds from now on."""
    unwind_when_terminated()
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    if publishes:
        parser.add_argument("--publish", action="store_true", help="keep the figures in benchmarks/results and docs")
    return parser


def finish(given: argparse.Namespace, shown: Shown, result: Result) -> None:
    print(shown.table(result))
    if given.publish:
        shown.publish(result)
