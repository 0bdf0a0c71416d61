"""What all verbs have in common: where the server is, what it is told of the caller, and how the answer is shown."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from admin_client import profiles
from admin_client.errors import Ended, report
from admin_client.output import FORMATS, Output
from admin_client.values import SPAN

if TYPE_CHECKING:
    from admin_client.client import AdminClient
    from client_core.access import TLS

Callback = Callable[..., Any]
F = TypeVar("F", bound=Callback)


def _file() -> click.Path:
    return click.Path(dir_okay=False)


CONNECTION: Final = (
    click.Option(
        ["--profile"],
        metavar="NAME",
        help="a server by its name: `taskq config list` (TASKQ_PROFILE)",
        shell_complete=lambda ctx, param, typed: complete_profile(typed),
    ),
    click.Option(["--address"], metavar="HOST:PORT", help="where the server is (TASKQ_ADDRESS; 127.0.0.1:50051)"),
    click.Option(["--tls/--plaintext"], default=None, help="TLS by this system's CAs, or none (TASKQ_TLS)"),
    click.Option(["--tls-ca"], type=_file(), help="the CA of the server's certificate (TASKQ_TLS_CA)"),
    click.Option(["--tls-cert"], type=_file(), help="this caller's certificate (TASKQ_TLS_CERT)"),
    click.Option(["--tls-key"], type=_file(), help="its key (TASKQ_TLS_KEY)"),
    click.Option(
        ["--tls-server-name"],
        metavar="NAME",
        help="to whom that is made out, if not to the host (TASKQ_TLS_SERVER_NAME)",
    ),
    click.Option(["--token"], metavar="TOKEN", help="better kept in TASKQ_TOKEN or a file: others can see flags"),
    click.Option(["--token-file"], type=_file(), help="where the token stands (TASKQ_TOKEN_FILE)"),
    click.Option(["--timeout"], type=SPAN, default="10s", help="the longest that one call may take (10s)"),
)
OUTPUT: Final = (
    click.Option(["-o", "--output"], type=click.Choice(FORMATS), help="table on a terminal, jsonl elsewhere"),
    click.Option(["--json", "as_json"], is_flag=True, help="short for -o json"),
    click.Option(["--fields"], metavar="NAMES", help="only these, of each: task_id,state,last_failure.message"),
    click.Option(["--time", "times"], type=click.Choice(["relative", "iso", "epoch"]), default="relative",
                 help="how tables show times (relative)"),
    click.Option(["--color"], type=click.Choice(["auto", "always", "never"]), default="auto",
                 help="auto: on a terminal, unless NO_COLOR is set"),
    click.Option(["--grpcurl"], is_flag=True, help="print the call for grpcurl instead of making it"),
    click.Option(["-v", "--verbose"], is_flag=True,
                 help="say on stderr the ids of the call, which the server's log has, and of the trace"),
)  # fmt: skip
_COMMON: Final = (*CONNECTION, *OUTPUT)
_LOCAL: Final = tuple(option for option in OUTPUT if option.name in ("output", "as_json", "color"))


@dataclass
class Invocation:
    """One run of a verb: what its common flags say."""

    output: Output
    is_grpcurl: bool
    is_verbose: bool
    address: str | None
    tls: TLS | bool | None
    token: str | None
    token_file: str | None
    timeout: float
    profile: str = ""
    is_profile_named: bool = True
    is_token_of_profile: bool = False
    request_id: str = ""

    @property
    def where(self) -> str:
        """The server, as people know it."""
        return f"{self.address} (profile {self.profile})" if self.profile else self.address or ""

    def client(self) -> AdminClient:
        """The client, or, with --grpcurl, what prints in its place."""
        if self.is_grpcurl:
            from admin_client.grpcurl import Printing

            profile_of_token = self.profile if self.is_token_of_profile else ""
            return Printing(self.address, self.tls, self.token, self.token_file, profile_of_token)
        from admin_client.announcing import Announcing

        token = self.token if self.token_file is None or self.token else _read(self.token_file)
        profile = "" if self.is_profile_named or not sys.stderr.isatty() else self.profile
        how: dict[str, Any] = {"tls": self.tls, "token": token, "timeout": self.timeout, "user_agent": user_agent()}
        return Announcing(self.output, profile, self.address, **how)

    async def run(self, callback: Callback, arguments: dict[str, Any]) -> None:
        async with self.client() as client:
            self.address = client.address
            try:
                client.open()
            except ValueError as fault:
                raise click.UsageError(str(fault), click.get_current_context()) from None
            try:
                await callback(client, self.output, **arguments)
            finally:
                self.request_id = client.request_id
                if self.is_verbose and self.request_id:
                    click.echo(f"request id: {self.request_id}", err=True)


class Verb(click.Command):
    """A command whose callback is `async (client, output, …)`, with the flags that all of them have."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.own = list(self.params)
        self.params.extend(_COMMON)

    def invoke(self, ctx: click.Context) -> None:
        given = {option.name: ctx.params.pop(str(option.name)) for option in _COMMON}
        ctx.obj = invocation = _invocation(given)
        assert self.callback is not None
        from client_core.errors import TaskqError

        try:
            asyncio.run(invocation.run(self.callback, ctx.params))
        except (TaskqError, Ended) as error:
            ctx.exit(report(error, invocation.where, invocation.output.is_for_programs, invocation.request_id))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections = {"Options": [*self.own, self.get_help_option(ctx)], "Output": OUTPUT, "Connection": CONNECTION}
        for title, params in sections.items():
            options = [param for param in params if isinstance(param, click.Option)]
            records = [record for option in options if (record := option.get_help_record(ctx))]
            with formatter.section(title):
                formatter.write_dl(records)


