"""The `taskq` command: one verb for each thing that an operator does."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import click

from admin_client.health import health

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


main.add_command(health)


@main.group()
def certs() -> None:
    """Certificates for development."""


@certs.command("init")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="certs")
@click.option("--host", "hosts", multiple=True, help="a name or IP address of the server, beside those of this machine")
@click.option("--force", is_flag=True, help="make all of it anew, also where files would be overwritten")
def certs_init(folder: Path, hosts: tuple[str, ...], force: bool) -> None:
    """Make a CA, and a certificate each for a server, a scheduler, a processor and an administrator, in FOLDER.

    Whoever has the ca.key that this writes can make more of them.
    """
    from admin_client import certificates

    try:
        files, end = certificates.make(hosts)
    except ValueError as fault:
        raise click.BadParameter(str(fault), param_hint="--host") from None
    if not force and (there := certificates.in_the_way(folder, files)):
        raise click.UsageError(f"{folder} has {', '.join(there)} already; choose another folder, or --force")
    try:
        certificates.write(folder, files)
    except OSError as error:
        raise click.FileError(str(folder), error.strerror) from error
    click.echo(f"{len(files)} files in {folder}, valid until {end:%Y-%m-%d}. To use them:", err=True)
    own = f"TASKQ_TLS_CERT={folder}/%s.pem TASKQ_TLS_KEY={folder}/%s.key"
    required = f"TASKQ_TLS_CLIENT_CA={folder}/ca.pem TASKQ_TLS_CLIENT_AUTH=require"
    click.echo(f"server: {own % ('server', 'server')} {required}")
    for role in certificates.CLIENTS:
        click.echo(f"{role}: TASKQ_TLS_CA={folder}/ca.pem {own % (role, role)}")


def _become(module: str, flags: tuple[str, ...]) -> None:
    # A process of its own, not an import: a client must not carry the server with it.
    if importlib.util.find_spec("taskq_server") is None:
        click.echo("taskq: the server is not installed; pip install 'taskq[server]'", err=True)
        sys.exit(USAGE_ERROR)
    os.execv(sys.executable, [sys.executable, "-m", module, *flags])


if __name__ == "__main__":
    main()
