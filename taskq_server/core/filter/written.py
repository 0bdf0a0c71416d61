"""A value as somebody wrote it, and the answer to whoever wrote what is no filter."""

from __future__ import annotations

import re
from typing import NamedTuple

_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"(\*?)')
_BARE = re.compile(r'[^\s",]+')


class FilterRefused(ValueError):
    """The text is no filter: what must stand where, and what stands there."""

    def __init__(self, at: int, expected: str, found: str) -> None:
        self.position = at + 1
        self.expected = expected
        self.found = found
        shown = repr(found if len(found) <= 64 else found[:61] + "...") if found else "nothing"
        super().__init__(f"must have {expected} at character {self.position}; has {shown}")


class Raw(NamedTuple):
    """A value as it was written."""

    at: int
    text: str
    starred: bool
    quoted: bool

    @property
    def shown(self) -> str:
        return f"{self.text}*" if self.starred else self.text

    def refuse(self, expected: str) -> FilterRefused:
        return FilterRefused(self.at, expected, self.shown)


def raw_at(text: str, at: int, expected: str) -> tuple[Raw, int]:
    """The value that begins there, and where it ends."""
    if text.startswith('"', at):
        quoted = _QUOTED.match(text, at)
        if quoted is None:
            raise FilterRefused(at, 'a closing ", and before it only \\" and \\\\ after a \\', text[at:])
        plain = re.sub(r'\\(["\\])', r"\1", quoted[1])
        return Raw(at, plain, bool(quoted[2]), quoted=True), quoted.end()
    bare = _BARE.match(text, at)
    if bare is None:
        raise FilterRefused(at, expected, text[at:])
    starred = bare[0].endswith("*")
    return Raw(at, bare[0][:-1] if starred else bare[0], starred, quoted=False), bare.end()
