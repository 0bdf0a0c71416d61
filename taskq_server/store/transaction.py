"""What a verb of the store works with while its transaction is open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy import Connection

from taskq_server.core.event import MOST_IDS, Topic
from taskq_server.core.fingerprint import Alike
from taskq_server.core.origin import Origin

if TYPE_CHECKING:
    from taskq_server.store.sql import Sql

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Again(Exception):
    """Another transaction came between; this one must be run again from its start."""


THE_ONLY_SERVER = 1
"""The number of the server on SQLite, where there is one at a time."""


class Failed(NamedTuple):
    """An attempt that has failed, or a task without one: what is counted of it."""

    name: str
    error_type: str
    message: str
    alike: Alike
    task_id: bytes
    processor_name: str
    session_seq: int


@dataclass(slots=True)
class Transaction:
    """An open transaction: where to write, and what time it is in there."""

    connection: Connection
    now_us: int
    sql: Sql
    """What the database says in its own way."""
    server_seq: int = THE_ONLY_SERVER
    """Whose transaction it is."""
    manual_us: int | None = None
    """The time, where a test's clock stands in for the database's."""
    xid: str | None = None
    """What PostgreSQL calls it, if it may change something."""
    numbers: Sequence[int] = ()
    """Of as many new tasks as it was begun for, where they were learned at its begin."""
    changed: list[bytes] = field(default_factory=list)
    """Ids of the tasks whose state or due time changed; whoever watches them is told after the commit."""
    scheduled: dict[tuple[int, int], int] = field(default_factory=dict)
    """The earliest due time of the new tasks of a (route, priority): what memory does not know yet."""
    wakes: bool = False
    """A task was scheduled, or a name resumed: whoever asked for it may have gone away, and the dispatcher must look
    all the same."""
    signals: bool = False
    """Another server has been left something to hear."""
    origins: Sequence[tuple[int, Origin | None]] = ()
    """Who has asked the verb that runs, each for how many of its items; for the audit."""
    items: int = 0
    """How many it is for, whoever has asked for them."""
    added: Counter[str] = field(default_factory=Counter)
    """How many tasks were stored, by name: for whoever counts, like the next."""
    ended: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """How many ends of tasks there were: by name, outcome of the attempt (empty: none had begun), and the state that is
    left if it is a last one (else empty)."""
    leased: Counter[str] = field(default_factory=Counter)
    """How many attempts were leased, by name."""
    failures: list[Failed] = field(default_factory=list)
    """What has failed, for good or not."""
    hints: dict[Topic, tuple[int, list[str]]] = field(default_factory=dict)
    """What else has changed, for whoever watches: how many things, and some of their ids."""
    after_commit: list[Callable[[], object]] = field(default_factory=list)
    """What memory learns from it; nothing is believed before it is safe."""
    after_rollback: list[Callable[[], None]] = field(default_factory=list)

    def hint(self, topic: Topic, ids: Iterable[str], changes: int | None = None) -> None:
        """These have changed; `changes` where they are more than have ids."""
        ids = list(ids)
        before, some = self.hints.get(topic, (0, []))
        if more := len(ids) if changes is None else changes:
            self.hints[topic] = before + more, (some + ids)[:MOST_IDS]

    def origin_of(self, index: int) -> Origin | None:
        """Who has asked the verb that runs for one of its items; None when it is the server itself."""
        for many, origin in self.origins:
            if index < many:
                return origin
            index -= many
        return None


Verb = Callable[[Transaction, list[Item]], list[Answer]]
"""Does one thing to many items and gives one answer an item, in order."""


def name_of(verb: Verb[Any, Any]) -> str:
    """What a verb is called, such as `lease`."""
    return str(getattr(verb, "func", verb).__name__.strip("_"))
