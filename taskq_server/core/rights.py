"""What a caller may do, as an administrator writes it: `enqueue:kitchen.*,read`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

_PATTERN = re.compile(r"[A-Za-z0-9._/-]{1,128}\*?|\*", re.ASCII)
_PRINCIPAL = re.compile(r"[\x21-\x7e]{1,256}")
RULE = (
    "must be enqueue:NAMES, process:NAMES, read, payload:read or admin, where NAMES is a task name, "
    "the beginning of names and *, or *"
)


class Need(Enum):
    """What a call needs of whoever makes it, whatever it is about."""

    NOTHING = auto()
    """Open to all, also to those who show no credential."""
    A_CREDENTIAL = auto()
    """One that is known, whatever its rights."""
    TASKS = auto()
    """`read`, `payload:read`, or `enqueue` of some names: to look at tasks."""
    READ = auto()
    """`read` or `payload:read`."""
    ENQUEUE = auto()
    """`enqueue` of some names; of which, the call decides."""
    PROCESS = auto()
    """`process` of some names; of which, the call decides."""
    ADMIN = auto()


MET_BY = {
    Need.TASKS: "read, or enqueue of the task's name",
    Need.READ: "read",
    Need.ENQUEUE: "enqueue of the task's name",
    Need.PROCESS: "process of the task's name",
    Need.ADMIN: "admin",
}
"""For people: the right that meets a need."""


@dataclass(frozen=True, slots=True)
class Names:
    """Task names: some whole, some by how they begin."""

    whole: frozenset[str] = frozenset()
    beginnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Names:
        """A pattern is a name, or how names begin and `*`; `*` alone is every name."""
        patterns = sorted(set(patterns))
        beginnings = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))
        return cls(frozenset(pattern for pattern in patterns if not pattern.endswith("*")), beginnings)

    def __contains__(self, name: str) -> bool:
        return name in self.whole or name.startswith(self.beginnings)

    def __bool__(self) -> bool:
        return bool(self.whole or self.beginnings)


EVERY_NAME = Names(beginnings=("",))


@dataclass(frozen=True, slots=True)
class Rights:
    """What a caller may do. `parse` makes them."""

    texts: tuple[str, ...]
    """As they were written, each once."""
    enqueue: Names
    """May be enqueued; and tasks of these names watched, cancelled, and seen with what they carry and came to."""
    process: Names
    """May be run."""
    reads: bool
    """Sees tasks of every name, processors and capabilities."""
    reads_payloads: bool
    """Also what tasks carry, and what they came to."""
    meets: frozenset[Need]

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Rights:
        """ValueError says which of them breaks the rule."""
        texts = tuple(dict.fromkeys(texts))
        patterns: dict[str, list[str]] = {"enqueue": [], "process": []}
        for text in texts:
            kind, _, names = text.partition(":")
            if kind in patterns and _PATTERN.fullmatch(names):
                patterns[kind].append(names)
            elif text not in ("read", "payload:read", "admin"):
                raise ValueError(f"{RULE}; is {text[:200]!r}")
        if not texts:
            raise ValueError(f"{RULE}; there is none")
        admin = "admin" in texts
        enqueue, process = (EVERY_NAME if admin else Names.of(patterns[kind]) for kind in ("enqueue", "process"))
        reads_payloads = admin or "payload:read" in texts
        reads = reads_payloads or "read" in texts
        return cls(texts, enqueue, process, reads, reads_payloads, _met(enqueue, process, reads=reads, admin=admin))

    def see(self, name: str) -> bool:
        """Whether tasks of that name may be looked at."""
        return self.reads or name in self.enqueue

    def see_payloads(self, name: str) -> bool:
        """Whether what tasks of that name carry, and came to, may be looked at."""
        return self.reads_payloads or name in self.enqueue


def _met(enqueue: Names, process: Names, *, reads: bool, admin: bool) -> frozenset[Need]:
    met = {
        Need.TASKS: reads or bool(enqueue),
        Need.READ: reads,
        Need.ENQUEUE: bool(enqueue),
        Need.PROCESS: bool(process),
        Need.ADMIN: admin,
    }
    return frozenset({Need.NOTHING, Need.A_CREDENTIAL, *(need for need, is_met in met.items() if is_met)})


EVERY_RIGHT = Rights.parse(["admin"])


def principal(text: str) -> str:
    """The name of somebody who calls, if it can be one; else ValueError."""
    if not _PRINCIPAL.fullmatch(text):
        raise ValueError(f"must be 1 to 256 characters of printable ASCII without spaces; is {text[:64]!r}")
    return text


def of_certificates(text: str) -> dict[str, Rights]:
    """Rights by subject alternative name: `NAME=RIGHT,RIGHT`, one a line or separated by semicolons. ValueError names
    the entry that breaks the rule."""
    found: dict[str, Rights] = {}
    for entry in filter(None, map(str.strip, re.split(r"[;\n]", text))):
        if entry.startswith("#"):
            continue
        name, equals, rights = entry.rpartition("=")  # a URI may hold one, rights do not
        if not equals:
            raise ValueError(f"must be NAME=RIGHT,RIGHT for each certificate; is {entry[:200]!r}")
        name = principal(name.strip())
        if name in found:
            raise ValueError(f"must name each certificate once; {name!r} is repeated")
        found[name] = Rights.parse(right.strip() for right in rights.split(","))
    return found
