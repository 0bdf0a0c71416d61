"""`taskq config`: servers by a name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from admin_client import profiles
from admin_client.output import Column, Output, Table
from admin_client.verb import CONNECTION, Local, complete_profile, options

F = TypeVar("F", bound=Callable[..., Any])

HIDDEN: Final = "(hidden)"
_SAYS: Final = tuple(option for option in CONNECTION if option.name in profiles.KEYS)

PROFILES: Final = Table(
    [
        Column("NAME", lambda one, words: one["name"]),
        Column("IN USE", lambda one, words: "yes" if one["in_use"] else ""),
        Column("ADDRESS", lambda one, words: one.get("address", ""), is_long=True),
        Column("TLS", lambda one, words: _tls(one)),
        Column("TOKEN", lambda one, words: one.get("token_file", one.get("token", "")), is_long=True),
    ],
    name=lambda one: str(one["name"]),
    nothing="no profile; `taskq config set NAME --address HOST:PORT` makes one",
)


@click.group()
def config() -> None:
    """Servers by a name, each with what lets you in."""


def _name(command: F) -> F:
    return click.argument("name", shell_complete=lambda ctx, param, typed: complete_profile(typed))(command)


@config.command("list", cls=Local)
def list_(output: Output) -> None:
    """List the profiles, those of all of this machine among them."""
    found = profiles.known(os.environ)
    shown = [_shown(name, found) for name in sorted(found.profiles)]
    output.show_plain_list("profiles", shown, PROFILES)


@config.command("get", cls=Local)
@click.argument("name", required=False, shell_complete=lambda ctx, param, typed: complete_profile(typed))
def get(output: Output, name: str | None) -> None:
    """Show a profile: that of NAME, else the one that is in use. A token is not shown."""
    found = profiles.known(os.environ)
    name = name or os.environ.get("TASKQ_PROFILE", "").strip() or found.used
    if not name:
        raise click.UsageError("no profile is in use; say which", click.get_current_context())
    profiles.named(name, os.environ)
    output.show_plain(_shown(name, found), name)


@config.command("set", cls=Local)
@_name
@options(_SAYS)
@click.option("--unset", multiple=True, type=click.Choice([key.replace("_", "-") for key in profiles.KEYS]),
              help="leave this to the environment again")  # fmt: skip
def set_(output: Output, name: str, unset: tuple[str, ...], **given: Any) -> None:
    """Change what is given of a profile, and leave the rest; make it where there is none.

    A token is better kept in a file of its own, by --token-file. `--token -` reads it from stdin.
    """
    own = profiles.own(os.environ)
    profiles.check_name(name)
    one = own.profiles.get(name, {})
    for key in unset:
        one.pop(key.replace("-", "_"), None)
    if given["token"] == "-":
        given["token"] = sys.stdin.readline().strip()
    for key, value in given.items():
        if value is not None:
            one[key] = str(Path(value).absolute()) if key in profiles.FILES else value
    for key, other in (("token", "token_file"), ("token_file", "token")):
        if given[key] is not None and given[other] is None:
            one.pop(other, None)
    profiles.check(name, one, own.path)
    own.profiles[name] = one
    own.write()
    output.show_plain(_shown(name, profiles.known(os.environ)), name)
    if own.used != name:
        click.echo(f"`taskq config use {name}` lets it count where no --profile is given", err=True)


@config.command("use", cls=Local)
@click.argument("name", required=False, shell_complete=lambda ctx, param, typed: complete_profile(typed))
@click.option("--none", "is_none", is_flag=True, help="none from now on")
def use(output: Output, name: str | None, is_none: bool) -> None:
    """Let a profile count where none is named, and neither a flag nor TASKQ_ADDRESS says where the server is."""
    if (name is None) != is_none:
        raise click.UsageError("say which: either a NAME, or --none", click.get_current_context())
    own = profiles.own(os.environ)
    if name is not None:
        profiles.named(name, os.environ)
    own.used = name or ""
    own.write()
    if name is not None:
        output.show_plain(_shown(name, profiles.known(os.environ)), name)


@config.command("delete", cls=Local)
@_name
def delete(output: Output, name: str) -> None:
    """Delete a profile, but no file that it names."""
    own = profiles.own(os.environ)
    if name not in own.profiles:
        raise profiles.WrongProfiles(f"there is no profile {name!r} in {own.path}")
    del own.profiles[name]
    own.used = None if own.used == name else own.used
    own.write()


def _shown(name: str, found: profiles.Profiles) -> dict[str, Any]:
    told = dict(found.profiles[name])
    if "token" in told:
        told["token"] = HIDDEN
    return {"name": name, "in_use": name == found.used, **told}


def _tls(one: dict[str, Any]) -> str:
    if one.get("tls") is False:
        return "no"
    return "yes" if any(key in one for key in ("tls", "tls_ca", "tls_cert")) else ""
