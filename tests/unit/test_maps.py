"""What tells people where things are tells of what is there: the maps of the packages, and every path in a text."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.process import ROOT

OURS = ("taskq_server", "client_core", "scheduler_client", "processor_client", "admin_client", "benchmarks", "tests")
PACKAGES = sorted(path.parent for name in OURS for path in (ROOT / name).rglob("__init__.py"))
COMPLETE = [ROOT / "taskq_server" / name for name in ("", "core", "core/filter", "core/schedule", "rpc", "http")] + [
    ROOT / "taskq_server/store" / name for name in ("", "copying", "postgres", "sqlite", "verbs", "verbs/asking")
]
"""Whose maps leave nothing out."""
TEXTS = {".md", ".py", ".proto", ".toml", ".yaml"}
MADE = (
    *("docs/_build", "docs/figures", "docs/reference/contract"),
    *("generated/go", "generated/java", "generated/typescript"),
)
"""By `make`, not committed, or not always."""
FOLDERS = "docs|tests|taskq_server|docker|examples|protos|benchmarks|generated|\\w+_client|client_core"
PATH = re.compile(rf"(?<![\w/.~$-])(?:{FOLDERS})/[\w./*@-]*[\w*](?![\w./*@-]*[{{<$])")
"""Not one that has yet to be filled in."""
FILE = re.compile(r"(?<![\w/.*])(?:\w+/)*\w+\.py\b")
FIRST_WORD = re.compile(r"^ *`?([\w/]+)`?/?(?:\.py)?  +\S", re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def map_of(package: Path) -> str:
    return ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""


def is_there(name: str, package: Path) -> bool:
    """In the package, further down in it, or from the root on."""
    return any(path.exists() for end in ("", ".py") for path in (ROOT / f"{name}{end}", *package.rglob(f"{name}{end}")))


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_every_module_that_a_map_names_is_there(package: Path) -> None:
    named = {*FILE.findall(map_of(package)), *FIRST_WORD.findall(map_of(package))}

    assert {name for name in named if not is_there(name, package)} == set()


@pytest.mark.parametrize("package", COMPLETE, ids=name_of)
def test_every_module_of_the_server_is_on_its_map(package: Path) -> None:
    modules = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}

    assert {name for name in modules if not re.search(rf"\b{name}\b", map_of(package))} == set()


def test_every_path_in_a_text_is_there() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = [ROOT / name for name in listed.splitlines() if Path(name).suffix in TEXTS]
    named = {
        (found.rstrip("."), name_of(text))
        for text in texts
        if text.exists() and text != Path(__file__)
        for found in PATH.findall(text.read_text(encoding="utf-8"))
    }

    assert len(named) > 100
    assert [
        (name, text)
        for name, text in sorted(named)
        if not name.startswith(MADE) and not any(ROOT.glob(name)) and not any(ROOT.glob(f"{name}.py"))
    ] == []
