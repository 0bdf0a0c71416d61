"""The programs of the manual do what the pages say, each page by itself; and the pages hold together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.examples.blocks import pages
from tests.examples.pages import output_of, programs_of, started
from tests.support.process import ROOT, ServerProcess

DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
WITH_PROGRAMS = [name for name in PAGES if "```python" in (DOCS / name).read_text()]
LEND_THEIR_PROCESSORS = {"schedulers.md": "processors.md"}
"""Pages whose tasks are run by the processors of another page."""


@pytest.mark.parametrize("name", WITH_PROGRAMS)
def test_the_programs_of_a_page_print_what_it_shows(name: str, tmp_path: Path, server_process: ServerProcess) -> None:
    programs = programs_of((DOCS / name).read_text(), tmp_path)
    lent = LEND_THEIR_PROCESSORS.get(name)
    others = programs_of((DOCS / lent).read_text(), tmp_path) if lent else []
    processors = [started(one, server_process.address) for one in [*programs, *others] if one.runs_until_sigterm]
    try:
        for program in programs:
            if not program.runs_until_sigterm:
                printed = output_of(program, server_process.address)
                assert not printed.startswith("exit code"), f"{program.path.name}: {printed}"
                assert program.output is None or printed == program.output, program.path.name
    finally:
        for processor in processors:
            processor.terminate()
    assert [processor.wait(30) for processor in processors] == [0] * len(processors)


def test_the_manual_shows_programs_with_their_output() -> None:
    """Else nothing above has been shown."""
    shown = [name for name in WITH_PROGRAMS if re.search(r"```\n\n```text\n", (DOCS / name).read_text())]
    assert {"start.md", "schedulers.md", "processors.md", "customising.md"} <= set(shown)


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = set(re.findall(r"^([a-z-]+)$", (DOCS / "index.md").read_text(), re.MULTILINE))
    assert listed == {Path(name).stem for name in PAGES} - {"index"}


@pytest.mark.parametrize("page", pages())
def test_every_link_of_a_page_leads_to_something(page: str) -> None:
    links = re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", (ROOT / page).read_text())
    for path, heading in links:
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        assert not heading or heading in headings_of(target), f"{path}#{heading}"


def headings_of(page: Path) -> list[str]:
    """As a link names them, on a forge and in the manual."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines]
