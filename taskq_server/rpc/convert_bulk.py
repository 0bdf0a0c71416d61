"""Wire <-> domain: bulk operations."""

from __future__ import annotations

import hashlib

from taskq.v1 import bulk_operation_pb2 as bulk_pb2
from taskq.v1 import task_pb2
from taskq_server import task_id
from taskq_server.core import filter as task_filter
from taskq_server.core.bulk_operation import Action, ActionKind, NewOperation, Operation
from taskq_server.rpc.checks import DAY_US, Faults
from taskq_server.rpc.convert import duration, payload_of, timestamp

MOST_REASON = 1_024
MOST_IDS = 1_000
MOST_TASKS = (1 << 63) - 1


def new_operation(faults: Faults, request: bulk_pb2.StartBulkOperationRequest, most_payload_bytes: int) -> NewOperation:
    """What is asked for; every fault is named."""
    operation_id = faults.uuid("operation_id", request.operation_id) if request.operation_id else task_id.new()
    asked = bulk_pb2.StartBulkOperationRequest(action=request.action)
    asked.reason = faults.text("reason", request.reason, MOST_REASON)
    faults.number("max_tasks", request.max_tasks, 0, MOST_TASKS)
    asked.max_tasks = request.max_tasks
    if bool(request.filter) == bool(request.task_ids):
        faults.add("filter", "must be set, or task_ids, and not both")
    asked.filter = _filter(faults, request.filter)
    if len(request.task_ids) > MOST_IDS:
        faults.add("task_ids", f"must be at most {MOST_IDS:,}; are {len(request.task_ids):,}")
    ids = (faults.uuid(f"task_ids[{i}]", text) for i, text in enumerate(request.task_ids[:MOST_IDS]))
    task_ids = tuple(dict.fromkeys(ids))
    asked.task_ids.extend(map(task_id.to_text, task_ids))
    action = _action(faults, request.action, most_payload_bytes)
    content = asked.SerializeToString(deterministic=True)
    content_hash = hashlib.blake2b(content, digest_size=16).digest()
    told = asked.filter, task_ids, request.reason, request.max_tasks
    return NewOperation(operation_id, content_hash, action, *told)


def _filter(faults: Faults, text: str) -> str:
    """In its canonical form. One of spaces would be all tasks, which nobody asks for by accident."""
    try:
        found = task_filter.parse(text)
    except task_filter.FilterRefused as refused:
        faults.add("filter", str(refused))
        return ""
    if text and not found.terms:
        faults.add("filter", "must have a term; `priority>=0` is every task")
    return str(found)


def _action(faults: Faults, message: bulk_pb2.BulkAction, most_payload_bytes: int) -> Action:
    name = message.WhichOneof("action")
    if name is None:
        faults.add("action", "must be one of cancel, rerun, reschedule, reprioritise, delete")
        return Action(ActionKind.CANCEL)
    kind = ActionKind[name.upper()]
    if kind is ActionKind.RERUN and message.rerun.HasField("payload"):
        return Action(kind, payload_of(faults, "action.rerun.payload", message.rerun.payload, most_payload_bytes))
    if kind is ActionKind.RESCHEDULE:
        return _reschedule(faults, message.reschedule)
    if kind is ActionKind.REPRIORITISE:
        faults.number("action.reprioritise.priority", message.reprioritise.priority, 0, 9)
        return Action(kind, priority=message.reprioritise.priority)
    return Action(kind)


def _reschedule(faults: Faults, message: bulk_pb2.RescheduleAction) -> Action:
    at, kind = "action.reschedule", ActionKind.RESCHEDULE
    if message.WhichOneof("when") == "due_time":
        return Action(kind, due_time_us=faults.time_us(f"{at}.due_time", message.due_time))
    if message.WhichOneof("when") == "delay":
        delay_us = faults.span_us(f"{at}.delay", message.delay, 0, 3650 * DAY_US, "0 to 3,650 days")
        return Action(kind, delay_us=delay_us)
    faults.add(at, "must have due_time or delay")
    return Action(kind)


def operation(one: Operation) -> bulk_pb2.BulkOperation:
    message = bulk_pb2.BulkOperation(
        operation_id=task_id.to_text(one.operation_id),
        state=int(one.state),  # type: ignore[arg-type]
        action=action(one.action),
        filter=one.filter,
        task_ids=map(task_id.to_text, one.task_ids),
        reason=one.reason,
        principal=one.principal,
        start_time=timestamp(one.start_time_us),
        matched_tasks=one.matched,
        done_tasks=one.done,
        skipped_tasks=one.skipped,
        skipped_samples=one.skipped_samples,
        max_tasks=one.max_tasks,
        matched_is_partial=one.matched_is_partial,
    )
    if one.end_time_us is not None:
        message.end_time.CopyFrom(timestamp(one.end_time_us))
    return message


def action(one: Action) -> bulk_pb2.BulkAction:
    """What is done; of a payload no more than what kind it is of, since who may look at operations need not be one who
    may look at payloads."""
    message = bulk_pb2.BulkAction()
    getattr(message, one.kind.name.lower()).SetInParent()
    if one.payload is not None:
        message.rerun.payload.CopyFrom(task_pb2.Payload(content_type=one.payload.content_type))
    if one.due_time_us is not None:
        message.reschedule.due_time.CopyFrom(timestamp(one.due_time_us))
    if one.delay_us is not None:
        message.reschedule.delay.CopyFrom(duration(one.delay_us))
    if one.priority is not None:
        message.reprioritise.priority = one.priority
    return message
