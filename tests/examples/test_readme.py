"""The code and the commands of README and of the pages that hold programs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.process import ROOT, ServerProcess

README = (ROOT / "README.md").read_text()
SCHEDULES = (ROOT / "docs" / "schedules.md").read_text()


def written_programs(folder: Path, page: str = README) -> dict[str, Path]:
    """The Python blocks of a page, each under the name in its first line."""
    programs = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        name = block.splitlines()[0].removeprefix("# ")
        programs[name] = folder / name
        programs[name].write_text(block)
    return programs


def test_the_scheduler_of_the_readme_is_answered_by_its_processor(
    tmp_path: Path, server_process: ServerProcess
) -> None:
    programs = written_programs(tmp_path)
    environment = {**os.environ, "TASKQ_ADDRESS": server_process.address}
    processor = subprocess.Popen([sys.executable, programs["cook.py"]], env=environment)
    try:
        order = subprocess.run(
            [sys.executable, programs["order.py"]],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        processor.terminate()
    assert order.stdout == "stew is served, attempt 1\n", order.stderr
    assert processor.wait(30) == 0


def test_the_program_that_declares_schedules_finds_them_as_declared_when_it_runs_again(
    tmp_path: Path, server_process: ServerProcess
) -> None:
    program = written_programs(tmp_path, SCHEDULES)["breakfast.py"]
    environment = {**os.environ, "TASKQ_ADDRESS": server_process.address}

    def run() -> str:
        ended = subprocess.run(
            [sys.executable, program], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        return ended.stdout + ended.stderr

    assert run() == "['kitchen.breakfast', 'kitchen.brunch', 'kitchen.tea'] [] {} []\n"
    assert run() == "[] [] {} []\n"


def test_every_command_of_the_readme_is_there() -> None:
    commands = set(re.findall(r"make ([a-z-]+)", README))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= commands <= targets


def test_every_folder_of_the_map_is_there() -> None:
    folders = re.findall(r"^\| `([a-z_]+)/` \|", README, re.MULTILINE)
    assert len(folders) >= 10
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


def test_every_page_that_the_readme_links_to_is_there() -> None:
    pages = re.findall(r"\]\(([^)#]+)\)", README)
    assert [page for page in pages if not (ROOT / page).exists()] == []
