"""evans (https://github.com/ktr0731/evans), which knows of a server what reflection v1alpha tells; made where Go is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.process import ROOT

PROGRAM = ROOT / ".cache" / "bin" / "evans"
FOLDER = Path(__file__).parent
SECONDS = 600


class NoEvans(Exception):
    """It cannot be made; its text says why."""


def build() -> Path:
    """Where it is; the first time it takes a minute."""
    if (go := shutil.which("go")) is None:
        raise NoEvans("Go is not on the path")
    try:
        _run(go, "mod", "download")
    except subprocess.CalledProcessError as failed:
        raise NoEvans(f"what it is made of cannot be fetched: {failed.stderr[-500:]}") from failed
    try:
        _run(go, "build", "-o", str(PROGRAM), "github.com/ktr0731/evans")
    except subprocess.CalledProcessError as failed:
        raise AssertionError(failed.stderr) from failed
    return PROGRAM


def _run(*command: str) -> None:
    subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=SECONDS, check=True)