class Local(click.Command):
    """A command that calls no server: its callback is `(output, …)`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.own = list(self.params)
        self.params.extend(_LOCAL)

    def invoke(self, ctx: click.Context) -> None:
        given = {option.name: ctx.params.pop(str(option.name)) for option in _LOCAL}
        assert self.callback is not None
        self.callback(Output("json" if given["as_json"] else given["output"], color=given["color"]), **ctx.params)


def complete_profile(typed: str) -> list[str]:
    """The profiles whose names begin so."""
    return [name for name in profiles.names(os.environ) if name.startswith(typed)]


def user_agent() -> str:
    """By which the audit recognises this command."""
    try:
        return f"taskq-cli/{version('taskq')}"
    except PackageNotFoundError:  # run from a copy of the source
        return "taskq-cli/0"


def verb(group: click.Group, name: str, **options: Any) -> Callable[[Callback], click.Command]:
    """Adds a verb to a noun."""
    return group.command(name, cls=Verb, **options)


def connection_options(command: F) -> F:
    """The flags that say where the server is, for a program that is started with them."""
    return options(CONNECTION[:-1])(command)


def options(those: Sequence[click.Option]) -> Callable[[F], F]:
    """Adds flags that are said elsewhere."""

    def add(command: F) -> F:
        before = getattr(command, "__click_params__", [])
        command.__click_params__ = [*reversed(those), *before]  # type: ignore[attr-defined]
        return command

    return add


def environment(given: dict[str, Any]) -> dict[str, str]:
    """The environment of a program that is to find the same server; says which, if that is nobody's word."""
    told = {**os.environ}
    known = profiles.completed(given, os.environ)
    if known["token_file"] is not None:
        told.pop("TASKQ_TOKEN", None)
    elif known["token"] is not None:
        told.pop("TASKQ_TOKEN_FILE", None)
    if known["tls"] is None and (known["tls_ca"] or known["tls_cert"]):
        told.pop("TASKQ_TLS", None)  # files mean TLS, whatever it says
    if profile := profiles.unnamed(given, os.environ):
        from client_core.channel import address_from_environment

        click.echo(f"{profile}, {known['address'] or address_from_environment()}", err=True)
    for name, value in known.items():
        if value is not None:
            told[f"TASKQ_{name.upper()}"] = str(value).lower() if isinstance(value, bool) else str(value)
    return told


def _invocation(given: dict[str, Any]) -> Invocation:
    connection = {str(option.name): given[str(option.name)] for option in CONNECTION[:-1]}
    given |= profiles.completed(connection, os.environ)
    output = Output("json" if given["as_json"] else given["output"], given["times"], given["color"])
    if given["fields"] is not None:
        from admin_client.fields import Fields

        output.fields = Fields.read(given["fields"])
    return Invocation(
        output,
        is_grpcurl=given["grpcurl"],
        is_verbose=given["verbose"],
        address=given["address"],
        tls=_tls(given),
        token=given["token"],
        token_file=given["token_file"],
        timeout=given["timeout"],
        profile=profiles.chosen(connection, os.environ),
        is_token_of_profile=given["token"] is not None and connection["token"] is None,
        is_profile_named=not profiles.unnamed(connection, os.environ),
    )


def _read(token_file: str) -> str:
    try:
        return Path(token_file).read_text("ascii", errors="replace").strip()
    except OSError as error:
        raise click.BadParameter(f"{token_file} cannot be read: {error.strerror}", param_hint="--token-file") from None


def _tls(given: dict[str, Any]) -> TLS | bool | None:
    """TLS by flags, what they leave out by the environment."""
    names = ("ca", "cert", "key", "server_name")
    flags = {name: given[f"tls_{name}"] for name in names}
    if given["tls"] is False:
        if wrong := [name for name in names if flags[name]]:
            raise click.UsageError(f"--plaintext and --tls-{wrong[0].replace('_', '-')} contradict each other")
        return False
    if not any(flags.values()):
        return given["tls"]  # type: ignore[no-any-return]
    from client_core.access import TLS

    kept = {name: os.environ.get(f"TASKQ_TLS_{name.upper()}", "").strip() or None for name in names}
    if flags["cert"] or flags["key"]:
        kept["cert"] = kept["key"] = None
    try:
        return TLS(**{name: flags[name] or kept[name] for name in names})
    except ValueError as fault:
        raise click.UsageError(str(fault)) from None
