"""`taskq certs`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from admin_client.errors import UNFIT, Ended
from admin_client.output import Column, Output, Table
from admin_client.values import SPAN
from admin_client.verb import Local

FOUND = Table(
    [
        Column("FILE", lambda one, words: one["file"]),
        Column("UNTIL", lambda one, words: one["until"]),
        Column("FAULTS", lambda one, words: "; ".join(one["faults"]), style=lambda text: "red", is_long=True),
        Column("MADE OUT TO", lambda one, words: ", ".join(one["names"]), is_long=True),
    ],
    name=lambda one: str(one["file"]),
    nothing="",
)


@click.group()
def certs() -> None:
    """Certificates: make them for development, check them."""


@certs.command("init")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="certs")
@click.option("--host", "hosts", multiple=True, help="a name or IP address of the server, beside those of this machine")
@click.option("--force", is_flag=True, help="make all of it anew, also where files would be overwritten")
def certs_init(folder: Path, hosts: tuple[str, ...], force: bool) -> None:
    """Make a CA, and a certificate each for server, scheduler, processor, administrator and probe, in FOLDER.

    Where a CA and its key are there already, only the certificates that are missing. Whoever has the ca.key that this
    writes can make more of them.
    """
    from admin_client import certificates

    is_begun = not force and len(certificates.in_the_way(folder, ("ca.pem", "ca.key"))) == 2
    try:
        files, end = certificates.make_missing(folder, hosts) if is_begun else certificates.make(hosts)
    except certificates.NoHost as fault:
        raise click.BadParameter(str(fault), param_hint="--host") from None
    except ValueError as fault:
        raise click.UsageError(f"{fault}; choose another folder, or --force") from None
    except OSError as error:
        raise click.FileError(str(error.filename), error.strerror) from error
    there = certificates.in_the_way(folder, files or certificates.FILES)
    if there and not force:
        raise click.UsageError(f"{folder} has {', '.join(there)} already; choose another folder, or --force")
    try:
        certificates.write(folder, files)
    except OSError as error:
        raise click.FileError(str(folder), error.strerror) from error
    made = f"{len(files)} files in {folder}"
    if is_begun:
        made = f"{', '.join(files)} in {folder}, signed by the CA there; all else is as it was"
    click.echo(f"{made}, valid until {end:%Y-%m-%d}. To use them:", err=True)
    own = f"TASKQ_TLS_CERT={folder}/%s.pem TASKQ_TLS_KEY={folder}/%s.key"
    required = f"TASKQ_TLS_CLIENT_CA={folder}/ca.pem TASKQ_TLS_CLIENT_AUTH=require"
    click.echo(f"server: {own % ('server', 'server')} {required}")
    for role in certificates.CLIENTS:
        click.echo(f"{role}: TASKQ_TLS_CA={folder}/ca.pem {own % (role, role)}")


@certs.command("check", cls=Local)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--ca", type=click.Path(dir_okay=False, path_type=Path), help="who must have signed them (ca.pem beside)")
@click.option("--within", type=SPAN, default="14d", help="a fault where one ends so soon (14d)")
def certs_check(output: Output, paths: tuple[Path, ...], ca: Path | None, within: float) -> None:
    """Check certificates, those of PATHS or of the folder certs: until when, signed by whom, are their keys theirs.

    Exit code 0 if all is well, 1 if not.
    """
    from admin_client import examining

    try:
        found = examining.examine(paths or [Path("certs")], ca, timedelta(seconds=within), datetime.now(UTC))
    except ValueError as fault:
        raise click.BadParameter(str(fault), param_hint="PATHS") from None
    shown = [
        {
            "file": str(one.file),
            "until": f"{one.end:%Y-%m-%dT%H:%M:%SZ}",
            "faults": list(one.faults),
            "names": list(one.names),
        }
        for one in found
    ]
    output.show_plain_list("certificates", shown, FOUND)
    if wrong := [one for one in found if one.faults]:
        raise Ended(UNFIT, f"{len(wrong)} of {len(found)}: {wrong[0].file} {wrong[0].faults[0]}")
