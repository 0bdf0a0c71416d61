"""The fenced blocks of every page, whoever reads them: the manual, README and the READMEs of examples."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from tests.support.process import ROOT

_MADE = {"node_modules", "_build", "target", "generated", "docs/reference/contract", "dist"}
"""Folders that some command makes."""
_COMMENT = re.compile(r"(?:^|\s+)#\s.*$")


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Every Markdown file of the repository, but those that are made."""
    found: list[str] = []
    for folder, folders, files in os.walk(ROOT):
        here = Path(folder).relative_to(ROOT)
        folders[:] = [one for one in folders if not one.startswith(".") and not {one, (here / one).as_posix()} & _MADE]
        found += [(here / one).as_posix() for one in files if one.endswith(".md")]
    return sorted(found)


def blocks_of(page: str) -> list[Block]:
    tokens = MarkdownIt().parse((ROOT / page).read_text())
    fences = [token for token in tokens if token.type in ("fence", "code_block")]
    return [Block(page, (token.map or [0])[0] + 1, token.info.strip(), token.content) for token in fences]


def spans_of(page: str) -> list[str]:
    """What stands between backticks within the sentences and tables of a page."""
    tokens = MarkdownIt().enable("table").parse((ROOT / page).read_text())
    return [one.content for token in tokens for one in token.children or [] if one.type == "code_inline"]


@dataclass(frozen=True)
class Command:
    """One command of a shell, which may have several lines, and what the page says that it prints."""

    text: str
    shown: str = ""


def commands_of(block: Block) -> list[Command]:
    """Of a block with `$` before what is typed, with the output below each; of one without, all of it is typed."""
    lines = block.text.splitlines()
    if not block.text.startswith("$ "):
        return [Command(text) for text in _typed(lines)]
    found: list[tuple[str, list[str]]] = []
    for line in lines:
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        elif found[-1][0].endswith("\\"):
            found[-1] = (f"{found[-1][0]}\n{line}", [])
        else:
            found[-1][1].append(line)
    return [Command(_without_comment(text), "\n".join(shown)) for text, shown in found]


def _typed(lines: list[str]) -> list[str]:
    """The commands: a line each, unless it ends in a backslash, or within quotation marks."""
    found: list[str] = []
    whole = True
    for line in map(_without_comment, lines):
        if whole:
            found.append(line)
        else:
            found[-1] += f"\n{line}"
        whole = not found[-1].endswith("\\") and found[-1].count("'") % 2 == 0
    return [text for text in found if text]


def _without_comment(line: str) -> str:
    return _COMMENT.sub("", line)
