"""Every field of every request: what is just within its bounds, and what is just outside of them."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import uuid
from typing import Any, NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from taskq.v1 import admin_service_pb2 as admin_pb2
from taskq.v1 import (
    admin_task_pb2,
    audit_pb2,
    bulk_operation_pb2,
    event_pb2,
    failure_group_pb2,
    stats_pb2,
    task_pb2,
)
from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq.v1 import schedule_service_pb2 as schedule_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from tests.rpc.support import UNKNOWN_ID

INT32, INT64 = (1 << 31) - 1, (1 << 63) - 1
PAYLOAD = 262_144
DAY = 86_400


class Bounds(NamedTuple):
    """Values of one field."""

    fits: list[Any]
    breaks: list[Any]


def _time(seconds: int, nanos: int = 0) -> Timestamp:
    return Timestamp(seconds=seconds, nanos=nanos)


def _span(seconds: int, nanos: int = 0) -> Duration:
    return Duration(seconds=seconds, nanos=nanos)


def _span_between(least: Duration, most: Duration, *, below: Duration) -> Bounds:
    over = [_span(most.seconds + 1), _span(INT64), _span(-INT64 - 1)]
    malformed = [_span(1, 1_000_000_000), _span(1, -1), _span(-1, 1), _span(0, INT32), _span(0, -INT32)]
    return Bounds([least, most], [below, *over, *malformed])


def _number(*values: float) -> Value:
    return Value(number_value=values[0]) if len(values) == 1 else Value()


def _struct(**values: Value) -> Struct:
    return Struct(fields=values)


def _deep(levels: int) -> Struct:
    value = Value(string_value="x")
    for _ in range(levels):
        value = Value(list_value={"values": [value]})
    return _struct(deep=value)


def token(*held: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(held).encode()).decode()


UUID = Bounds(
    [UNKNOWN_ID, UNKNOWN_ID.upper(), "ffffffff-ffff-ffff-ffff-ffffffffffff"],
    [
        "", "x", UNKNOWN_ID[:-1], UNKNOWN_ID + "0", UNKNOWN_ID.replace("-", ""), "{" + UNKNOWN_ID[1:-1] + "}",
        UNKNOWN_ID[:-1] + "g", UNKNOWN_ID[:-1] + " ", UNKNOWN_ID[:-1] + "é", UNKNOWN_ID[:-2] + "\t\n",
        "-" * 36, " " * 36, UNKNOWN_ID + "\n",
        "\u0661" * 8 + UNKNOWN_ID[8:], "x" * 100_000,
    ],
)  # fmt: skip
NAME = Bounds(
    ["a", "x" * 128, "AZaz09._/-", "-", "../.."],
    ["", "x" * 129, "a b", " a", "a\n", "é", "a\0", "a:b", "\u202e", "ａ", "x" * 100_000],
)
TIME = Bounds(
    [_time(0), _time(0, 999), _time(253_402_300_799, 999_999_999)],
    [_time(-1), _time(253_402_300_800), _time(0, -1), _time(0, 1_000_000_000), _time(INT64), _time(-INT64 - 1)],
)
LABEL_VALUE_BREAKS = ["x" * 257, "é", "\x1f", "\x7f", "a\0"]
CONTENT_TYPE = Bounds(["", "x" * 128, " ~"], ["x" * 129, "é", "\t", "a\0", "\x7f"])
STRINGS = Bounds(
    [{}, {"k" * 128: "v" * 4096}, {"k": ""}, {f"{i}": "ü" for i in range(64)}],
    [{"": "v"}, {"k" * 129: "v"}, {"k": "v" * 4097}, {f"{i}": "" for i in range(65)}, {"a\0": "v"}, {"k": "a\0"}],
)
DATA = Bounds([b"", b"x" * PAYLOAD, bytes(range(256))], [b"x" * (PAYLOAD + 1)])
ATTEMPT = Bounds([1, INT32], [0, -1, -INT32])
REASON = Bounds(["", "r" * 1_024, "ü \n"], ["r" * 1_025, "a\0"])
PAGE_SIZE = Bounds([0, 1, 50, 1_000, 1_001, INT32], [-1, -INT32 - 1])
PAGE_TOKEN = Bounds(
    [""],
    ["x", "é", "a\0", "=" * 8, "e30=", "W10=", "MA==", token("tasks", 1), token("processors", -1),
     token("processors", 1 << 63), token("processors", 1.5), token("processors", True), token("processors", None),
     token("capabilities", []), "W1" * 500, "x" * 100_000],
)  # fmt: skip
IN_30_DAYS = _span_between(_span(0), _span(30 * DAY), below=_span(0, -1_000))

TASK: dict[str, Bounds] = {
    "task_id": Bounds(UUID.fits, [value for value in UUID.breaks if value]),
    "name": NAME,
    "payload.data": DATA,
    "payload.content_type": CONTENT_TYPE,
    "payload.metadata": STRINGS,
    "args": Bounds(
        [
            Struct(),
            _struct(a=_number(1.5), b=Value(null_value=0), c=Value(bool_value=True), d=_number(-1.7e308)),
            _struct(text=Value(string_value="\0 ü \U0001f600 \\ \"")),
            _struct(big=Value(string_value="x" * (PAYLOAD - len('{"big":""}')))),
            _deep(20),
        ],
        [
            _struct(a=_number(math.nan)),
            _struct(a=_number(math.inf)),
            _struct(a=Value(list_value={"values": [_number(-math.inf)]})),
            _struct(big=Value(string_value="x" * (PAYLOAD - len('{"big":""}') + 1))),
        ],
    ),
    "due_time": TIME,
    "delay": _span_between(_span(0), _span(3650 * DAY), below=_span(0, -1)),
    "priority": Bounds([0, 9], [-1, 10, INT32, -INT32 - 1]),
    "requires": Bounds(
        [[], ["a = b"] * 16, ["k" * 508 + " = v"], ["a in (b, c)", "a exists", "!a"], ["  a=b  "]],
        [["a = b"] * 17, ["k" * 509 + " = v"], [""], ["a"], ["a = "], ["= b"], ["a in ()"], ["a == b"], ["é = b"]],
    ),
    "dedup.key": Bounds(["k", "k" * 256, " ~"], ["", "k" * 257, "é", "\n", "a\0"]),
    "dedup.scope": Bounds(["", *NAME.fits], [value for value in NAME.breaks if value]),
    "dedup.on_conflict": Bounds([0, 1, 2, 3, 4], [5, -1, INT32]),
    "dedup.ttl": _span_between(_span(0, 1_000_000), _span(365 * DAY), below=_span(0, 999_999)),
    "dedup.hold": Bounds([0, 1, 2, 3], [4, -1]),
    "retry_policy.max_attempts": Bounds([0, 1, 1000], [-1, 1001, INT32]),
    "retry_policy.initial_delay": Bounds([_span(0), _span(10)], [*IN_30_DAYS.breaks]),
    "retry_policy.multiplier": Bounds([0.0, 1.0, 100.0], [0.999, 100.1, -1.0, math.nan, math.inf, -math.inf, 1e308]),
    "retry_policy.max_delay": Bounds(
        [_span(10), _span(30 * DAY)], [*IN_30_DAYS.breaks, _span(0), _span(9, 999_999_000)]
    ),
    "retry_policy.jitter": Bounds([0, 1, 2, 3], [4, -1]),
    "retry_policy.non_retryable_errors": Bounds(
        [[], ["e" * 256], [f"{i}" for i in range(64)]], [[""], ["e" * 257], [f"{i}" for i in range(65)], ["a\0"]]
    ),
    "run_timeout": _span_between(_span(0, 1_000_000), _span(365 * DAY), below=_span(0, 999_999)),
    "expire_time": Bounds(TIME.fits[2:], [*TIME.breaks, _time(1_000), _time(999)]),
    "headers": STRINGS,
    "tags": Bounds(
        [[], ["t" * 128], [f"{i}" for i in range(32)], ["ü \U0001f600"]],
        [[""], ["t" * 129], [f"{i}" for i in range(33)], ["a\0"]],
    ),
    "retention": _span_between(_span(0), _span(3650 * DAY), below=_span(0, -1)),
}  # fmt: skip

KEY = {"schedule_id": UUID, "name": NAME}
OVERLAP = Bounds([0, 1, 2, 3, 4, 5], [6, -1, INT32])
RECURRENCE: dict[str, Bounds] = {
    "crons": Bounds(
        [["@daily"], ["* * * * * *"], ["H H * * *"], ["@every 10m"], ["CRON_TZ=Asia/Tokyo 0 3 * * ?"], ["@daily"] * 32],
        [["@reboot"], [""], ["* * *"], ["60 * * * *"], ["0 0 30 2 *"], ["0 " * 200], ["é * * * *"], ["@daily"] * 33],
    ),
    "interval": _span_between(_span(1), _span(3_660 * DAY), below=_span(0, 999_999_999)),
    "phase": Bounds([_span(0), _span(59, 999_999_000)], [_span(-1), _span(60), _span(INT64), _span(1, -1)]),
    "dates": Bounds(
        [[], [_time(0)], [_time(4_102_444_799)] * 1_000], [[_time(0)] * 1_001, *([one] for one in TIME.breaks)]
    ),
    "time_zone": Bounds(["", "UTC", "Europe/Berlin"], ["Mars/Base", "x" * 1_000, "../etc/passwd", "é", "a\0"]),
    "excluded_crons": Bounds([[], ["* * * * SAT,SUN"]], [["@every 10m"], [""], ["0 0 * * 8"], ["* * * * SAT"] * 33]),
    "excluded_dates": Bounds(
        [[], ["2026-12-25", "2026-12-24/2026-12-26"], ["2026-12-25"] * 1_000],
        [[""], ["2026-02-30"], ["2026-12-26/2026-12-24"], ["26-12-25"], ["x"], ["2026-12-25"] * 1_001],
    ),
    "start_time": Bounds([_time(0), _time(4_000_000_000)], TIME.breaks),
    "end_time": Bounds([_time(4_102_444_799)], [*TIME.breaks, _time(4_000_000_000), _time(0)]),
    "jitter": _span_between(_span(0), _span(DAY), below=_span(0, -1_000)),
    "dst_policy": Bounds([0, 1, 2, 3], [4, -1, INT32]),
}  # fmt: skip
SCHEDULE: dict[str, Bounds] = {
    "schedule_id": Bounds(UUID.fits, [value for value in UUID.breaks if value]),
    "name": NAME,
    **{f"recurrence.{path}": bounds for path, bounds in RECURRENCE.items()},
    **{
        f"task.{path}": bounds
        for path, bounds in TASK.items()
        if path not in ("task_id", "due_time", "delay", "expire_time") and not path.startswith("dedup")
    },
    "task.headers": Bounds(
        [{}, {f"{i}": "" for i in range(61)}], [*STRINGS.breaks, {f"{i}": "" for i in range(62)}, {"taskq-x": ""}]
    ),
    "overlap": OVERLAP,
    "max_buffered": Bounds([0, 1, 1_000], [-1, 1_001, INT32]),
    "catch_up": Bounds([0, 1, 2, 3, 4], [5, -1]),
    "catch_up_window": _span_between(_span(10), _span(365 * DAY), below=_span(9, 999_999_000)),
    "max_firings": Bounds([0, 1, 1_000_000_000], [-1, 1_000_000_001, INT64]),
    "origin": REASON,
    "etag": Bounds([], ["x" * 65, "é", "a\0"]),
}  # fmt: skip

VIEW = Bounds([0, 1, 2], [3, -1, INT32])
FILTER = Bounds(
    ["state:FAILED", "tag:" + "x" * 1_020, " ".join(f"tag:{i}" for i in range(32)), "due_time<now-3650d"],
    ["x", "state", "state:LOST", "tag:" + "x" * 1_021, " ".join(f"tag:{i}" for i in range(33)), "tag:a\0"],
)
COUNT = Bounds([0, 1, INT64], [-1, -INT64 - 1])
OPTIONAL_NAME = Bounds(["", *NAME.fits], [value for value in NAME.breaks if value])
TEXT = Bounds(["", "x" * 1_024, "ü"], ["x" * 1_025, "a\0"])
ALL_ENTRIES = f"audit {hashlib.blake2b(b'', digest_size=8).hexdigest()}"
ALL_TASKS = f"tasks {hashlib.blake2b(b'', digest_size=8).hexdigest()}"
"""What the pages of all tasks are a list of."""

BOUNDS: dict[str, dict[str, Bounds]] = {
    "CreateSchedule": {
        f"schedule.{path}": bounds if path != "etag" else Bounds(["", "x" * 64], ["x" * 65, "é"])
        for path, bounds in SCHEDULE.items()
    }
    | {"validate_only": Bounds([False, True], [])},
    "GetSchedule": KEY,
    "ListSchedules": {
        "page_size": PAGE_SIZE,
        "page_token": Bounds(
            [*PAGE_TOKEN.fits, token("schedules", ""), token("schedules", "x")],
            [*PAGE_TOKEN.breaks, token("schedules", 1), token("schedules x", "a")],
        ),
        "name_prefix": Bounds(["", "x" * 128, "é"], ["x" * 129, "a\0"]),
        "origin_prefix": Bounds(["", "x" * 1_024, "é"], ["x" * 1_025, "a\0"]),
    },
    "UpdateSchedule": {
        f"schedule.{path}": bounds if path != "etag" else Bounds(["1-1", "x" * 64], ["", "x" * 65, "é"])
        for path, bounds in SCHEDULE.items()
    },
    "DeleteSchedule": {**KEY, "etag": Bounds(["", "1-1", "x" * 64], ["x" * 65, "é", "a\0"])},
    "PauseSchedule": {**KEY, "note": REASON},
    "ResumeSchedule": KEY,
    "TriggerSchedule": {
        **KEY,
        "task_id": Bounds(UUID.fits, [value for value in UUID.breaks if value]),
        "overlap": OVERLAP,
    },
    "BackfillSchedule": {
        **KEY,
        "start_time": Bounds([_time(0), _time(999)], TIME.breaks),
        "end_time": Bounds([_time(11), _time(253_402_300_799)], [*TIME.breaks, _time(0), _time(10)]),
        "overlap": OVERLAP,
    },
    "PreviewSchedule": {
        **KEY,
        **{f"recurrence.{path}": bounds for path, bounds in RECURRENCE.items()},
        "after_time": TIME,
        "count": Bounds([0, 1, 1_000], [-1, 1_001, INT32]),
    },
    "Enqueue": {f"tasks[0].{path}": bounds for path, bounds in TASK.items()},
    "GetTask": {"task_id": UUID},
    "WatchTask": {
        "task_id": UUID,
        "task_ids": Bounds([], [["x"], [UNKNOWN_ID, ""], [str(uuid.UUID(int=i)) for i in range(1_001)]]),
    },
    "CancelTask": {"task_id": UUID},
    "Register": {
        "processor_name": NAME,
        "capabilities[0].name": NAME,
        "capabilities[0].max_in_flight": Bounds([0, 1, 10_000], [-1, 10_001, INT32]),
        "capabilities": Bounds(
            [[processor_pb2.Capability(name=f"{i}") for i in range(1_000)]],
            [[], [processor_pb2.Capability(name=f"{i}") for i in range(1_001)], [{"name": "a"}, {"name": "a"}]],
        ),
        "labels": Bounds(
            [{}, {"k" * 64: "v" * 256}, {"k": ""}, {f"{i}": " ~" for i in range(64)}],
            [{"": "v"}, {"k" * 65: "v"}, {"k k": "v"}, {"é": ""}, {f"{i}": "" for i in range(65)}]
            + [{"k": value} for value in LABEL_VALUE_BREAKS],
        ),
        "max_in_flight": Bounds([1, 10_000], [0, -1, 10_001, INT32]),
        "build_id": Bounds(["", "x" * 128, "ü"], ["x" * 129, "a\0"]),
        "client": Bounds(["", "x" * 128], ["x" * 129, "a\0"]),
    },
    "StreamTasks": {"session_id": UUID},
    "Heartbeat": {
        "session_id": UUID,
        "in_flight": Bounds(
            [[], [{"task_id": UNKNOWN_ID, "attempt": 1}] * 10_000], [[{"task_id": UNKNOWN_ID, "attempt": 1}] * 10_001]
        ),
        "in_flight[0].task_id": UUID,
        "in_flight[0].attempt": ATTEMPT,
        "in_flight[0].progress.fraction": Bounds([0.0, 1.0, 1e-308], [-0.001, 1.001, math.nan, math.inf, -math.inf]),
        "in_flight[0].progress.message": Bounds(["", "x" * 100_000, "a\0"], []),
        "in_flight[0].checkpoint.data": DATA,
        "in_flight[0].checkpoint.content_type": CONTENT_TYPE,
        "in_flight[0].checkpoint.metadata": STRINGS,
        "draining": Bounds([False, True], []),
    },
    "ReportResult": {
        "session_id": UUID,
        "results": Bounds(
            [[{"task_id": UNKNOWN_ID, "attempt": 1, "cancelled": {}}] * 10_000],
            [[], [{"task_id": UNKNOWN_ID, "attempt": 1, "cancelled": {}}] * 10_001],
        ),
        "results[0].task_id": UUID,
        "results[0].attempt": ATTEMPT,
        "results[0].succeeded.result.data": DATA,
        "results[0].succeeded.result.content_type": CONTENT_TYPE,
        "results[0].succeeded.result.metadata": STRINGS,
        "results[0].failed.error_type": Bounds(["e", "e" * 256, "ü"], ["", "e" * 257, "a\0"]),
        "results[0].failed.message": Bounds(["", "x" * 100_000, "a\0"], []),
        "results[0].failed.stack": Bounds(["", "x" * 100_000, "a\0"], []),
        "results[0].failed.retryable": Bounds([False, True], []),
        "results[0].failed.retry_delay": IN_30_DAYS,
        "results[0].released.due_time": TIME,
    },
    "Unregister": {"session_id": UUID},
    "ListProcessors": {
        "page_size": PAGE_SIZE,
        "page_token": Bounds(
            [*PAGE_TOKEN.fits, token("processors", 0), token("processors", (1 << 63) - 1)],
            [*PAGE_TOKEN.breaks, token("processors", "1"), token("capabilities", "cook")],
        ),
    },
    "DrainProcessor": {"session_id": UUID, "reason": REASON},
    "DisconnectProcessor": {"session_id": UUID, "reason": REASON},
    "ListCapabilities": {
        "page_size": PAGE_SIZE,
        "page_token": Bounds(
            [*PAGE_TOKEN.fits, token("capabilities", ""), token("capabilities", "cook")],
            [*PAGE_TOKEN.breaks, token("capabilities", 1), token("processors", 1)],
        ),
    },
    "PauseCapability": {"name": NAME, "reason": REASON},
    "ResumeCapability": {"name": NAME, "reason": REASON},
    "GetServerInfo": {},
    "ListTasks": {
        "page_size": PAGE_SIZE,
        "page_token": Bounds(
            [*PAGE_TOKEN.fits, token(ALL_TASKS, 0), token(ALL_TASKS, INT64)],
            [*PAGE_TOKEN.breaks, token(ALL_TASKS, "1"), token(ALL_TASKS, -1), token("tasks", 1)],
        ),
        "filter": Bounds(["", *FILTER.fits], FILTER.breaks),
        "view": VIEW,
        "with_total": Bounds([False, True], []),
    },
    "AdminService.GetTask": {"task_id": UUID, "view": VIEW},
    "ExplainTask": {"task_id": UUID},
    "PruneTasks": {"max_tasks": Bounds([0, 1, 10_000, 10_001, INT32], [-1, -INT32 - 1]), "reason": REASON},
    "StartBulkOperation": {
        "operation_id": Bounds(["", *UUID.fits], [value for value in UUID.breaks if value]),
        "filter": FILTER,
        "task_ids": Bounds(
            [[UNKNOWN_ID], [UNKNOWN_ID] * 1_000], [[UNKNOWN_ID] * 1_001, *([value] for value in UUID.breaks)]
        ),
        "action.rerun.payload.data": DATA,
        "action.rerun.payload.content_type": CONTENT_TYPE,
        "action.rerun.payload.metadata": STRINGS,
        "action.reschedule.due_time": TIME,
        "action.reschedule.delay": _span_between(_span(0), _span(3650 * DAY), below=_span(0, -1)),
        "action.reprioritise.priority": Bounds([0, 9], [-1, 10, INT32, -INT32 - 1]),
        "dry_run": Bounds([False, True], []),
        "expected_count": COUNT,
        "max_tasks": COUNT,
        "reason": REASON,
    },
    "GetBulkOperation": {"operation_id": UUID},
    "ListBulkOperations": {
        "page_size": PAGE_SIZE,
        "page_token": Bounds(
            [*PAGE_TOKEN.fits, token("operations", 0), token("operations", INT64)],
            [*PAGE_TOKEN.breaks, token("operations", "1"), token("operations", -1)],
        ),
    },
    "CancelBulkOperation": {"operation_id": UUID},
    "ListFailureGroups": {
        "page_size": PAGE_SIZE,
        "page_token": Bounds(
            [*PAGE_TOKEN.fits, token("failures  False", "1 0123456789abcdef"), token("failures  False", "1 ")],
            [
                *PAGE_TOKEN.breaks,
                token("failures  False", 1),
                token("failures  False", "x"),
                token("failures a False", "1 "),
            ],
        ),
        "name": OPTIONAL_NAME,
        "include_resolved": Bounds([False, True], []),
    },
    "ResolveFailureGroup": {
        "fingerprint": Bounds(["0123456789abcdef"], ["", "x" * 16, "0" * 15, "0" * 17, "A" * 16, "é", "0" * 15 + "\0"]),
        "note": REASON,
    },
    "GetStats": {
        "start_time": Bounds([_time(999_990_000)], [*TIME.breaks, _time(1_000_000_000), _time(0)]),
        "end_time": Bounds([_time(1_000_000_000)], TIME.breaks),  # before the start: the start is named
        "step": Bounds([0, 1, 2], [3, -1, INT32]),
        "name": OPTIONAL_NAME,
        "by_name": Bounds([False, True], []),
    },
    "WatchEvents": {
        "topics": Bounds([[], [1, 2, 3, 4, 5, 6, 7, 8], [1] * 100], [[0], [9], [1, -1]]),
        "cursor": Bounds(["", "1.1"], ["x", "1", "1.x", "é", "a\0", "1" * 40 + ".1"]),
    },
    "ListAuditEntries": {
        "page_size": PAGE_SIZE,
        "page_token": Bounds(
            [*PAGE_TOKEN.fits, token(ALL_ENTRIES, "0 0"), token(ALL_ENTRIES, f"{'9' * 18} {'9' * 18}")],
            [*PAGE_TOKEN.breaks, token(ALL_ENTRIES, 1), token(ALL_ENTRIES, "1"), token(ALL_ENTRIES, "-1 1")],
        ),
        "principal": TEXT,
        "target_kind": Bounds(["", "task", "token"], ["tasks", "x", "a\0"]),
        "target": TEXT,
        "start_time": TIME,
        "end_time": TIME,
    },
}


NOTHING_TO_ACT_ON = (
    *("TASK_NOT_FOUND", "SESSION_NOT_FOUND", "SCHEDULE_NOT_FOUND", "SCHEDULE_EXISTS", "SCHEDULE_CHANGED"),
    *("OPERATION_NOT_FOUND", "OPERATION_CONFLICT", "COUNT_MISMATCH", "FAILURE_GROUP_NOT_FOUND", "WRONG_STATE"),
)
"""What is refused only for what there is, or is not."""


def a_recurrence(path: str) -> schedule_pb2.Recurrence:
    """One that fires not before the year 2096, and in which `path` may be set."""
    rule = schedule_pb2.Recurrence(crons=["0 0 1 1 *"], start_time=_time(4_000_000_000))
    if path.endswith("phase"):
        rule.interval.seconds = 60
    return rule


def _a_bulk_request(method: str, path: str) -> Any:
    if method == "ListBulkOperations":
        return bulk_operation_pb2.ListBulkOperationsRequest(page_size=10)
    if method != "StartBulkOperation":
        return getattr(bulk_operation_pb2, f"{method}Request")(operation_id=UNKNOWN_ID)
    which = {"filter": "state:FAILED"} if path == "filter" else {"task_ids": [UNKNOWN_ID]}
    return bulk_operation_pb2.StartBulkOperationRequest(action={"cancel": {}}, **which)


def a_valid(method: str, path: str = "") -> Any:
    """A request with which nothing is wrong and in which `path` may be set."""
    if method in ("CreateSchedule", "UpdateSchedule"):
        schedule = schedule_pb2.Schedule(name=f"s-{uuid.uuid4()}", recurrence=a_recurrence(path), task={"name": "cook"})
        policy = task_pb2.RetryPolicy(initial_delay=_span(10), max_delay=_span(60))
        if path.endswith("initial_delay"):
            policy.max_delay.seconds = 30 * DAY
        schedule.task.retry_policy.MergeFrom(policy)
        if method == "UpdateSchedule":
            schedule.schedule_id, schedule.etag = UNKNOWN_ID, "1-1"
        return getattr(schedule_pb2, f"{method}Request")(schedule=schedule)
    if method == "ListSchedules":
        return schedule_pb2.ListSchedulesRequest(page_size=10)
    if method == "PreviewSchedule" and path.startswith("recurrence"):
        return schedule_pb2.PreviewScheduleRequest(recurrence=a_recurrence(path))
    if method == "BackfillSchedule":
        return schedule_pb2.BackfillScheduleRequest(schedule_id=UNKNOWN_ID, start_time=_time(10), end_time=_time(1_000))
    if method.endswith("Schedule"):
        return getattr(schedule_pb2, f"{method}Request")(schedule_id=UNKNOWN_ID)
    if method == "Enqueue":
        task = scheduler_pb2.NewTask(
            task_id=str(uuid.uuid4()), name="cook", due_time=_time(1_000), expire_time=_time(253_402_300_000)
        )
        task.dedup.MergeFrom(scheduler_pb2.Dedup(key=task.task_id, ttl=_span(60)))
        policy = task_pb2.RetryPolicy(initial_delay=_span(10), max_delay=_span(60))
        if path.endswith("initial_delay"):
            policy.max_delay.seconds = 30 * DAY
        task.retry_policy.MergeFrom(policy)
        if path.endswith("due_time"):
            task.ClearField("expire_time")
        return scheduler_pb2.EnqueueRequest(tasks=[task])
    if method in ("GetTask", "CancelTask"):
        return getattr(scheduler_pb2, f"{method}Request")(task_id=UNKNOWN_ID)
    if method == "WatchTask":
        return scheduler_pb2.WatchTaskRequest(task_id=UNKNOWN_ID)
    if method == "Register":
        return processor_pb2.RegisterRequest(processor_name="oven", capabilities=[{"name": "cook"}], max_in_flight=1)
    if method in ("ListProcessors", "ListCapabilities"):
        return getattr(admin_pb2, f"{method}Request")(page_size=10)
    if method in ("PauseCapability", "ResumeCapability"):
        return getattr(admin_pb2, f"{method}Request")(name="paused")
    if method == "ListTasks":
        return admin_task_pb2.ListTasksRequest(page_size=10)
    if method == "AdminService.GetTask":
        return admin_task_pb2.AdminServiceGetTaskRequest(task_id=UNKNOWN_ID)
    if method == "ExplainTask":
        return admin_task_pb2.ExplainTaskRequest(task_id=UNKNOWN_ID)
    if method == "GetServerInfo":
        return admin_pb2.GetServerInfoRequest()
    if method == "PruneTasks":
        return admin_task_pb2.PruneTasksRequest(max_tasks=1)
    if method.endswith(("BulkOperation", "BulkOperations")):
        return _a_bulk_request(method, path)
    if method == "ListFailureGroups":
        return failure_group_pb2.ListFailureGroupsRequest(page_size=10)
    if method == "ResolveFailureGroup":
        return failure_group_pb2.ResolveFailureGroupRequest(fingerprint="0123456789abcdef")
    if method == "GetStats":
        return stats_pb2.GetStatsRequest(start_time=_time(999_990_000), end_time=_time(1_000_000_000))
    if method == "WatchEvents":
        return event_pb2.WatchEventsRequest(topics=[1])
    if method == "ListAuditEntries":
        return audit_pb2.ListAuditEntriesRequest(page_size=10)
    if method in ("DrainProcessor", "DisconnectProcessor"):
        return getattr(admin_pb2, f"{method}Request")(session_id=UNKNOWN_ID)
    request = getattr(processor_pb2, f"{method}Request")(session_id=UNKNOWN_ID)
    if method == "Heartbeat":
        request.in_flight.add(task_id=UNKNOWN_ID, attempt=1)
    if method == "ReportResult":
        result = request.results.add(task_id=UNKNOWN_ID, attempt=1, succeeded={})
        if ".failed." in path:
            result.failed.error_type = "Burnt"
    return request
