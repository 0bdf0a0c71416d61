"""grpcurl, by which administrators call the server, and whoever has no client of ours; where Go is, it is made."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.process import ROOT

VERSION = "v1.9.4"
BIN = ROOT / ".cache" / "bin"


class NoGrpcurl(Exception):
    """There is no grpcurl, and none can be made; its text says why."""


def find() -> Path:
    """Where it is: on the path, made before, or made now, which takes minutes."""
    if (found := shutil.which("grpcurl")) is not None:
        return Path(found)
    if (made := BIN / "grpcurl").is_file():
        return made
    if (go := shutil.which("go")) is None:
        raise NoGrpcurl("neither grpcurl nor Go is on the path")
    command = [go, "install", f"github.com/fullstorydev/grpcurl/cmd/grpcurl@{VERSION}"]
    environment = {**os.environ, "GOBIN": str(BIN)}
    try:
        subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=True)
    except subprocess.CalledProcessError as failed:
        raise NoGrpcurl(f"go install failed: {failed.stderr[-500:]}") from failed
    return made
