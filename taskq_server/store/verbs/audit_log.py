"""The audit, read: the last first, a page at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Select, Tuple, desc, select, tuple_

from taskq_server.store import schema
from taskq_server.store.transaction import Transaction

_table = schema.audit
_NARROWEST_FIRST = "target", "principal", "target_kind"
_LAST = 1 << 62, 0


class Audited(NamedTuple):
    """An entry as it is stored."""

    audit_seq: int
    change_time_us: int
    principal: str
    peer: str
    source: int
    action: str
    target_kind: str
    target: str
    reason: str
    before: str
    after: str
    request_id: str


class Wanted(NamedTuple):
    """A page of entries, the last first; empty and None mean any."""

    at_most: int
    before: tuple[int, int] | None = None
    """The time and the number of the entry with which the page before has ended."""
    principal: str = ""
    target_kind: str = ""
    target: str = ""
    start_us: int | None = None
    end_us: int | None = None


def find(tx: Transaction, asked: list[Wanted]) -> list[list[Audited]]:
    """Entries, the last first."""
    return [[Audited(*row) for row in tx.connection.execute(_query(one))] for one in asked]


def _query(wanted: Wanted) -> Select[Any]:
    columns = _table.c
    given = [name for name in _NARROWEST_FIRST if getattr(wanted, name)]
    conditions = [columns[name].concat("") == getattr(wanted, name) for name in given[1:]]
    # The order and the bounds are those of one index, of what is given first: no other can be taken for as good.
    first = [columns[name] for name in given[:1]]
    value = [getattr(wanted, name) for name in given[:1]]
    place = [*first, columns.change_time_us, columns.audit_seq]

    def at(time_us: int, seq: int) -> Tuple:
        return tuple_(*value, time_us, seq, types=[column.type for column in place])

    before = min(wanted.before or _LAST, _LAST if wanted.end_us is None else (wanted.end_us, 0))
    conditions += [tuple_(*place) < at(*before), tuple_(*place) >= at(wanted.start_us or 0, 0)]
    return select(_table).where(*conditions).order_by(*map(desc, place)).limit(wanted.at_most)
