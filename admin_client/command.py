"""The `taskq` command: one verb for each thing that an operator does."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from importlib.metadata import version

import click

USAGE_ERROR = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("taskq"), prog_name="taskq")
def main() -> None:
    """Durable scheduled tasks, pushed on time to the processors that can run them."""


def _program(name: str) -> Callable[[Callable[[tuple[str, ...]], None]], click.Command]:
    """A command whose flags are for a program of the server's."""
    return main.command(
        name,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
        params=[click.Argument(["flags"], nargs=-1, type=click.UNPROCESSED)],
    )


@_program("server")
def server(flags: tuple[str, ...]) -> None:
    """Run the server until SIGTERM; `taskq server --help` lists its settings."""
    _become("taskq_server", flags)


@_program("db")
def database(flags: tuple[str, ...]) -> None:
    """Upgrade a database, check it, or copy it to another; `taskq db --help` says how."""
    _become("taskq_server.database", flags)


@_program("token")
def token(flags: tuple[str, ...]) -> None:
    """Make, list and revoke the API tokens of those who call; `taskq token --help` says how."""
    _become("taskq_server.tokens", flags)


def _become(module: str, flags: tuple[str, ...]) -> None:
    # A process of its own, not an import: a client must not carry the server with it.
    if importlib.util.find_spec("taskq_server") is None:
        click.echo("taskq: the server is not installed; pip install 'taskq[server]'", err=True)
        sys.exit(USAGE_ERROR)
    os.execv(sys.executable, [sys.executable, "-m", module, *flags])


if __name__ == "__main__":
    main()
