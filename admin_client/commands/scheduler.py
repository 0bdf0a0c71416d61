"""`taskq scheduler`: run a main scheduler."""

from __future__ import annotations

from typing import Any

import click

from admin_client.verb import connection_options, environment


@click.group()
def scheduler() -> None:
    """Run a main scheduler."""


@scheduler.command("run")
@click.argument("app", metavar="MODULE[:NAME]")
@click.option("--reload", is_flag=True, help="start it anew when a .py file below this folder changes")
@connection_options
def run(app: str, reload: bool, **connection: Any) -> None:
    """Run a MainScheduler, by its place: `app:main`.

    Until SIGTERM or Ctrl-C, which let it send what waits: exit code 0. A second one stops it now.
    """
    from admin_client import running

    running.become("scheduler", app, environment(connection), reload)
