"""A server whose system calls strace sees and spoils: a disk that is full, slow or broken; what happened before what."""

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
_CALL = re.compile(r"^(\d+)\s+([\d.]+) (?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)$")


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


@dataclass(frozen=True, slots=True)
class Call:
    """One line of strace: a call that was entered, or has returned, or both. `line` counts from 0."""

    line: int
    thread: int
    time: float
    name: str
    text: str

    @property
    def has_returned(self) -> bool:
        return "<unfinished ...>" not in self.text


def read(output: Path) -> list[Call]:
    """The calls in the order in which strace saw them begin and end."""
    lines = output.read_text(errors="replace").splitlines()
    found = ((i, _CALL.match(line)) for i, line in enumerate(lines))
    return [Call(i, int(m[1]), float(m[2]), m[3], m[4]) for i, m in found if m]
