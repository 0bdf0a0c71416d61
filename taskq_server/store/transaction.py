"""What a verb of the store works with while its transaction is open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import Connection

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(slots=True)
class Transaction:
    """An open transaction: where to write, and what time it is in there."""

    connection: Connection
    now_us: int
    changed: list[bytes] = field(default_factory=list)
    """Ids of the tasks whose state or due time changed; whoever watches them is told after the commit."""
    wakes: bool = False
    """A task was scheduled: whoever asked for it may have gone away, and the dispatcher must look all the same."""
    undo: list[Callable[[], None]] = field(default_factory=list)
    """What memory must take back if the transaction does not commit."""


Verb = Callable[[Transaction, list[Item]], list[Answer]]
"""Does one thing to many items and gives one answer an item, in order."""
