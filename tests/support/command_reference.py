"""The reference in docs/command.md, made from the command itself: `python -m tests.support.command_reference`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from admin_client.command import NOUNS, main
from admin_client.verb import CONNECTION, OUTPUT, Local, Verb
from tests.support.process import ROOT

PAGE = ROOT / "docs" / "command.md"
BEGIN, END = (
    "<!-- reference: made by tests/support/command_reference.py, and a test compares them -->\n",
    "<!-- /reference -->",
)
OTHERS = ("server", "db", "token", "health", "conformance")
"""Programs of the server's, and what is told elsewhere."""


def commands() -> list[tuple[tuple[str, ...], click.Command]]:
    """Every verb by the words that call it."""
    return list(_walk())


def _walk() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(main)
    for section in NOUNS.values():
        for noun in section:
            command = main.get_command(context, noun) if noun not in OTHERS else None
            if isinstance(command, click.Group):
                for name, one in sorted(command.commands.items()):
                    yield (noun, name), one
            elif command is not None:
                yield (noun,), command


def reference() -> str:
    """The verbs with their own flags; then those that all of them have."""
    parts = []
    noun = ""
    for words, command in commands():
        if words[0] != noun:
            noun = words[0]
            parts.append(f"### taskq {noun}\n")
        arguments = [_argument(param) for param in command.params if isinstance(param, click.Argument)]
        parts.append(f"**`{' '.join(['taskq', *words, *arguments])}`**\n")
        parts.append(_prose(command) + "\n")
        parts.append(_table([param for param in _own(command) if isinstance(param, click.Option)]))
    parts.append("### Flags of every verb that calls a server\n")
    parts.append(_table(list(CONNECTION)))
    parts.append(_table(list(OUTPUT)))
    return "\n".join(part for part in parts if part)


def on_page() -> str:
    """What stands on the page."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0]


def write() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + reference() + END + rest.partition(END)[2])


def _own(command: click.Command) -> list[click.Parameter]:
    if isinstance(command, Verb | Local):
        return command.own
    common = {option.name for option in CONNECTION}
    return [param for param in command.params if param.name not in common]


def _argument(param: click.Argument) -> str:
    text = param.make_metavar(click.Context(main))
    return text.replace("[[", "[").replace("]]", "]")


def _prose(command: click.Command) -> str:
    text = inspect.cleandoc(command.help or "").replace("\b\n", "```\n")
    if "```" in text:
        text += "\n```"
    return text


def _table(options: list[click.Option]) -> str:
    if not options:
        return ""
    rows = ["| flag | |", "|---|---|"]
    for option in options:
        names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
        kind = ""
        if not option.is_flag:
            kind = " " + option.make_metavar(click.Context(main)).replace("|", "\\|")
        rows.append(f"| {names}{kind} | {option.help} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    write()
