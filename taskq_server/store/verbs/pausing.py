"""Pauses: names of which nothing is dispatched, on any server, until they are resumed.

A lease reads them in its own transaction, and a pause waits for the leases that may have read them before: once it is
committed, nothing of that name is leased.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection, text

from taskq_server.core.event import Topic
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.auditing import Audit, Facts, time_text

# A pause that is repeated keeps its time.
_PAUSE = text(
    "INSERT INTO pause (name, reason, pause_time_us) VALUES (:name, :reason, :now) "
    "ON CONFLICT (name) DO UPDATE SET reason = excluded.reason RETURNING name, reason, pause_time_us"
)
_PAUSED = text("SELECT reason, pause_time_us FROM pause WHERE name = :name")
_RESUME = text("DELETE FROM pause WHERE name = :name RETURNING name, reason, pause_time_us")
_NAMES = text("SELECT name FROM pause")


class NewPause(NamedTuple):
    """A name to be paused, and why."""

    name: str
    reason: str


class Pause(NamedTuple):
    """A name that is paused: why, by the last word on it, and since when."""

    name: str
    reason: str
    pause_time_us: int


def pause(memory: Memory, tx: Transaction, pauses: list[NewPause]) -> list[Pause]:
    """Pauses names, known or not; of one that is paused already only the reason changes."""
    tx.sql.keep_from_leasing(tx)
    audit, paused = Audit(tx), []
    for i, new in enumerate(pauses):
        before = tx.connection.execute(_PAUSED, {"name": new.name}).one_or_none()
        told = {"name": new.name, "reason": new.reason, "now": tx.now_us}
        paused.append(Pause(*tx.connection.execute(_PAUSE, told).one()))
        audit.note(i, "capability", new.name, None if before is None else _facts(*before), _facts(*paused[-1][1:]))
    audit.write()
    tx.after_commit.append(partial(memory.pauses.change, paused=[new.name for new in pauses]))
    tx.signals = True  # what there is to hear stands in the table itself
    tx.hint(Topic.CAPABILITIES, [new.name for new in pauses])
    return paused


def resume(memory: Memory, tx: Transaction, names: list[str]) -> list[Pause | None]:
    """Ends pauses; answers what they were, None for a name that was not paused."""
    tx.sql.keep_from_leasing(tx)
    found = [tx.connection.execute(_RESUME, {"name": name}).one_or_none() for name in names]
    audit = Audit(tx)
    for i, row in enumerate(found):
        if row is not None:
            audit.note(i, "capability", row.name, _facts(row.reason, row.pause_time_us), None)
    audit.write()
    tx.after_commit.append(partial(memory.pauses.change, resumed=names))
    tx.wakes = tx.signals = True
    tx.hint(Topic.CAPABILITIES, names)
    return [None if row is None else Pause(*row) for row in found]


def _facts(reason: str, pause_time_us: int) -> Facts:
    return {"paused_since": time_text(pause_time_us), "reason": reason}


def paused_names(connection: Connection) -> frozenset[str]:
    return frozenset(connection.execute(_NAMES).scalars())
