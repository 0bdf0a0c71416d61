"""A client that asks by reflection v1alpha alone: the Go program beside this, by the library of which evans is made.

Evans itself is not to be had from every mirror of Go's modules; what it asks a server, this asks in the same way.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.process import ROOT

PROGRAM = ROOT / ".cache" / "bin" / "reflecting"
FOLDER = Path(__file__).parent
SECONDS = 600


class NoReflecting(Exception):
    """It cannot be made; its text says why."""


def build() -> Path:
    """Where it is; the first time it takes minutes."""
    if (go := shutil.which("go")) is None:
        raise NoReflecting("Go is not on the path")
    try:
        _run(go, "mod", "download")
    except subprocess.CalledProcessError as failed:
        raise NoReflecting(f"what it is made of cannot be fetched: {failed.stderr[-500:]}") from failed
    try:
        _run(go, "build", "-o", str(PROGRAM), ".")
    except subprocess.CalledProcessError as failed:
        raise AssertionError(failed.stderr) from failed
    return PROGRAM


def _run(*command: str) -> None:
    subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=SECONDS, check=True)
