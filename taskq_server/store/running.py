"""How verbs are run and told of: what every database does alike, and what each must have a way of its own for."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from taskq_server.clock import Clock
from taskq_server.core.errors import TaskqError
from taskq_server.core.matching import Route
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import THE_ONLY_SERVER, Transaction, Verb, name_of
from taskq_server.store.verbs.end_batch import Rules

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Running(ABC):
    """Runs verbs in transactions; each database has its own way."""

    def __init__(self, rules: Rules, clock: Clock) -> None:
        self._clock = clock
        self.on_change: Callable[[list[bytes]], None] = lambda task_ids: None
        """Told, after each commit, which tasks have changed."""
        self.on_scheduled: Callable[[], None] = lambda: None
        """Told, after a commit, that tasks were scheduled, or may be leased again."""
        self.on_commit: Callable[[Transaction], None] = lambda transaction: None
        """Told of each commit of what may have changed something: for whoever counts, like the next."""
        self.on_answer: Callable[[str, float | None], None] = lambda verb, seconds: None
        """Told how long a verb's answer took; None when there was none."""
        self.memory = Memory()
        self.server_seq = THE_ONLY_SERVER
        """Which of the servers on this database this one is."""

    def _after_commit(self, transaction: Transaction) -> None:
        self.on_commit(transaction)
        if transaction.changed:
            self.on_change(transaction.changed)
        if transaction.wakes:
            self.on_scheduled()

    async def _timed(self, verb: Verb[Any, Any], answers: Awaitable[list[Answer]]) -> list[Answer]:
        """Says how long it took to be answered, waiting included."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            found = await answers
        except TaskqError:
            self.on_answer(name_of(verb), None)
            raise
        self.on_answer(name_of(verb), loop.time() - began)
        return found

    @abstractmethod
    async def write(self, verb: Verb[Item, Answer], items: list[Item], size_bytes: int = 0) -> list[Answer]:
        """Runs `verb` over `items` in a transaction, perhaps shared, and returns after its commit.

        `size_bytes` is about what they hold, of those that may hold much.
        """

    @abstractmethod
    async def read(self, verb: Verb[Item, Answer], items: list[Item]) -> list[Answer]:
        """Runs `verb`, which changes nothing, over `items` on a connection that sees all that was committed before."""

    @abstractmethod
    async def close(self) -> None:
        """Commits what waits and lets go of the database."""

    @property
    def routes(self) -> dict[int, Route]:
        """Every route by its number. A snapshot: a new route makes a new one."""
        return self.memory.routes

    def next_due_us(self, route_ids: Iterable[int]) -> int | None:
        """When the first task of any of these routes falls due that is not paused, as far as is known without asking
        the database."""
        return self.memory.next_due_us(route_ids)


def unless_refused(answer: Answer | TaskqError) -> Answer:
    """The answer of a verb that may refuse, which is then raised."""
    if isinstance(answer, TaskqError):
        raise answer
    return answer
