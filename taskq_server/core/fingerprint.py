"""Which failures are alike: what they share is the name, the kind of error, the message but for its figures, and where
it arose.

Whatever a processor sends is cut before it is looked at, and no pattern goes over a text more than once: a message
that was made to be slow is not.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

MOST_MESSAGE = 2_048
"""Of a message, so much is looked at."""
MOST_PATTERN = 512
MOST_STACK = 8_192
"""Of a stack trace, so much at the end where the innermost frame stands."""
MOST_FRAME = 256

_PLACES = re.compile(
    r"""
      (?P<uuid>(?<![\w-])[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?![\w-]))
    | (?P<url>(?<!\w)[a-z][a-z0-9+.-]{1,15}://[^\s'"`<>]+)
    | (?P<email>(?<![\w.+-])[\w.+-]{1,64}@[\w.-]{1,255})
    | (?P<text>(?<!\w)'[^'\n]{0,256}'(?!\w)|"[^"\n]{0,256}"|`[^`\n]{0,256}`)
    | (?P<path>(?<![\w.])(?:\.{0,2}|~)(?:/[\w.@+~%:=-]+)+/?|(?<!\w)[a-z]:\\[^\s'"]+)
    | (?P<address>(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?(?![\w.]*\w)|(?<![\w:])[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){3,7})
    | (?P<hex>\b0x[0-9a-f]+|(?<![\w-])(?=[a-f]{0,64}\d)[0-9a-f]{8,64}(?![\w-]))
    | (?P<id>(?<![\w-])(?=[a-z_-]{0,64}\d)[\w-]{16,256}(?![\w-]))
    | (?P<n>\d+(?:[.,:]\d+)*)
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
"""What changes from one failure to the next; the first that fits stands for it."""

_PYTHON = re.compile(r'^ *File "([^"\n]+)", line (\d+), in (\S[^\n]*)$', re.MULTILINE)
_GO = re.compile(r"^([\w./*()\[\]-]+)\([^\n]*\)\n\t([^\n]+\.go):(\d+)", re.MULTILINE)
_GO_ITSELF = "runtime.", "runtime/", "panic", "testing."
_JAVA = re.compile(r"^[ \t]+at (?:[\w.@-]+/{1,2})*([\w.$<>]+)\(([^():\n]*)(?::(\d+))?\)$", re.MULTILINE)
_JS = re.compile(r"^[ \t]+at (?:(?:async )?(?:new )?([^\s(][^(\n]*) \()?([^()\s]+):(\d+):\d+\)?$", re.MULTILINE)
_CAUSE = "Caused by: "


class Frame(NamedTuple):
    """Where something arose. The line is for people: it moves with every change of the file."""

    file: str
    function: str
    line: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where} in {self.function}" if self.function else where


class Alike(NamedTuple):
    """What failures have in common that are counted together."""

    fingerprint: str
    """16 hex digits."""
    pattern: str
    top_frame: str


def alike(name: str, error_type: str, message: str, stack: str) -> Alike:
    """The group of a failure."""
    pattern, frame = pattern_of(message), innermost(stack)
    where = ("", "") if frame is None else frame[:2]
    # In their length, since any of them may hold whatever would divide them.
    parts = [f"{len(part)}:{part}" for part in (name, error_type, pattern, *where)]
    digest = hashlib.blake2b("".join(parts).encode("utf-8", "replace"), digest_size=8)
    return Alike(digest.hexdigest(), pattern, "" if frame is None else str(frame)[:MOST_FRAME])


def pattern_of(message: str) -> str:
    """A message without what changes from one failure to the next."""
    words = " ".join(message[:MOST_MESSAGE].replace("\0", " ").split())
    return _PLACES.sub(lambda found: f"<{found.lastgroup}>", words)[:MOST_PATTERN]


def innermost(stack: str) -> Frame | None:
    """The frame in which it arose, of a trace of Python, Go, Java or JavaScript; None when there is none."""
    stack = stack.replace("\0", " ")
    if calls := list(_PYTHON.finditer(stack[-MOST_STACK:])):
        python = calls[-1]  # the innermost stands last
        return Frame(_short(python[1]), python[3].strip(), python[2])
    cause = stack.rfind(_CAUSE)  # what was wrapped is told after what has wrapped it
    head = "\n".join(line[:MOST_FRAME] for line in stack[max(cause, 0) :][:MOST_STACK].split("\n"))
    for go in _GO.finditer(head):
        if not go[1].startswith(_GO_ITSELF):
            return Frame(_short(go[2]), go[1], go[3])
    if (java := _JAVA.search(head)) is not None:
        return Frame(java[2], java[1], java[3] or "")
    if (js := _JS.search(head)) is not None:
        return Frame(_short(js[2].removeprefix("file://")), (js[1] or "").strip(), js[3])
    return None


def _short(path: str) -> str:
    """The end of a path: where a program lies differs from one machine to the next."""
    return "/".join(path.replace("\\", "/").rsplit("/", 2)[-2:])
