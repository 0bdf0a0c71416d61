"""`taskq certs`."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def certs() -> None:
    """Certificates for development."""


@certs.command("init")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="certs")
@click.option("--host", "hosts", multiple=True, help="a name or IP address of the server, beside those of this machine")
@click.option("--force", is_flag=True, help="make all of it anew, also where files would be overwritten")
def certs_init(folder: Path, hosts: tuple[str, ...], force: bool) -> None:
    """Make a CA, and a certificate each for server, scheduler, processor, administrator and probe, in FOLDER.

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
