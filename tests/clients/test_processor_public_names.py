"""The public names of processor_client are counted."""

import ast
import inspect
from pathlib import Path

import pytest

import processor_client

PACKAGE = Path(processor_client.__file__).parent


def test_the_public_names_are_these_and_no_others() -> None:
    assert processor_client.__all__ == [
        "TLS",
        "Context",
        "Fail",
        "LastFailure",
        "ProcessLost",
        "Processor",
        "Retry",
        "Snooze",
        "Task",
        "TaskCancelled",
    ]


@pytest.mark.parametrize("name", processor_client.__all__)
def test_every_public_name_says_what_it_is(name: str) -> None:
    assert inspect.getdoc(getattr(processor_client, name))


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


def test_the_map_names_every_module() -> None:
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}

    assert [name for name in modules if name not in (processor_client.__doc__ or "")] == []


def test_a_processor_needs_neither_the_scheduler_nor_the_server() -> None:
    imported = set()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").split(".")[0])

    assert not imported & {"scheduler_client", "admin_client", "taskq_server"}


def test_no_module_outgrows_its_reader() -> None:
    sizes = {path.name: len(path.read_text().splitlines()) for path in PACKAGE.glob("*.py")}

    assert {name: size for name, size in sizes.items() if size > 250} == {}
