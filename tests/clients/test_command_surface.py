"""What the command consists of: its nouns and verbs, its documentation, what it imports, what it calls public."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import admin_client
from admin_client import AdminClient, rpcs, start, values, words
from admin_client.command import NOUNS, main
from taskq.v1 import admin_service_pb2, event_pb2, schedule_service_pb2, scheduler_service_pb2
from tests.clients.command_support import command_line, own_environment
from tests.support import command_reference

PACKAGE = Path(admin_client.__file__).parent


def test_the_public_names_are_these_and_no_others() -> None:
    assert admin_client.__all__ == ["AdminClient"]
    assert admin_client.AdminClient is AdminClient
    with pytest.raises(AttributeError, match="Nothing"):
        admin_client.Nothing  # noqa: B018


def test_the_client_has_a_method_for_every_call_and_each_says_what_it_is() -> None:
    source = (PACKAGE / "client.py").read_text()
    for file in (admin_service_pb2, schedule_service_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                assert f"{method.input_type.name}(" in source, method.name
    for name, member in inspect.getmembers(AdminClient):
        if not name.startswith("_") and callable(member):
            assert inspect.getdoc(member), name


def test_a_request_says_which_call_it_is_for() -> None:
    assert rpcs.of(scheduler_service_pb2.GetTaskRequest()).path == "taskq.v1.SchedulerService/GetTask"
    assert rpcs.of(event_pb2.WatchEventsRequest()).is_stream


def test_the_map_names_every_module() -> None:
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert [name for name in modules if name not in (admin_client.__doc__ or "")] == []


def test_where_the_command_line_is_not_installed_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        start.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "taskq: the command line is not installed; pip install 'taskq[cli]'\n"


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """These are not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in modules else find(name))


def test_click_alone_which_comes_with_the_server_is_no_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "rich")
    monkeypatch.setattr(sys, "argv", ["taskq", "task", "list"])
    with pytest.raises(SystemExit) as ended:
        start.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "taskq: the command line is not installed; pip install 'taskq[cli]'\n"


def test_where_only_the_server_is_installed_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[Sequence[str]] = []
    without(monkeypatch, "rich")
    monkeypatch.setattr(sys, "argv", ["taskq", "server", "--help"])
    monkeypatch.setattr(os, "execv", lambda path, arguments: became.append(arguments[1:]))
    with pytest.raises(SystemExit) as ended:
        start.main()
    assert (ended.value.code, became) == (0, [["-m", "taskq_server", "--help"]])


