"""The programs that pages show, as their readers would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"^```python\n# (?P<name>\S+\.py)\n(?P<body>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
_ANY_PYTHON = re.compile(r"^```python\n(.*)$", re.M)


@dataclass(frozen=True)
class Program:
    """A Python block whose first line is the name of its file, and the text block below it, if there is one."""

    path: Path
    output: str | None

    @property
    def runs_until_sigterm(self) -> bool:
        """A processor does."""
        return bool(re.search(r"^(processor|Processor\(.*\))\.run\(\)", self.path.read_text(), re.M))


def programs_of(page: str, folder: Path) -> list[Program]:
    """Every Python block of a page, written into `folder`, in their order. Each must say what file it is."""
    found = []
    for block in _BLOCK.finditer(page):
        path = folder / block["name"]
        path.write_text(f"# {block['name']}\n{block['body']}")
        found.append(Program(path, block["output"]))
    nameless = [line for line in _ANY_PYTHON.findall(page) if not re.match(r"# \S+\.py", line)]
    assert not nameless, f"blocks that nobody could run: {nameless}"
    return found


def started(program: Program, address: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, program.path], env={**os.environ, "TASKQ_ADDRESS": address})


def output_of(program: Program, address: str) -> str:
    """What it has printed when it has ended, errors too."""
    ended = subprocess.run(
        [sys.executable, program.path],
        env={**os.environ, "TASKQ_ADDRESS": address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.stdout if ended.returncode == 0 else f"exit code {ended.returncode}\n{ended.stdout}"
