"""What everybody shares who waits for the same transaction: their items go in together, their answers come out apart.

An fsync costs about a millisecond whether it makes one task safe or a thousand, so whatever waits while a transaction
is open goes into the next one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from taskq_server.core.origin import Origin, current
from taskq_server.store.transaction import Transaction, Verb

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MOST_ITEMS_PER_COMMIT = 1_000
MOST_BYTES_PER_COMMIT = 16 << 20
"""However many wait: a transaction must end long before its callers, or the database, lose patience."""


@dataclass(slots=True)
class Waiting(Generic[Item, Answer]):
    """Items of one caller, and where their answers go."""

    verb: Verb[Item, Answer]
    items: list[Item]
    future: asyncio.Future[list[Answer]]
    size_bytes: int = 0
    """About what its items hold, of those that may hold much."""
    origin: Origin | None = field(default_factory=current)
    """Who has asked for them."""
    has_begun: bool = False
    """A transaction has taken it up."""


Group = list[Waiting[Any, Any]]


class Room:
    """How much of those who wait still goes into a transaction; the first always does."""

    def __init__(self) -> None:
        self._items = MOST_ITEMS_PER_COMMIT
        self._bytes = MOST_BYTES_PER_COMMIT

    def take(self, waiting: Waiting[Any, Any]) -> None:
        self._items -= len(waiting.items)
        self._bytes -= waiting.size_bytes

    @property
    def left(self) -> bool:
        return self._items > 0 and self._bytes > 0


def apply(transaction: Transaction, group: Group) -> list[list[Any]]:
    """Runs each verb once, over the items of all who asked for it; answers a list for each caller."""
    transaction.items = sum(len(waiting.items) for waiting in group)
    by_verb: dict[Verb[Any, Any], Group] = {}
    for waiting in group:
        by_verb.setdefault(waiting.verb, []).append(waiting)
    answers: dict[int, list[Any]] = {}
    for verb, together in by_verb.items():
        transaction.origins = [(len(waiting.items), waiting.origin) for waiting in together]
        flat = verb(transaction, [item for waiting in together for item in waiting.items])
        start = 0
        for waiting in together:
            answers[id(waiting)] = flat[start : start + len(waiting.items)]
            start += len(waiting.items)
    return [answers[id(waiting)] for waiting in group]


def answer(group: Group, answers: list[list[Any]]) -> None:
    for waiting, its_answers in zip(group, answers, strict=True):
        if not waiting.future.done():
            waiting.future.set_result(its_answers)


def fail(group: Group, error: BaseException) -> None:
    for waiting in group:
        if not waiting.future.done():
            waiting.future.set_exception(error)
