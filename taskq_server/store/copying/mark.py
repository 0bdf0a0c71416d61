"""The mark on a database that is copied into: how far the copy is. No server starts on half of one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from taskq_server.core.errors import StoreRefused

_READ = text("SELECT value FROM meta WHERE key = :key")
_WRITE = text(
    "INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
_REMOVE = text("DELETE FROM meta WHERE key = 'copying'")


@dataclass(frozen=True, slots=True)
class Mark:
    source: dict[str, Any]
    """What tells the source from others, and from itself at another time."""
    table: str | None = None
    """The table that is being copied; None before the first."""
    after: list[Any] = field(default_factory=list)
    """The key of its last row that was copied."""


def read(connection: Connection) -> Mark | None:
    value = connection.execute(_READ, {"key": "copying"}).scalar()
    return None if value is None else Mark(**json.loads(value))


def write(connection: Connection, mark: Mark) -> None:
    connection.execute(_WRITE, {"key": "copying", "value": json.dumps(asdict(mark))})


def whole(connection: Connection, mark: Mark) -> None:
    """Removes the mark, and leaves a note of what the whole was copied from."""
    connection.execute(_REMOVE)
    connection.execute(_WRITE, {"key": "copied", "value": json.dumps(mark.source)})


def whole_copy_of(connection: Connection) -> dict[str, Any] | None:
    """The source of which this was a whole copy, whatever has become of it since."""
    value = connection.execute(_READ, {"key": "copied"}).scalar()
    return None if value is None else dict(json.loads(value))


def refuse_half_copied(connection: Connection) -> None:
    """Raises StoreRefused when a copy into this database was begun and not ended."""
    if read(connection) is not None:
        raise StoreRefused(
            "the database holds half a copy of another", "run the same `taskq db copy` again: it goes on"
        )
