"""How a request becomes a message, by google.api.http: also what no call of ours asks for yet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from google.api import http_pb2
from google.protobuf import message_factory

from taskq_server.core.errors import InvalidFields
from taskq_server.http.binding import Binding
from taskq_server.http.calls import Call
from taskq_server.http.paths import Template
from tests.rpc.wire import METHODS


def bound(method: str, rule: http_pb2.HttpRule, path: str, query: str = "", body: bytes = b"") -> Any:
    described = METHODS[method]
    request_type = message_factory.GetMessageClass(described.input_type)
    call = cast(Call, SimpleNamespace(method=described, request_type=request_type, path=method))
    binding = Binding(call, rule)
    values = binding.template.match(path)
    assert values is not None
    return binding.message(values, query, body)


def faults(method: str, rule: http_pb2.HttpRule, query: str) -> dict[str, str]:
    with pytest.raises(InvalidFields) as refused:
        bound(method, rule, "/v1/x", query)
    return dict(refused.value.faults)


GET = http_pb2.HttpRule(get="/v1/x")


def test_a_list_is_given_several_times() -> None:
    assert bound("WatchTask", GET, "/v1/x", "taskIds=a&task_ids=b&task_id=c").task_ids == ["a", "b"]


def test_what_is_inside_is_reached_by_dots_and_said_as_json_says_it() -> None:
    query = "schedule.overlap=OVERLAP_SKIP&schedule.recurrence.startTime=2026-01-01T00:00:00Z&schedule.maxFirings=12"
    query += "&schedule.recurrence.crons=@daily&schedule.task.payload.data=AP8%3D&schedule.catch_up_window=1.5s"
    query += "&validateOnly=true&schedule.task.retryPolicy.multiplier=2.5&schedule.name=a%20b+c"
    request = bound("CreateSchedule", GET, "/v1/x", query)
    schedule = request.schedule
    assert (schedule.overlap, schedule.max_firings, schedule.name, request.validate_only) == (1, 12, "a b c", True)
    assert schedule.recurrence.start_time.ToJsonString() == "2026-01-01T00:00:00Z"
    assert list(schedule.recurrence.crons) == ["@daily"]
    assert (schedule.task.payload.data, schedule.catch_up_window.nanos) == (b"\x00\xff", 500_000_000)
    assert schedule.task.retry_policy.multiplier == 2.5


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("schedule=x", "schedule"),
        ("schedule.task.headers=x", "schedule.task.headers"),
        ("schedule.task.args=x", "schedule.task.args"),
        ("schedule.name.x=y", "schedule.name.x"),
        (".=y", "."),
        ("=y", ""),
        ("validate_only=1", "validate_only"),
        ("validate_only=True", "validate_only"),
        ("schedule.task.payload.data=%3F", "schedule.task.payload.data"),
        ("schedule.overlap=OFTEN", "schedule.overlap"),
    ],
)
def test_what_a_parameter_cannot_say_is_refused_by_its_name(query: str, field: str) -> None:
    assert list(faults("CreateSchedule", GET, query)) == [field]


def test_every_fault_of_path_query_and_body_is_named_at_once() -> None:
    rule = http_pb2.HttpRule(put="/v1/x/{schedule.schedule_id}", body="schedule")
    with pytest.raises(InvalidFields) as refused:
        bound("CreateSchedule", rule, "/v1/x/a", "x=1&validateOnly=2", b'{"scheduleId": "b", "y": 1}')
    fields = [fault.field for fault in refused.value.faults]
    assert fields == ["x", "schedule.schedule_id", "schedule.y", "validate_only"]


@pytest.mark.parametrize(
    ("template", "path", "values"),
    [
        ("/v1/tasks/{task_id}:cancel", "/v1/tasks/a:cancel", ("a",)),
        ("/v1/tasks/{task_id}:cancel", "/v1/tasks/a%3Acancel", None),
        ("/v1/tasks/{task_id}", "/v1/tasks/a%2Fb", ("a%2Fb",)),
        ("/v1/tasks/{task_id}", "/v1/tasks/a/b", None),
        ("/v1/tasks/{task_id}", "/v1/tasks/", None),
        ("/v1/tasks/{task_id}", "/v1/tasksXa", None),
        ("/v1.0/{name=**}:pause", "/v1.0/a/b/c:pause", ("a/b/c",)),
        ("/v1.0/{name=**}:pause", "/v1x0/a:pause", None),
        ("/v1/{name=shelves/*/books/**}", "/v1/shelves/1/books/2/3", ("shelves/1/books/2/3",)),
        ("/v1/{name=shelves/*}/{other}", "/v1/shelves/1/x", ("shelves/1", "x")),
    ],
)
def test_a_path_matches_its_template(template: str, path: str, values: tuple[str, ...] | None) -> None:
    assert Template.parse(template).match(path) == values
