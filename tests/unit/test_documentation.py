"""What the documentation says is so."""

from __future__ import annotations

import pytest

from benchmarks import bloat, lifecycle
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
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default / 86400:g}d" if default >= 86400 else f"{default:g}s"
    return str(default)


def test_the_table_of_settings_is_the_one_that_the_server_has() -> None:
    text = OPERATION.read_text()
    table = text.partition("-->\n")[2].partition("\n<!-- /settings -->")[0]
    assert table == settings_table()


@pytest.mark.parametrize("shown", [*lifecycle.SHOWN.values(), bloat.SHOWN], ids=lambda shown: shown.name)
def test_the_figures_are_those_that_the_benchmark_wrote(shown: Shown) -> None:
    assert shown.on_page() == shown.kept()