@pytest.mark.parametrize("noun", ["server", "db", "token", "dev"])
def test_where_the_server_is_not_installed_it_says_how_to_install_it(
    noun: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheel holds its package all the same."""
    without(monkeypatch, "sqlalchemy")
    monkeypatch.setattr(os, "execv", lambda path, arguments: pytest.fail("it is run all the same"))
    result = CliRunner().invoke(main, [noun])
    assert result.exit_code == 2
    assert "the server is not installed" in result.stderr and "pip install 'taskq[server]'" in result.stderr


def test_no_module_outgrows_its_reader() -> None:
    modules = [*PACKAGE.glob("*.py"), *(PACKAGE / "commands").glob("*.py")]
    sizes = {path.name: len(path.read_text().splitlines()) for path in modules}
    assert {name: size for name, size in sizes.items() if size > 300} == {}


def test_nothing_of_it_imports_the_server() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("taskq_server") for name in names), path


def test_the_manual_has_every_verb_as_the_command_tells_it() -> None:
    assert command_reference.on_page() == command_reference.reference()


@pytest.mark.parametrize("path", [" ".join(words) for words, _ in command_reference.commands()])
def test_every_verb_has_help_with_a_sentence(path: str) -> None:
    result = CliRunner().invoke(main, [*path.split(), "--help"])
    assert result.exit_code == 0
    command = dict(command_reference.commands())[tuple(path.split())]
    assert (command.help or "").rstrip().endswith((".", "?", "fish", "…")), command.help
    for param in command.params:
        assert not isinstance(param, click.Option) or param.help, (path, param.name)


def test_the_short_help_of_a_noun_is_what_the_noun_says_of_itself() -> None:
    for section in NOUNS.values():
        for name, text in section.items():
            command = main.get_command(click.Context(main), name)
            if command is not None and name not in (
                "dev",
                "top",
                "server-info",
                "completion",
                "health",
                "conformance",
                "proto",
            ):
                assert (command.help or "").split("\n\n")[0] == text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_it_completes_in_every_shell(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0 and "_TASKQ_COMPLETE" in result.output
    asked = {"_TASKQ_COMPLETE": f"{shell}_complete", "COMP_WORDS": "taskq schedule tr", "COMP_CWORD": "2"}
    asked |= {"COMP_WORDS": "taskq schedule tr"} if shell != "fish" else {"COMP_CWORD": "tr"}
    said = subprocess.run(command_line(), env=own_environment(**asked), capture_output=True, text=True, check=False)
    assert "trigger" in said.stdout, said.stderr


LOADED = {
    "bash": (
        'eval "$(taskq completion bash)"; complete -p taskq >&2; '
        "COMP_WORDS=(taskq schedule tr) COMP_CWORD=2; _taskq_completion taskq; echo ${COMPREPLY[@]}"
    ),
    "zsh": (
        'autoload -U compinit; compinit -u -D; eval "$(taskq completion zsh)"; '
        "_describe() { print $completions_with_descriptions }; compadd() { print $completions }; "
        "words=(taskq schedule tr) CURRENT=3; $_comps[taskq]"
    ),
    "fish": "taskq completion fish | source; complete --do-complete 'taskq schedule tr'",
}
"""How each loads what is printed, and then asks for what begins with `tr`."""


@pytest.mark.parametrize("shell", LOADED)
def test_a_shell_that_is_installed_loads_it(shell: str, tmp_path: Path) -> None:
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"there is no {shell} here")
    taskq = tmp_path / "taskq"
    taskq.write_text(f'#!/bin/sh\nexec {shlex.join(command_line())} "$@"\n')
    taskq.chmod(0o755)
    environment = own_environment(PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}", HOME=str(tmp_path))
    ended = subprocess.run(
        [program, "-c", LOADED[shell]], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "trigger" in ended.stdout, ended


def imported(*words: str) -> set[str]:
    """The packages that a run of the command imports."""
    code = (
        "import sys\nfrom admin_client.command import main\n"
        f"try: main({list(words)!r})\nexcept SystemExit: pass\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, sep='\\n', file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=own_environment(), capture_output=True, text=True, check=True
    )
    return set(ended.stderr.split())


def test_help_waits_for_no_grpc_and_a_pipe_for_no_tables() -> None:
    assert not imported("--help") & {"grpc", "google", "rich", "cryptography", "asyncio", "yaml", "tomllib"}
    heavy = {
        "rich",
        "yaml",
        "cryptography",
        "scheduler_client",
        "processor_client",
        "taskq_server",
        "sqlalchemy",
        "pydantic",
    }
    assert not imported("task", "list", "--address", "127.0.0.1:1") & heavy


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.0004, "0ms"), (0.25, "250ms"), (1, "1s"), (2.54, "2.5s"), (59.6, "1m"), (125, "2m05s"),
        (2_431, "41m"), (3_598, "1h"), (3_600, "1h"), (16_200, "4h30m"), (86_399, "1d"), (86_400, "1d"),
        (90_000, "1d01h"), (1_036_800, "12d"), (-5, "-5s"),
    ],
)  # fmt: skip
def test_spans_are_written_by_their_two_largest_units(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


def test_what_somebody_else_wrote_moves_no_cursor() -> None:
    assert words.clean("a\x1b[2Jb\tc\nd\u202ee\x9b") == "a�[2Jb c d�e�"


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("1h30m", 5_400.0), ("+5m", 300.0), ("7d", 604_800.0)])
def test_spans_are_read(text: str, seconds: float) -> None:
    assert values.SPAN.convert(text, None, None) == seconds
