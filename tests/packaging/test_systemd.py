"""The units of systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from taskq_server import settings, values
from tests.packaging.machines import DOCKER, DRAIN_SECONDS

UNITS = sorted((DOCKER / "systemd").glob("*.service"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd on this machine")
    here = tmp_path / unit.name.replace("@.", "@1.")
    here.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(here)]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verified.returncode == 0 and unit.name.partition("@")[0] not in verified.stderr, verified.stderr


def said_by(unit: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", (DOCKER / "systemd" / unit).read_text(), re.MULTILINE))


def test_the_unit_of_the_server_knows_its_exit_codes_and_gives_it_time_to_stop() -> None:
    said = said_by("taskq-server.service")
    assert said["Type"] == "notify"
    assert said["RestartPreventExitStatus"] == "2 78"
    name, _, value = said["Environment"].partition("=")
    assert values.span(said["TimeoutStopSec"] + "s") > settings.load([], {name: value}).stop_grace


def test_the_unit_of_a_processor_gives_it_time_to_drain() -> None:
    said = said_by("taskq-processor@.service")
    assert values.span(said["TimeoutStopSec"] + "s") > DRAIN_SECONDS
