"""What a scheduler may ask for, checked before anything is sent and written as the wire's NewTask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack
from uuid import UUID

from client_core import payload as payloads
from client_core.errors import InvalidArgument
from client_core.times import Moment, Span
from scheduler_client.fields import WRITERS, KeyHold, OnConflict, checked_name
from scheduler_client.ids import new_task_id
from scheduler_client.retry import Retry
from taskq.v1.scheduler_service_pb2 import NewTask


class TaskOptions(TypedDict, total=False):
    """What may be said once for all tasks of a kind. None is as good as absent: the server's defaults hold.

    priority       0 to 9; larger runs sooner
    requires       labels that the processor must have: "key = value", "key in (a, b)", "key exists", "!key"
    run_timeout    ends an attempt that runs longer
    expire_after   not started this long after it is due: FAILED with error type EXPIRED
    retry          how often and when it is tried again
    headers        carried to the processor
    tags           words to find it by
    retention      how long it is kept once finished
    """

    priority: int | None
    requires: Sequence[str] | None
    run_timeout: Span | None
    expire_after: Span | None
    retry: Retry | None
    headers: Mapping[str, str] | None
    tags: Sequence[str] | None
    retention: Span | None


class EnqueueOptions(TaskOptions, total=False):
    """What may be said of one task.

    at            when it may run: an aware datetime or epoch seconds. At most one of `at` and `delay`; neither: now
    delay         how long from now, counted on the server's clock
    task_id       a UUID: the same id again is the same task. One is made when absent
    key           at most one task holds a key
    key_scope     the space of the key; absent: the task's name
    on_conflict   when another task holds the key: "return_existing" (default), "reject", "replace", "debounce"
    key_ttl       how long the key is held
    key_hold      "unfinished": while the task is; "ttl": for `key_ttl`; "both": the longer of the two
    expire_time   a moment by which it must have started; wins over `expire_after`
    """

    at: Moment | None
    delay: Span | None
    task_id: str | UUID | None
    key: str | None
    key_scope: str | None
    on_conflict: OnConflict | None
    key_ttl: Span | None
    key_hold: KeyHold | None
    expire_time: Moment | None


def new_task(name: str, payload: object = None, **options: Unpack[EnqueueOptions]) -> NewTask:
    """One task to be enqueued, without a class for its kind. Enqueueing the same NewTask twice stores it once.

    Raises InvalidArgument, which is a ValueError, with every fault in `.fields`; TypeError for an unknown option.
    """
    faults: list[tuple[str, str]] = []
    message = NewTask(task_id=new_task_id())
    try:
        message.name = checked_name(name)
    except ValueError as fault:
        faults.append(("name", str(fault)))
    try:
        body = payloads.encode(payload)
        if body is not None:
            message.payload.CopyFrom(body)
    except (ValueError, TypeError) as fault:
        faults.append(("payload", str(fault)))
    if options:
        _apply(message, options, faults)
    if faults:
        raise InvalidArgument(f"task {name!r} cannot be enqueued", reason="INVALID_FIELDS", fields=faults)
    return message


def _apply(message: NewTask, options: Mapping[str, Any], faults: list[tuple[str, str]]) -> None:
    unknown = sorted(options.keys() - WRITERS.keys())
    if unknown:
        raise TypeError(f"{', '.join(unknown)}: no such option; must be among {', '.join(WRITERS)}")
    if options.get("at") is not None and options.get("delay") is not None:
        faults.append(("delay", "is given beside `at`; must be one of the two"))
    for name, write in WRITERS.items():
        value = options.get(name)
        if value is not None:
            try:
                write(message, value)
            except (ValueError, TypeError) as fault:
                faults.append((name, str(fault)))
    if message.dedup.ByteSize() and not message.dedup.key:
        faults.append(("key", "is absent; must be given with key_scope, on_conflict, key_ttl or key_hold"))
