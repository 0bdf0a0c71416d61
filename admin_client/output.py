"""What goes to stdout: tables for people, the contract's JSON for programs. All else goes to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import click

from admin_client.words import TimeStyle, Words, clean

Format = Literal["table", "json", "jsonl", "name", "none"]
FORMATS: Final = ("table", "json", "jsonl", "name", "none")
_WIDE: Final = 100_000  # what is not a terminal has no width: nothing is cut off


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    text    what stands in it, of an item
    style   its colour, by what stands in it
    """

    title: str
    text: Callable[[Any, Words], str]
    is_number: bool = False
    style: Callable[[str], str] | None = None
    is_long: bool = False
    """What is cut off first on a narrow terminal."""


@dataclass(frozen=True, slots=True)
class Table:
    """How things of one kind are listed.

    name     what each is called by in other commands
    nothing  what is said when there are none
    """

    columns: Sequence[Column]
    name: Callable[[Any], str]
    nothing: str


@dataclass(frozen=True, slots=True)
class Rows:
    """A table as a part of something, left out when it is empty."""

    title: str
    items: Sequence[Any]
    table: Table


Facts = list[tuple[str, str]]
Block = Facts | Rows | str
View = Callable[[Any, Words], list[Block]]
"""How one thing is shown: facts with their labels, of which empty ones are left out; tables; sentences."""


@dataclass
class Output:
    """How a command answers."""

    format: Format | None = None
    times: TimeStyle = "relative"
    color: Literal["auto", "always", "never"] = "auto"
    words: Words = field(init=False)

    def __post_init__(self) -> None:
        self.words = Words(self.times)

    @property
    def kind(self) -> Format:
        """Tables on a terminal and JSON lines elsewhere, unless something else was asked for."""
        return self.format or ("table" if sys.stdout.isatty() else "jsonl")

    @property
    def is_for_programs(self) -> bool:
        """JSON was asked for: errors are JSON, too."""
        return self.format in ("json", "jsonl")

    @property
    def has_color(self) -> bool:
        if self.color == "auto":
            return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        return self.color == "always"

    def show(self, answer: Any, view: View, name: str = "") -> None:
        """One answer. `name` is what it is called by in other commands."""
        if self.kind == "json" or self.kind == "jsonl":
            self._json(answer)
        elif self.kind == "name" and name:
            click.echo(name)
        elif self.kind == "table":
            words = Words(self.times).by(answer)
            self.write(view(answer, words), words)

    async def show_list(self, pages: AsyncIterator[Any], table: Table, *, is_anew: bool = False) -> None:
        """A list. As JSON it is one answer with the items of all pages, and the token of what would come next. As a
        table, one that is shown anew takes the place of what was on the terminal. Only these two are kept as a whole:
        there may be more than there is room for."""
        from admin_client import rpcs

        whole: Any = None
        async for page in pages:
            if self.kind == "jsonl":
                for item in rpcs.items(page):
                    self._json(item)
            elif self.kind == "name":
                for item in rpcs.items(page):
                    click.echo(table.name(item))
            if whole is None or self.kind not in ("json", "table"):
                whole = page
            else:
                token = page.next_page_token
                whole.MergeFrom(page)
                whole.next_page_token = token
        if self.kind == "json":
            self._json(whole)
        elif self.kind == "table":
            if is_anew:
                click.clear()
            self.write_list(rpcs.items(whole), table, Words(self.times).by(whole))
        if whole.next_page_token and self.kind != "json":
            click.echo("there are more: --limit N, or --all", err=True)

    def write_list(self, items: Sequence[Any], table: Table, words: Words) -> None:
        """A table, or the sentence that says that it is empty."""
        if items:
            self.write([Rows("", items, table)], words)
        else:
            click.echo(table.nothing, err=True)

    def write(self, blocks: Iterable[Block], words: Words | None = None) -> None:
        """Writes blocks with an empty line between them."""
        click.echo(self.text(blocks, words), color=True)

    def text(self, blocks: Iterable[Block], words: Words | None = None) -> str:
        """The same as text, with colours where there are any."""
        return "\n\n".join(text for block in blocks if (text := self._text(block, words or self.words)))

    def _json(self, message: Any) -> None:
        from google.protobuf import json_format

        click.echo(json_format.MessageToJson(message, indent=2 if self.kind == "json" else None))

    def _text(self, block: Block, words: Words) -> str:
        if isinstance(block, str):
            return block and clean(block)
        if isinstance(block, list):
            facts = [(label, clean(text)) for label, text in block if text]
            width = max((len(label) for label, _ in facts), default=0)
            return "\n".join(f"{self._dim(f'{label}:'.ljust(width + 2))}{text}" for label, text in facts)
        if not block.items:
            return ""
        title = f"{self._dim(block.title)}\n" if block.title else ""
        return title + self._render(block, words)

    def _dim(self, text: str) -> str:
        return click.style(text, dim=True) if self.has_color else text

    def _render(self, rows: Rows, words: Words) -> str:
        from rich.console import Console
        from rich.table import Table as Drawn
        from rich.text import Text

        drawn = Drawn(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        cells = [[clean(column.text(item, words)) for column in rows.table.columns] for item in rows.items]
        used = [place for place in range(len(rows.table.columns)) if any(line[place] for line in cells)]
        for place in used:
            column = rows.table.columns[place]
            drawn.add_column(
                column.title,
                justify="right" if column.is_number else "left",
                no_wrap=True,
                overflow="ellipsis",
                min_width=None if column.is_long else max(len(line[place]) for line in cells),
            )
        for line in cells:
            drawn.add_row(*(Text(line[place], style=_style(rows.table.columns[place], line[place])) for place in used))
        console = Console(
            file=sys.stdout,
            width=None if sys.stdout.isatty() else _WIDE,
            force_terminal=self.has_color,
            no_color=not self.has_color,
            highlight=False,
            legacy_windows=False,
        )
        with console.capture() as captured:
            console.print(drawn)
        return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _style(column: Column, text: str) -> str:
    return column.style(text) if column.style is not None else ""
