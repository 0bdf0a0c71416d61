"""Looking at tasks, without changing them."""

from __future__ import annotations

from sqlalchemy import Connection, select

from taskq_server.core.task import Task
from taskq_server.store import rows, schema
from taskq_server.store.memory import Memory

_COLUMNS = [schema.task.c[name] for name in rows.TASK_COLUMNS]


def get(memory: Memory, task_ids: list[bytes], connection: Connection) -> dict[bytes, Task]:
    """The tasks that exist, by id."""
    found = connection.execute(select(*_COLUMNS).where(schema.task.c.task_id.in_(task_ids)))
    return {row.task_id: rows.task_of(row, memory.routes[row.route_id]) for row in found}
