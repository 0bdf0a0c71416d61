"""The audit, read: the last first, a page at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Select, select

from taskq_server.store import schema
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.listing import Page

_table = schema.audit


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
    """A page of entries, those before a number, the last first; empty and None mean any."""

    page: Page
    principal: str = ""
    target_kind: str = ""
    target: str = ""
    start_us: int | None = None
    end_us: int | None = None


def find(tx: Transaction, asked: list[Wanted]) -> list[list[Audited]]:
    """Entries, the last first."""
    return [[Audited(*row) for row in tx.connection.execute(_query(one))] for one in asked]


def _query(wanted: Wanted) -> Select[Any]:
    columns, conditions = _table.c, []
    if wanted.page.after:
        conditions.append(columns.audit_seq < wanted.page.after)
    for name in ("principal", "target_kind", "target"):
        if value := getattr(wanted, name):
            conditions.append(columns[name] == value)
    if wanted.start_us is not None:
        conditions.append(columns.change_time_us >= wanted.start_us)
    if wanted.end_us is not None:
        conditions.append(columns.change_time_us < wanted.end_us)
    return select(_table).where(*conditions).order_by(columns.audit_seq.desc()).limit(wanted.page.at_most)
