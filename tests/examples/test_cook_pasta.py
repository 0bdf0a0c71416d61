"""The restaurant of examples/cook_pasta, as a visitor runs it."""

from __future__ import annotations

import subprocess
import sys

from tests.support.process import ROOT


def test_dinner_is_served_once_though_a_cook_is_killed() -> None:
    command = [sys.executable, "-m", "examples.cook_pasta"]

    evening = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)

    assert evening.returncode == 0, evening.stdout + evening.stderr
    assert "kill -9" in evening.stdout
    assert "every dish was served exactly once, none was begun early" in evening.stdout
