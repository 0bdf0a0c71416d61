"""The commands of docs/docker.md that need an engine, each given to it as the page has it.

tests/examples/test_blocks.py compares them with the page, and that none of them is left out is seen when all is over.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

BUILD: Final = "docker build --file docker/Dockerfile --target server --tag taskq-server ."
HELP: Final = "docker run taskq-server --help"
UP: Final = "make proto && docker compose up"
PROCESSORS: Final = "docker compose run --rm operator processor list"
TASKS: Final = "docker compose run --rm operator task list --address server-1:50051"
COPY: Final = "mkdir -p compose-certs && docker compose cp certs:/certs/admin/. compose-certs"
TOKEN: Final = "docker compose exec server taskq token create me --right admin"
COMMANDS: Final = (BUILD, HELP, UP, PROCESSORS, TASKS, COPY, TOKEN)

_typed: set[str] = set()


def words(command: str, *more: str, instead: Sequence[tuple[str, str]] = ()) -> list[str]:
    """What docker is called with, and what a test says beside it; what goes before docker is no engine's.

    instead  words in the place of others: another folder, another image
    """
    assert command in COMMANDS, command
    _typed.add(command)
    docker, *found = shlex.split(command.rpartition(" && ")[2])
    assert docker == "docker"
    for old, new in instead:
        assert old in found, f"{command} has no {old}"
        found = [new if word == old else word for word in found]
    if found[:2] in (["compose", "run"], ["compose", "exec"]):
        found.insert(2, "-T")  # nobody sits here
    return [*found, *more]


def see_all_typed() -> None:
    assert (left := set(COMMANDS) - _typed) == set(), f"not typed: {left}"
