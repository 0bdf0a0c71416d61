"""The `taskq` command: one verb for each thing that an operator does."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.metadata import version

import click

USAGE_ERROR = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("taskq"), prog_name="taskq")
def main() -> None:
    """Durable scheduled tasks, pushed on time to the processors that can run them."""


@main.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def server(flags: tuple[str, ...]) -> None:
    """Run the server until SIGTERM; `taskq server --help` lists its settings."""
    # A process of its own, not an import: a client must not carry the server with it.
    if importlib.util.find_spec("taskq_server") is None:
        click.echo("taskq: the server is not installed; pip install 'taskq[server]'", err=True)
        sys.exit(USAGE_ERROR)
    os.execv(sys.executable, [sys.executable, "-m", "taskq_server", *flags])


if __name__ == "__main__":
    main()
