"""What stands in the row of a bulk operation <-> what the domain calls it."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Row

from taskq_server.core.bulk_operation import Action, ActionKind, NewOperation, Operation, OperationState
from taskq_server.store import rows

ID_BYTES = 16


def operation_columns(new: NewOperation) -> dict[str, Any]:
    """The columns that say what is asked for."""
    action, payload = new.action, new.action.payload
    return {
        "operation_id": new.operation_id,
        "content_hash": new.content_hash,
        "state": int(OperationState.RUNNING),
        "kind": int(action.kind),
        "due_time_us": action.due_time_us,
        "delay_us": action.delay_us,
        "priority": action.priority,
        "payload": None if payload is None else payload.data,
        "content_type": None if payload is None else payload.content_type,
        "payload_metadata": None if payload is None else rows.json_or_null(payload.metadata),
        "filter": new.filter,
        "task_ids": b"".join(new.task_ids) or None,
        "reason": new.reason,
        "max_tasks": new.max_tasks,
        "matched": new.matched,
        "matched_is_partial": int(new.matched_is_partial),
        "place": new.place,
    }


def operation_of(row: Row[Any]) -> Operation:
    """An Operation from all columns of its row; its payload is not read, or empty once it has
    ended."""
    return Operation(
        row.operation_seq,
        row.operation_id,
        row.content_hash,
        OperationState(row.state),
        action_of(row),
        row.filter,
        task_ids_of(row.task_ids),
        row.reason,
        row.principal,
        row.max_tasks,
        row.start_time_us,
        row.end_time_us,
        row.matched,
        bool(row.matched_is_partial),
        row.done,
        row.skipped,
        tuple(map(str, json.loads(row.skipped_samples))),
    )


def action_of(row: Row[Any]) -> Action:
    payload = None
    if row.content_type is not None:
        payload = rows.payload_of(row.payload or b"", row.content_type, row.payload_metadata)
    return Action(ActionKind(row.kind), payload, row.due_time_us, row.delay_us, row.priority)


def task_ids_of(column: bytes | None) -> tuple[bytes, ...]:
    column = column or b""
    return tuple(column[start : start + ID_BYTES] for start in range(0, len(column), ID_BYTES))
