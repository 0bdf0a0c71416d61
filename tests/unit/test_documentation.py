"""What the documentation says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import pages
from benchmarks.report import Shown
from taskq_server.config import Config
from tests.support.process import ROOT

OPERATION = ROOT / "docs" / "operation.md"


def settings_table() -> str:
    rows = ["| variable | flag | default | |", "|---|---|---|---|"]
    for name, field in Config.model_fields.items():
        default = "a file in your state folder" if name == "database_url" else f"`{_written(field.default)}`"
        flag = "--" + name.replace("_", "-")
        rows.append(f"| `TASKQ_{name.upper()}` | `{flag}` | {default} | {field.description} |")
    return "\n".join(rows)


def _written(default: object) -> str:
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default / 86400:g}d" if default >= 86400 else f"{default:g}s"
    return str(default) or "none"


def test_the_table_of_settings_is_the_one_that_the_server_has() -> None:
    text = OPERATION.read_text()
    table = text.partition("-->\n")[2].partition("\n<!-- /settings -->")[0]
    assert table == settings_table()


def name_of(shown: Shown) -> str:
    return shown.name


@pytest.mark.parametrize("shown", [shown for shown in pages.ALL if shown.is_kept], ids=name_of)
def test_the_figures_are_those_that_the_benchmark_wrote(shown: Shown) -> None:
    assert shown.on_page() == shown.kept()


@pytest.mark.parametrize("shown", pages.ALL, ids=name_of)
def test_a_benchmark_has_a_place_on_its_page(shown: Shown) -> None:
    assert shown.has_a_place()


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_picture_of_a_page_is_there(page: Path) -> None:
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text()):
        assert (page.parent / picture).is_file()
