"""What goes to stdout: tables for people, the contract's JSON for programs. All else goes to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from admin_client.words import TimeStyle, Words, clean

if TYPE_CHECKING:
    from admin_client.fields import Fields

Format = Literal["table", "json", "jsonl", "yaml", "name", "none"]
FORMATS: Final = ("table", "json", "jsonl", "yaml", "name", "none")
_DATA: Final = ("json", "jsonl", "yaml")
_WHOLE: Final = ("json", "yaml", "table")
_GAP: Final = 2
_NARROW: Final = 8  # what a long column is left with at least
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


@dataclass(frozen=True, slots=True)
class Lines:
    """Text that keeps its lines, left out when it is empty."""

    title: str
    text: str


Facts = list[tuple[str, str]]
Block = Facts | Rows | Lines | str
View = Callable[[Any, Words], list[Block]]
"""How one thing is shown: facts with their labels, of which empty ones are left out; tables; sentences."""


@dataclass
class Output:
    """How a command answers."""

    format: Format | None = None
    times: TimeStyle = "relative"
    color: Literal["auto", "always", "never"] = "auto"
    fields: Fields | None = None
    shown: Any = None
    """The descriptor of what will be shown, if that is not what the first call that changes something answers."""
    words: Words = field(init=False)
    _documents: int = field(init=False, default=0)
    _left_out: Sequence[str] = field(init=False, default=())

    def __post_init__(self) -> None:
        self.words = Words(self.times)

    @property
    def kind(self) -> Format:
        """Tables on a terminal and JSON lines elsewhere, unless something else was asked for."""
        return self.format or ("table" if sys.stdout.isatty() else "jsonl")

    @property
    def is_for_programs(self) -> bool:
        """JSON, or YAML, was asked for: errors are JSON, too, which is YAML as well."""
        return self.format in ("json", "jsonl", "yaml")

    @property
    def has_color(self) -> bool:
        if self.color == "auto":
            return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        return self.color == "always"

    def expect(self, kind: Any) -> None:
        """Something is about to change, of which an answer of this kind will be shown. UsageError when it has no such
        fields as are asked for: after the change it is too late."""
        if self.fields is not None and self.kind not in ("name", "none"):
            self.fields.look_for(self.shown or kind)

    def show(self, answer: Any, view: View, name: str = "") -> None:
        """One answer. `name` is what it is called by in other commands."""
        if self.kind in _DATA:
            self._data(answer if self.fields is None else self.fields.only(answer))
        elif self.kind == "name" and name:
            click.echo(name)
        elif self.kind == "table":
            words = Words(self.times).by(answer)
            self.write(view(answer, words) if self.fields is None else [self.fields.facts(answer, words)], words)

    async def show_list(self, pages: AsyncIterator[Any], table: Table, *, is_anew: bool = False) -> None:
        """A list. As JSON or YAML it is one answer with the items of all pages, and the token of what would come next.
        As a table, one that is shown anew takes the place of what was on the terminal. Only these are kept as a whole:
        there may be more than there is room for."""
        from admin_client import rpcs

        whole: Any = None
        async for page in pages:
            if self.fields is not None and self.kind in _DATA:
                self.fields.only_items(rpcs.items(page))
            if self.kind == "jsonl":
                for item in rpcs.items(page):
                    self._data(item)
            elif self.kind == "name":
                for item in rpcs.items(page):
                    click.echo(table.name(item))
            if whole is None or self.kind not in _WHOLE:
                whole = page
            else:
                token = page.next_page_token
                whole.MergeFrom(page)
                whole.next_page_token = token
        if self.kind in ("json", "yaml"):
            self._data(whole)
        elif self.kind == "table":
            if is_anew:
                click.clear()
            self.write_list(rpcs.items(whole), table, Words(self.times).by(whole))
        if whole.next_page_token and self.kind not in ("json", "yaml"):
            click.echo("there are more: --limit N, or --all", err=True)

    def show_plain(self, told: dict[str, Any], name: str) -> None:
        """What no server has answered, and the contract has no message for."""
        if self.kind in _DATA:
            self._data(told)
        elif self.kind == "name":
            click.echo(name)
        elif self.kind == "table":
            self.write([[(key.replace("_", " "), _plain(value)) for key, value in told.items()]])

    def show_plain_list(self, name: str, items: Sequence[dict[str, Any]], table: Table) -> None:
        """A list of such things, of that name as JSON."""
        if self.kind == "table":
            self.write_list(items, table, self.words)
        elif self.kind in _WHOLE:
            self._data({name: list(items)})
        else:
            for item in items:
                self.show_plain(item, table.name(item))

    def write_list(self, items: Sequence[Any], table: Table, words: Words) -> None:
        """A table, or the sentence that says that it is empty."""
        if items:
            self.write([Rows("", items, table if self.fields is None else self.fields.table(items, table))], words)
            if self._left_out:
                said = f"there is no room for {', '.join(self._left_out)}: make it wider, or choose by --fields"
                click.echo(self._dim(said), err=True)
        else:
            click.echo(table.nothing, err=True)

    def write(self, blocks: Iterable[Block], words: Words | None = None) -> None:
        """Writes blocks with an empty line between them."""
        click.echo(self.text(blocks, words), color=True)

    def text(self, blocks: Iterable[Block], words: Words | None = None) -> str:
        """The same as text, with colours where there are any."""
        return "\n\n".join(text for block in blocks if (text := self._text(block, words or self.words)))

    def _data(self, answer: Any) -> None:
        """What is for programs: each answer of a stream is a YAML document, or a JSON text, of its own."""
        if self.kind == "yaml":
            from admin_client import as_yaml

            click.echo(("---\n" if self._documents else "") + as_yaml.text(answer), nl=False)
            self._documents += 1
            return
        indent = 2 if self.kind == "json" else None
        if isinstance(answer, dict):
            click.echo(json.dumps(answer, indent=indent))
            return
        from google.protobuf import json_format

        click.echo(json_format.MessageToJson(answer, indent=indent))

    def _text(self, block: Block, words: Words) -> str:
        if isinstance(block, str):
            return block and clean(block)
        if isinstance(block, list):
            facts = [(label, clean(text)) for label, text in block if text]
            width = max((len(label) for label, _ in facts), default=0)
            return "\n".join(f"{self._dim(f'{label}:'.ljust(width + 2))}{text}" for label, text in facts)
        title = f"{self._dim(block.title)}\n" if block.title else ""
        if isinstance(block, Lines):
            return title + "\n".join(map(clean, block.text.splitlines())) if block.text else ""
        return title + self._render(block, words) if block.items else ""

    def _dim(self, text: str) -> str:
        return click.style(text, dim=True) if self.has_color else text

    def _render(self, rows: Rows, words: Words) -> str:
        from rich.cells import cell_len
        from rich.console import Console
        from rich.table import Table as Drawn
        from rich.text import Text

        console = Console(
            file=sys.stdout,
            width=None if sys.stdout.isatty() else _WIDE,
            force_terminal=self.has_color,
            no_color=not self.has_color,
            highlight=False,
            legacy_windows=False,
        )
        columns = rows.table.columns
        cells = [[clean(column.text(item, words)) for column in columns] for item in rows.items]
        used = [place for place in range(len(columns)) if any(line[place] for line in cells)]
        wanted = [max(cell_len(text) for text in (columns[at].title, *(line[at] for line in cells))) for at in used]
        widths = fitted(wanted, [columns[at].is_long for at in used], console.width)
        self._left_out = [columns[at].title for at in used[len(widths) :]]
        drawn = Drawn(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
        for at, width in zip(used, widths, strict=False):
            justify: Literal["left", "right"] = "right" if columns[at].is_number else "left"
            drawn.add_column(columns[at].title, justify=justify, width=width, no_wrap=True, overflow="ellipsis")
        shown = used[: len(widths)]
        for line in cells:
            drawn.add_row(*(Text(line[at], style=_style(columns[at], line[at])) for at in shown))
        with console.capture() as captured:
            console.print(drawn)
        return "\n".join(line.rstrip() for line in captured.get().splitlines())


def fitted(wanted: Sequence[int], is_long: Sequence[bool], room: int) -> list[int]:
    """The widths of columns, as far as there is room: long ones are made narrower first, then the last left out."""
    if sum(wanted) + _GAP * (len(wanted) - 1) <= room:
        return list(wanted)
    widths = [min(width, _NARROW) if long else width for width, long in zip(wanted, is_long, strict=True)]
    while len(widths) > 1 and sum(widths) + _GAP * (len(widths) - 1) > room:
        widths.pop()
    left = room - sum(widths) - _GAP * (len(widths) - 1)
    while left > 0 and (narrow := [at for at, width in enumerate(widths) if width < wanted[at]]):
        widths[min(narrow, key=lambda at: widths[at])] += 1
        left -= 1
    return widths


def _plain(value: str | bool) -> str:
    return value if isinstance(value, str) else "yes" if value else "no"


def _style(column: Column, text: str) -> str:
    return column.style(text) if column.style is not None else ""
