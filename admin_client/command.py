"""The `taskq` command: noun, then verb. A noun's module is imported when it is used."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

import click

from admin_client import errors, start

USAGE_ERROR = 2

NOUNS: Final[Mapping[str, Mapping[str, str]]] = {
    "Run": {
        "dev": "Server, pages and a processor in one command, on a SQLite file in this folder.",
        "server": "Run the server until SIGTERM; `taskq server --help` lists its settings.",
        "processor": "Run a processor; look at those that are registered, drain and disconnect them.",
        "scheduler": "Run a main scheduler.",
    },
    "Look and steer": {
        "task": "Enqueue, find, explain, cancel, rerun, move and delete tasks, one or many.",
        "schedule": "What recurs: create, look ahead, pause, trigger, backfill.",
        "capability": "What tasks ask for and what there is for them; pause and resume.",
        "failure": "Failures, alike ones together.",
        "op": "What is being done to many tasks.",
        "audit": "Who has changed what, and why.",
        "top": "Look on as it works.",
        "server-info": "What runs, on what database, by which settings.",
    },
    "Set up": {
        "db": "Upgrade a database, check it, or copy it to another; `taskq db --help` says how.",
        "token": "Make, list and revoke the API tokens of those who call; `taskq token --help` says how.",
        "config": "Servers by a name, each with what lets you in.",
        "certs": "Certificates: make them for development, check them.",
        "health": "Ask whether a server can serve, for probes.",
        "conformance": "Does a processor, in any language, keep what processors promise?",
        "proto": "The contract itself, for other languages and other tools.",
        "completion": "Completion for your shell.",
    },
}
_ELSEWHERE: Final = {"health": "admin_client.health", "conformance": "admin_client.conformance.command"}
"""What does not stand in `commands/`."""


class Taskq(click.Group):
    """The nouns, imported when they are used; and how the command ends."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in NOUNS.values() for name in section if name in self.commands or _find(name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (known := super().get_command(ctx, cmd_name)) is not None:
            return known
        if not any(cmd_name in section for section in NOUNS.values()) or not _find(cmd_name):
            return None
        module = importlib.import_module(_module(cmd_name))
        found: click.Command = getattr(module, cmd_name.replace("-", "_"))
        self.add_command(found, cmd_name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"there is no {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        there = set(self.list_commands(ctx))
        for title, section in NOUNS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, text in section.items() if name in there])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(arguments, prog_name or "taskq", complete_var, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as nothing:
            click.echo(nothing.ctx.get_help() if nothing.ctx else "", err=True)
            sys.exit(errors.USAGE)
        except click.Abort:
            click.echo("", err=True)
            sys.exit(errors.INTERRUPTED)
        except click.ClickException as error:
            sys.exit(errors.report(error, "", _wants_json(arguments)))
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=Taskq, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(version("taskq"), prog_name="taskq")
def main() -> None:
    """Durable scheduled tasks, pushed on time to the processors that can run them.

    Data goes to stdout, all else to stderr. Exit codes: 0 done, 2 wrong use, 3 a task that was waited for has failed,
    4 it was cancelled or not finished in time, 64 + n the gRPC status n (69 not found, 78 no server), 130 Ctrl-C.
    """


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
    if not start.has_server():
        click.echo("taskq: the server is not installed; pip install 'taskq[server]'", err=True)
        sys.exit(USAGE_ERROR)
    os.execv(sys.executable, [sys.executable, "-m", module, *flags])


def _module(name: str) -> str:
    return _ELSEWHERE.get(name, f"admin_client.commands.{name.replace('-', '_')}")


def _find(name: str) -> bool:
    try:
        return importlib.util.find_spec(_module(name)) is not None
    except ModuleNotFoundError:  # a package that is not there
        return False


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether JSON was asked for, of a command line that cannot be read."""
    pairs = set(itertools.pairwise(arguments))
    kinds = ("json", "jsonl", "yaml")
    formats = {(flag, kind) for flag in ("-o", "--output") for kind in kinds}
    words = {"--json", *(f"{flag}{kind}" for flag in ("-o", "--output=") for kind in kinds)}
    return bool(words & set(arguments) or pairs & formats)


if __name__ == "__main__":
    main()
