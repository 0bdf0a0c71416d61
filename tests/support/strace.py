"""A server whose system calls strace sees and spoils: a slow or broken disk; what happened before what."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.process import ServerProcess

STRACE_MISSING = "NOT TESTED, and it should be: strace"
_BEGINS = re.compile(r"(?P<thread>\d+) +(?P<time>[\d.]+) (?P<name>\w+)\((?P<rest>.*)")
_RETURNS = re.compile(r"(?P<thread>\d+) +[\d.]+ <\.\.\. \w+ resumed>(?P<rest>.*)")


def needed() -> str:
    """Where strace is; skips the test, saying why, where there is none or it may not trace."""
    path = shutil.which("strace")
    if path is None:
        pytest.skip(f"{STRACE_MISSING} is not installed (apt-get install strace)")
    probe = subprocess.run([path, "-f", "-o", "/dev/null", "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"{STRACE_MISSING} may not trace here: {probe.stderr.decode(errors='replace').strip()}")
    return path


class TracedServer(ServerProcess):
    """`trace`: which calls to write down; `inject`: strace's -e inject=. Its pid is the server's own."""

    def __init__(self, database_url: str, output: Path, trace: str, inject: Sequence[str], **settings: str) -> None:
        super().__init__(database_url, **settings)
        self.output = output
        # -D: strace stands aside, so that signals and exit codes are the server's.
        self.prefix = [needed(), "-D", "-f", "-ttt", "-yy", "-s", "0", "-o", str(output), "-e", f"trace={trace}"]
        for fault in inject:
            self.prefix += ["-e", f"inject={fault}"]


@dataclass(slots=True)
class Call:
    """One system call: the lines of the output, counted from 0, on which it began and returned."""

    name: str
    began: float
    """Epoch seconds."""
    first_line: int
    last_line: int
    text: str

    @property
    def succeeded(self) -> bool:
        return bool(re.search(r"\) += 0\b", self.text))


def read(output: Path) -> list[Call]:
    """The calls that have returned, in the order in which they began."""
    calls: list[Call] = []
    open_calls: dict[str, Call] = {}
    for number, line in enumerate(output.read_text(errors="replace").splitlines()):
        if match := _BEGINS.match(line):
            call = Call(match["name"], float(match["time"]), number, number, match["rest"])
            if line.endswith("<unfinished ...>"):
                open_calls[match["thread"]] = call
            else:
                calls.append(call)
        elif (match := _RETURNS.match(line)) and (begun := open_calls.pop(match["thread"], None)):
            begun.last_line = number
            begun.text += match["rest"]
            calls.append(begun)
    return sorted(calls, key=lambda call: call.first_line)
