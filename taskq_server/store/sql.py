"""What the two databases say differently. Everything else that is said to them stands in the verbs, once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, Select

from taskq_server.core.matching import Candidate, Seats
from taskq_server.store.transaction import Transaction
from taskq_server.store.waiting import Place


class Asked(NamedTuple):
    """A route to look for due tasks of one priority."""

    route_id: int
    known_us: int
    """Nothing is known to wait there that is due earlier."""
    at_most: int


@dataclass(slots=True)
class Due:
    """The first tasks of a (route, priority): those that are due, and when the one after them is, at the earliest."""

    place: Place
    candidates: list[Candidate]
    after_us: int | None


class Succeeded(NamedTuple):
    """An attempt that has succeeded, of a task whose number is known."""

    result: bytes | None
    result_type: str | None
    result_metadata: str | None
    seq: int
    task_id: bytes
    attempt: int
    session_seq: int


class SignalKind(IntEnum):
    """What one server tells another about a session that may be pushed to by the other."""

    SETTLED = 1
    """An attempt has ended, and its processor knows."""
    REVOKED = 2
    """An attempt has ended by the server's will; its processor is to stop."""
    CANCELLED = 3
    """The same, since its task was cancelled."""
    ENDED = 4
    """The session has ended."""
    MOVED = 5
    """The session's processor has opened its stream at another server."""
    DRAINING = 6
    """The session's processor takes nothing more."""
    DRAINED = 7
    """An administrator drains the session."""
    DISCONNECTED = 8
    """An administrator has ended the session. ENDED follows, for servers that do not know this one."""


class NewSignal(NamedTuple):
    """A signal to whichever server may push to the session."""

    session_seq: int
    kind: SignalKind
    task_id: bytes | None = None
    attempt: int | None = None


class Sql(ABC):
    """One database's own way."""

    @abstractmethod
    def among(self, column: Column[Any], values: Collection[Any]) -> ColumnElement[bool]:
        """Whether a column has one of many values."""

    @abstractmethod
    def value_of(self, column: Column[int], values: Mapping[int, int]) -> ColumnElement[int]:
        """The value that is given for a number in a column, which must be among them."""

    @abstractmethod
    def numbers(self, tx: Transaction, those: Select[Any]) -> set[int]:
        """The numbers of tasks that a statement finds, a few hundred; its column is `seq`."""

    @abstractmethod
    def task_numbers(self, tx: Transaction, many: int) -> Sequence[int]:
        """New numbers for tasks, in the order of enqueueing."""

    @abstractmethod
    def lock_keys(
        self, tx: Transaction, keys: Sequence[tuple[str, str]], may_change: Sequence[tuple[str, str]]
    ) -> None:
        """Keeps others from asking for these keys until the transaction has ended, and the tasks that hold those that
        `may_change` as they are."""

    @abstractmethod
    def succeed(self, tx: Transaction, succeeded: list[Succeeded], retention_us: int) -> int:
        """Finishes those of these tasks that are still held by that attempt, of a session to which this server pushes,
        and have no key; answers how many. `retention_us` is for those that ask for none of their own."""

    @abstractmethod
    def read_to_end(self, tx: Transaction, columns: str, task_ids: list[bytes]) -> Sequence[Sequence[Any]]:
        """Tasks that are about to change, locked in the order of their numbers."""

    @abstractmethod
    def own(self, tx: Transaction, session_seqs: Collection[int]) -> set[int]:
        """Those of these sessions to which this server pushes. None of them moves before the transaction has ended:
        whoever takes it over then sees what it holds, and whoever had it before is told."""

    @abstractmethod
    def keep_from_leasing(self, tx: Transaction) -> None:
        """Waits until the leases that go on have ended, and lets no other begin before the transaction has ended."""

    @abstractmethod
    def in_turn(self, tx: Transaction) -> None:
        """Waits until those who have said the same have ended: what is numbered from now on, is in the order of the
        commits."""

    @abstractmethod
    def due(self, tx: Transaction, priority: int, asked: list[Asked], until_us: int) -> list[Due]:
        """The most urgent tasks of each route that are due by then, which nobody else may take before this transaction
        has ended."""

    @abstractmethod
    def take(self, tx: Transaction, placed: list[tuple[Candidate, Seats]]) -> Sequence[Sequence[Any]]:
        """Leases tasks to sessions that this server may push to, from now or from when they are due;
        answers rows of ASSIGNMENT_COLUMNS in no order."""

    @abstractmethod
    def tell(self, tx: Transaction, signals: list[NewSignal]) -> None:
        """Leaves signals for the other servers that they are for."""

    @abstractmethod
    def first_due(self, connection: Connection) -> Iterable[tuple[int, int, int]]:
        """Where tasks wait, by route and priority, and when the first of each falls due."""
