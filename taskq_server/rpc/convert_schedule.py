"""Wire <-> domain: what is said of schedules, and how they stand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol

from google.protobuf.duration_pb2 import Duration

from taskq.v1 import schedule_service_pb2 as schedule_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server import task_id
from taskq_server.core.recurring import HEADERS, MOST_BUFFERED, Definition, Key, Schedule
from taskq_server.core.schedule import (
    DEFAULT_CATCH_UP,
    DEFAULT_CATCH_UP_WINDOW_US,
    CatchUp,
    DstPolicy,
    Overlap,
    Preview,
    Recurrence,
    Rule,
    tzdata_version,
)
from taskq_server.core.schedule import faults as faults_of
from taskq_server.core.task import NewTask
from taskq_server.rpc.checks import DAY_US, Faults
from taskq_server.rpc.convert import (
    duration,
    member,
    new_task,
    optional_span,
    optional_time,
    payload_message,
    retry_policy_message,
    timestamp,
)

MOST_HEADERS = 64 - len(HEADERS)
MOST_DATES = 1_000
MOST_TEXT = 1_024
MOST_ETAG = 64
_NO_TASK = ("task_id", "due_time", "delay", "expire_time", "dedup")
"""What each firing has of its own, and what the overlap policy says."""


class _Keyed(Protocol):
    schedule_id: str
    name: str

    def WhichOneof(self, oneof_group: Literal["key"]) -> str | None: ...


def key(faults: Faults, request: _Keyed) -> Key:
    """Which schedule a request means."""
    given = request.WhichOneof("key")
    if given == "name":
        return Key(None, faults.name("name", request.name))
    return Key(faults.uuid("schedule_id", request.schedule_id))


# ── wire -> domain ───────────────────────────────────────────────────────────────────────────────────────────────────


def definition(faults: Faults, message: schedule_pb2.Schedule, most_payload_bytes: int) -> Definition:
    """What somebody says of a schedule; every fault as `schedule.field`."""
    at = "schedule."
    content_hash = _hash(message)
    rule = rule_of(faults, f"{at}recurrence", message)
    task = _template(faults, f"{at}task", message, most_payload_bytes)
    overlap = member(faults, f"{at}overlap", message.overlap, schedule_pb2.Overlap.values())
    faults.number(f"{at}max_buffered", message.max_buffered, 0, 1_000)
    catch_up = member(faults, f"{at}catch_up", message.catch_up, schedule_pb2.CatchUp.values())
    window_us = DEFAULT_CATCH_UP_WINDOW_US
    if message.HasField("catch_up_window"):
        field, rule_text = f"{at}catch_up_window", "10 s to 365 days"
        window_us = faults.span_us(field, message.catch_up_window, 10_000_000, 365 * DAY_US, rule_text)
    faults.printable(f"{at}etag", message.etag, MOST_ETAG)
    faults.number(f"{at}max_firings", message.max_firings, 0, 1_000_000_000)
    return Definition(
        faults.name(f"{at}name", message.name),
        rule,
        task,
        Overlap(overlap or Overlap.SKIP),
        message.max_buffered or MOST_BUFFERED,
        CatchUp(catch_up or DEFAULT_CATCH_UP),
        window_us,
        message.max_firings or None,
        faults.text(f"{at}origin", message.origin, MOST_TEXT),
        content_hash,
    )


def _hash(message: schedule_pb2.Schedule) -> bytes:
    """Of what somebody says, whatever is sent along of what is only shown."""
    said = schedule_pb2.Schedule(
        name=message.name,
        overlap=message.overlap,
        max_buffered=message.max_buffered,
        catch_up=message.catch_up,
        max_firings=message.max_firings,
        origin=message.origin,
    )
    for field in ("recurrence", "task", "catch_up_window"):
        if message.HasField(field):
            getattr(said, field).CopyFrom(getattr(message, field))
    return hashlib.blake2b(said.SerializeToString(deterministic=True), digest_size=16).digest()


class _Recurring(Protocol):
    @property
    def recurrence(self) -> schedule_pb2.Recurrence: ...


def rule_of(faults: Faults, at: str, holder: _Recurring) -> Rule:
    """When something recurs; every fault is named below `at`."""
    message, found = holder.recurrence, Faults()
    rule = _rule(found, message)
    formed = {fault.field.partition("[")[0] for fault in found.found}
    # What could not be read counts as something to fire at, so that nothing is said of that.
    for fault in faults_of(replace(rule, dates_us=(*rule.dates_us[: MOST_DATES - 1], 0)) if formed else rule):
        name, bracket, rest = fault.field.partition("[")
        if name not in formed:
            found.add(("dst_policy" if name == "dst" else name) + bracket + rest, fault.rule)
    for fault in found.found:
        what_is, _, what_must_be = fault.rule.rpartition("; must ")
        faults.add(f"{at}.{fault.field}", f"must {what_must_be}; it {what_is}" if what_is else fault.rule)
    return rule


def _rule(faults: Faults, message: schedule_pb2.Recurrence) -> Rule:
    dst = member(faults, "dst_policy", message.dst_policy, schedule_pb2.DstPolicy.values())
    if len(message.dates) > MOST_DATES:
        faults.add("dates", f"must have at most {MOST_DATES:,} entries; has {len(message.dates):,}")
    dates = [faults.time_us(f"dates[{i}]", date) for i, date in enumerate(message.dates[:MOST_DATES])]
    start_us = faults.time_us("start_time", message.start_time) if message.HasField("start_time") else None
    end_us = faults.time_us("end_time", message.end_time) if message.HasField("end_time") else None
    return Rule(
        tuple(message.crons),
        _span(faults, "interval", message.interval, 1_000_000, "1 s to 3,660 days")
        if message.HasField("interval")
        else 0,
        _span(faults, "phase", message.phase, 0, "0 or more and less than the interval"),
        tuple(dates),
        message.time_zone or "UTC",
        tuple(message.excluded_crons),
        tuple(message.excluded_dates),
        start_us,
        end_us,
        _span(faults, "jitter", message.jitter, 0, "0 s to a day"),
        DstPolicy(dst or DstPolicy.RUN_ONCE),
    )


def _span(faults: Faults, field: str, span: Duration, least_us: int, rule: str) -> int:
    return faults.span_us(field, span, least_us, 3_660 * DAY_US, rule)


def _template(faults: Faults, at: str, message: schedule_pb2.Schedule, most_payload_bytes: int) -> NewTask:
    """What each firing makes, checked as an Enqueue would."""
    found, given = Faults(), message.task
    for field in _NO_TASK:
        if given.task_id if field == "task_id" else given.HasField(field):  # type: ignore[arg-type]
            found.add(field, "must not be set: each firing has its own" if field != "dedup" else "must not be set")
    if len(given.headers) > MOST_HEADERS:
        found.add("headers", f"must have at most {MOST_HEADERS} entries; has {len(given.headers)}")
    if any(name.lower().startswith("taskq-") for name in given.headers):
        found.add("headers", "must not begin with taskq-: those are the server's")
    task = scheduler_pb2.NewTask()
    task.CopyFrom(given)
    for field in _NO_TASK:
        task.ClearField(field)  # type: ignore[arg-type]
    template = new_task(found, task, most_payload_bytes)
    for fault in found.found:
        faults.add(f"{at}.{fault.field}", fault.rule)
    return template


# ── domain -> wire ───────────────────────────────────────────────────────────────────────────────────────────────────


def stated(said: Definition, schedule_id: bytes, *, with_payload: bool = True) -> schedule_pb2.Schedule:
    """What somebody says of a schedule, with every default filled in."""
    return schedule_pb2.Schedule(
        schedule_id=task_id.to_text(schedule_id),
        name=said.name,
        recurrence=_recurrence(said.rule),
        task=_task(said.task, with_payload),
        overlap=int(said.overlap),  # type: ignore[arg-type]
        max_buffered=said.max_buffered,
        catch_up=int(said.catch_up),  # type: ignore[arg-type]
        catch_up_window=duration(said.catch_up_window_us),
        max_firings=said.max_firings or 0,
        origin=said.origin,
    )


def schedule(one: Schedule, *, with_payload: bool = True) -> schedule_pb2.Schedule:
    said = one.definition
    message = stated(said, one.schedule_id, with_payload=with_payload)
    stands = schedule_pb2.Schedule(
        etag=one.etag,
        next_fire_time=optional_time(one.next_us),
        next_due_time=optional_time(one.next_due_us),
        counters=schedule_pb2.ScheduleCounters(
            fired=one.fired, skipped=one.skipped, missed=one.missed, overlapped=one.overlapped
        ),
        buffered_firings=one.buffered,
        unfinished_tasks=one.unfinished,
        explanation=_explained(one),
        time_zone_version=one.tzdata,
        create_time=timestamp(one.create_time_us),
        update_time=timestamp(one.update_time_us),
    )
    message.MergeFrom(stands)
    if one.pause_time_us is not None:
        message.pause.note = one.pause_note
        message.pause.pause_time.CopyFrom(timestamp(one.pause_time_us))
    if one.last_us is not None and one.last_task_id is not None:
        message.last_firing.CopyFrom(firing(one.last_us, one.last_task_id))
    if said.max_firings is not None:
        message.remaining_firings = max(0, said.max_firings - one.used)
    return message


def _explained(one: Schedule) -> str:
    """Nothing of a rule that can no longer be read, such as one with a time zone that is gone."""
    try:
        return Recurrence(one.definition.rule, one.schedule_id).explain()
    except ValueError:
        return ""


def firing(nominal_us: int, raw_id: bytes) -> schedule_pb2.Firing:
    return schedule_pb2.Firing(nominal_time=timestamp(nominal_us), task_id=task_id.to_text(raw_id))


def _recurrence(rule: Rule) -> schedule_pb2.Recurrence:
    return schedule_pb2.Recurrence(
        crons=rule.crons,
        interval=optional_span(rule.interval_us or None),
        phase=optional_span(rule.phase_us or None),
        dates=[timestamp(time_us) for time_us in rule.dates_us],
        time_zone=rule.time_zone,
        excluded_crons=rule.excluded_crons,
        excluded_dates=rule.excluded_dates,
        start_time=optional_time(rule.start_us),
        end_time=optional_time(rule.end_us),
        jitter=optional_span(rule.jitter_us or None),
        dst_policy=int(rule.dst),  # type: ignore[arg-type]
    )


def _task(task: NewTask, with_payload: bool) -> scheduler_pb2.NewTask:
    return scheduler_pb2.NewTask(
        name=task.route.name,
        payload=payload_message(task.payload) if with_payload else None,
        priority=task.priority,
        requires=[str(requirement) for requirement in task.route.requires],
        retry_policy=retry_policy_message(task.retry_policy),
        run_timeout=optional_span(task.run_timeout_us),
        headers=task.headers,
        tags=task.tags,
        retention=optional_span(task.retention_us),
    )


def preview(recurrence: Recurrence, found: Sequence[Preview]) -> schedule_pb2.PreviewScheduleResponse:
    response = schedule_pb2.PreviewScheduleResponse(
        explanation=recurrence.explain(), time_zone_version=tzdata_version()
    )
    for one in found:
        response.firings.add(
            nominal_time=timestamp(one.nominal_us),
            due_time=timestamp(one.due_us),
            local_time=one.local,
            dst_mark=int(one.dst),
        )
    return response
