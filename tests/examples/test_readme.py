"""The code and the commands of README and of the pages that hold programs."""

from __future__ import annotations

import re
from pathlib import Path

from tests.examples.pages import output_of, programs_of, started
from tests.support.process import ROOT, ServerProcess

README = (ROOT / "README.md").read_text()
SCHEDULES = (ROOT / "docs" / "schedules.md").read_text()


def test_the_scheduler_of_the_readme_is_answered_by_its_processor(
    tmp_path: Path, server_process: ServerProcess
) -> None:
    cook, order = programs_of(README, tmp_path)
    processor = started(cook, server_process.address)
    try:
        assert output_of(order, server_process.address) == "stew is served, attempt 1\n"
    finally:
        processor.terminate()
    assert processor.wait(30) == 0


def test_the_program_that_declares_schedules_finds_them_as_declared_when_it_runs_again(
    tmp_path: Path, server_process: ServerProcess
) -> None:
    (program,) = programs_of(SCHEDULES, tmp_path)
    first, second = (output_of(program, server_process.address) for _ in range(2))
    assert first == "['kitchen.breakfast', 'kitchen.brunch', 'kitchen.tea'] [] {} []\n"
    assert second == "[] [] {} []\n"


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
