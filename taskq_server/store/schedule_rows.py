"""What stands in the row of a schedule <-> what the domain calls it."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Any

from sqlalchemy import Row

from taskq_server.core.matching import route_of
from taskq_server.core.recurring import Definition, Schedule
from taskq_server.core.schedule import CatchUp, DstPolicy, Overlap, Recurrence, Rule
from taskq_server.core.task import NewTask
from taskq_server.store import rows

MOST_COMPILED = 10_000
_EMPTY = Rule()
_FIELDS = {field.name for field in fields(Rule)}


def definition_columns(definition: Definition) -> dict[str, Any]:
    """All columns that say what somebody has said."""
    return {
        "name": definition.name,
        "content_hash": definition.content_hash,
        "rule": rows.to_json(asdict(definition.rule)),
        "overlap": int(definition.overlap),
        "max_buffered": definition.max_buffered,
        "catch_up": int(definition.catch_up),
        "catch_up_window_us": definition.catch_up_window_us,
        "max_firings": definition.max_firings,
        "origin": definition.origin,
        "task": _task_column(definition.task),
        "payload": None if definition.task.payload is None else definition.task.payload.data,
    }


def schedule_of(row: Row[Any]) -> Schedule:
    """A Schedule from all columns of its row."""
    definition = Definition(
        row.name,
        rule_of(row.rule),
        task_of(row.task, row.payload, row.content_hash),
        Overlap(row.overlap),
        row.max_buffered,
        CatchUp(row.catch_up),
        row.catch_up_window_us,
        row.max_firings,
        row.origin,
        row.content_hash,
    )
    return Schedule(
        row.schedule_seq,
        row.schedule_id,
        definition,
        row.version,
        row.create_time_us,
        row.update_time_us,
        row.pause_time_us,
        row.pause_note or "",
        row.next_us,
        row.next_due_us,
        row.last_us,
        row.last_task_id,
        row.tzdata,
        row.used,
        row.fired,
        row.skipped,
        row.missed,
        row.overlapped,
    )


def rule_of(column: str) -> Rule:
    said = json.loads(column)
    if not isinstance(said, dict) or said.keys() - _FIELDS:
        raise ValueError("not a rule, or one of a newer server")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    values["dst"] = DstPolicy(values["dst"])
    if wrong := [name for name, value in values.items() if not _is_of_its_kind(name, value)]:
        raise ValueError(f"not a rule: {', '.join(wrong)}")
    return Rule(**values)


def _is_of_its_kind(name: str, value: Any) -> bool:
    if name in ("start_us", "end_us"):
        return value is None or type(value) is int
    kind = type(getattr(_EMPTY, name))
    of = int if name == "dates_us" else str
    return type(value) is kind and (kind is not tuple or all(type(one) is of for one in value))


@lru_cache(maxsize=MOST_COMPILED)
def recurrence_of(rule: str, schedule_id: bytes) -> Recurrence:
    """The compiled rule of a schedule. Those that fire often stay compiled."""
    return Recurrence(rule_of(rule), schedule_id)


def _task_column(task: NewTask) -> str:
    payload = task.payload
    said: dict[str, Any] = {
        "name": task.route.name,
        "requires": [str(requirement) for requirement in task.route.requires],
        "content_type": payload.content_type if payload else None,
        "payload_metadata": rows.json_or_null(payload.metadata) if payload else None,
        "priority": task.priority,
        "retry_policy": rows.retry_policy_column(task.retry_policy),
        "run_timeout_us": task.run_timeout_us,
        "headers": task.headers,
        "tags": list(task.tags),
        "retention_us": task.retention_us,
    }
    return rows.to_json({name: value for name, value in said.items() if value not in (None, [], {})})


def task_of(column: str, payload: bytes | None, content_hash: bytes) -> NewTask:
    """The template of a schedule's tasks: it has no id, and is never due."""
    said = json.loads(column)
    return NewTask(
        b"",
        route_of(said["name"], said.get("requires", ())),
        content_hash,
        rows.payload_of(payload, said.get("content_type"), said.get("payload_metadata")),
        priority=said.get("priority", 0),
        retry_policy=rows.retry_policy_of(said.get("retry_policy")),
        run_timeout_us=said.get("run_timeout_us"),
        headers=said.get("headers"),
        tags=tuple(said.get("tags", ())),
        retention_us=said.get("retention_us"),
    )
