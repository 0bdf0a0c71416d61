"""The path templates of google.api.http: `/v1/tasks/{task_id}:cancel`, `/v1/capabilities/{name=**}:pause`.

A colon ends a path's last segment and begins its verb; one that belongs to a value is sent as `%3A`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from taskq_server.rpc.checks import Faults

_VARIABLE = re.compile(r"\{([a-z0-9_.]+)(?:=([^{}]+))?\}")
_WILDCARDS = {"*": "[^/:]+", "**": "[^:]+"}


@dataclass(frozen=True)
class Template:
    """A path with variables, which are paths of fields."""

    text: str
    variables: tuple[str, ...]
    _pattern: re.Pattern[str]

    @classmethod
    def parse(cls, text: str) -> Template:
        pattern = "".join(_parts(text))
        return cls(text, tuple(match[1] for match in _VARIABLE.finditer(text)), re.compile(pattern))

    def match(self, path: str) -> tuple[str, ...] | None:
        """The values of the variables in a path, as they came; None if it is another."""
        found = self._pattern.fullmatch(path)
        return None if found is None else found.groups()

    def plain(self, names: dict[str, str]) -> str:
        """As OpenAPI writes it, with other names for the variables."""
        return _VARIABLE.sub(lambda match: f"{{{names[match[1]]}}}", self.text)


def _parts(text: str) -> Iterator[str]:
    end = 0
    for match in _VARIABLE.finditer(text):
        yield re.escape(text[end : match.start()])
        yield f"({_segments(match[2] or '*')})"
        end = match.end()
    yield re.escape(text[end:])


def _segments(text: str) -> str:
    return "/".join(_WILDCARDS.get(segment) or re.escape(segment) for segment in text.split("/"))


def decoded(faults: Faults, field: str, text: str) -> str:
    """What stands in a path, without its percent signs."""
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        faults.add(field, "must be UTF-8")
        return ""
