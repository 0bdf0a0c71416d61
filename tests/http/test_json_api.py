"""What HTTP itself says and refuses, whatever is asked for."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server.core.errors import StorageFull, StorageUnavailable
from taskq_server.http import calls, json_api
from taskq_server.http.body import MOST_BYTES
from taskq_server.store.store import Store
from tests.http.asking import JSON, PROTO, Answered, Asked, ask, ask_now, by_connect
from tests.http.conftest import Site
from tests.http.given import SlowLooks
from tests.rpc.support import UNKNOWN_ID, a_task, soon
from tests.support import truth

Ask = Callable[..., Awaitable[Answered]]
ENQUEUE = "/taskq.v1.SchedulerService/Enqueue"
A_TASK = {"tasks": [{"name": "cook"}]}


@pytest.fixture
def database_url(tmp_path: Any) -> str:
    """None of this reaches a database."""
    return f"sqlite:///{tmp_path}/taskq.db"


@pytest.fixture
def ask_site(site: Site) -> Ask:
    async def asking(verb: str, path: str, body: Any = None, **headers: str) -> Answered:
        return await ask(site.server.http_address, verb, path, body, **headers)

    return asking


async def test_a_task_is_enqueued_looked_at_and_cancelled_by_the_paths_of_the_contract(ask_site: Ask) -> None:
    enqueued = await ask_site("POST", "/v1/tasks", {"tasks": [{"name": "cook", "args": {"dish": "soup"}}]})
    task_id = enqueued.json["results"][0]["taskId"]
    found = (await ask_site("GET", f"/v1/tasks/{task_id}")).json["task"]
    assert (found["state"], found["attempt"], found["tags"]) == ("TASK_STATE_SCHEDULED", 0, [])

    cancelled = await ask_site("POST", f"/v1/tasks/{task_id}:cancel")

    assert cancelled.json["task"]["state"] == "TASK_STATE_CANCELLED"
    assert (await ask_site("HEAD", f"/v1/tasks/{task_id}")).body == b""


async def test_a_name_with_slashes_is_one_variable_of_a_path(ask_site: Ask) -> None:
    assert (await ask_site("POST", "/v1/capabilities/kitchen/cook:pause", {"reason": "no gas"})).status == 200
    names = [one["name"] for one in (await ask_site("GET", "/v1/capabilities?page_size=1")).json["capabilities"]]
    assert names == ["kitchen/cook"]


@pytest.mark.parametrize(
    ("verb", "path", "body", "field", "rule"),
    [
        ("POST", "/v1/tasks", {"tusks": []}, "tusks", "must be absent; EnqueueRequest has no such field"),
        ("POST", "/v1/tasks", {"tasks": [{"name": "a", "dish": 1}]}, "tasks[0].dish", "must be absent; NewTask has"),
        ("POST", "/v1/tasks", {"tasks": [{"name": "a"}, {"delay": 5}]}, "tasks[1].delay", "must be a span in seconds"),
        ("POST", "/v1/tasks", {"tasks": [{"name": 5}]}, "tasks[0].name", "must be a string of Unicode; is 5"),
        ("POST", "/v1/tasks", {"tasks": [{"priority": 1.5}]}, "tasks[0].priority", "must be a whole number"),
        ("POST", "/v1/tasks", {"tasks": [{"dedup": {"hold": "ON"}}]}, "tasks[0].dedup.hold", "must be a name of Ded"),
        ("POST", "/v1/tasks", {"tasks": [{"payload": {"data": "?"}}]}, "tasks[0].payload.data", "must be base64"),
        ("POST", "/v1/tasks", {"tasks": [{"dueTime": "now"}]}, "tasks[0].due_time", "must be a time such as"),
        ("POST", "/v1/tasks", {"tasks": [{"headers": {"a": 1}}]}, "tasks[0].headers['a']", "must be an object of str"),
        ("POST", "/v1/tasks", {"tasks": [{"tags": "a"}]}, "tasks[0].tags", "must be a list; is 'a'"),
        ("POST", "/v1/tasks", {"tasks": [{"tags": [1]}]}, "tasks[0].tags[0]", "must be a string of Unicode; is 1"),
        ("POST", "/v1/tasks", {"tasks": [7]}, "tasks[0]", "must be an object; is 7"),
        ("POST", "/v1/tasks", {"tasks": [{"delay": "1s", "dueTime": "2026-01-01T00:00:00Z"}]}, "tasks[0].due_time",
         "must be absent beside delay"),
        ("GET", "/v1/processors?page=1", None, "page", "must be absent; ListProcessors has no such parameter"),
        ("GET", "/v1/processors?pageSize=1&page_size=2", None, "page_size", "must be given once"),
        ("GET", "/v1/processors?pageSize=many", None, "page_size", "must be a whole number"),
        ("GET", "/v1/processors?pageSize=-1", None, "page_size", "must not be negative"),
        ("GET", "/v1/processors?pageToken=%ff", None, "query", "must be UTF-8"),
        ("GET", "/v1/processors?page", None, "query", "must be name=value"),
        ("GET", "/v1/tasks/%ff", None, "task_id", "must be UTF-8"),
        ("GET", "/v1/tasks/a%00b", None, "task_id", "must be a UUID"),
        ("POST", f"/v1/tasks/{UNKNOWN_ID}:cancel?x=1", None, "x", "must be absent"),
        ("POST", f"/v1/tasks/{UNKNOWN_ID}:cancel", {"taskId": "other"}, "task_id", "must be as in the path, or absent"),
        ("POST", f"/v1/schedules/{UNKNOWN_ID}:pause", {"name": "s"}, "schedule_id", "must be absent beside name"),
        ("POST", "/v1/schedules?validateOnly=maybe", {}, "validate_only", "must be true or false"),
        ("POST", "/v1/schedules?schedule.name=x", {}, "schedule.name", "must be absent"),
        ("PUT", f"/v1/schedules/{UNKNOWN_ID}", {"scheduleId": "x"}, "schedule.schedule_id", "must be as in the path"),
        ("PUT", f"/v1/schedules/{UNKNOWN_ID}", {"x": 1}, "schedule.x", "must be absent; Schedule has no such field"),
    ],
)  # fmt: skip
async def test_what_cannot_be_taken_is_named_with_its_rule(
    ask_site: Ask, verb: str, path: str, body: Any, field: str, rule: str
) -> None:
    answered = await ask_site(verb, path, body)
    assert (answered.status, answered.reason) == (400, "INVALID_FIELDS"), answered.body
    faults = {one["field"]: one["description"] for one in answered.json["error"]["details"][1]["fieldViolations"]}
    assert faults[field].startswith(rule), faults


async def test_a_schedule_is_replaced_as_it_was_read(ask_site: Ask) -> None:
    new = {"name": "nightly", "recurrence": {"crons": ["@daily"]}, "task": {"name": "cook"}}
    checked = await ask_site("POST", "/v1/schedules?validate_only=true", new)
    assert checked.status == 200
    schedule = (await ask_site("POST", "/v1/schedules", new)).json["schedule"]
    schedule["recurrence"]["crons"] = ["@hourly"]

    updated = await ask_site("PUT", f"/v1/schedules/{schedule['scheduleId']}", schedule)

    assert updated.json["schedule"]["recurrence"]["crons"] == ["@hourly"]
    assert (await ask_site("GET", f"/v1/schedules/{schedule['scheduleId']}:preview?count=2")).status == 200
    again = await ask_site("PUT", f"/v1/schedules/{schedule['scheduleId']}", schedule)
    assert (again.status, again.reason, again.json["error"]["status"]) == (409, "SCHEDULE_CHANGED", "ABORTED")
    deleted = await ask_site("DELETE", f"/v1/schedules/{schedule['scheduleId']}")
    assert deleted.json == {"withdrawnTasks": 0}


HOSTILE: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{", "must be JSON"),
    "nothing but spaces": (b"  ", "must be JSON"),
    "two values": (b"{} {}", "must be JSON"),
    "not UTF-8": (b'{"tasks": [{"name": "\xff"}]}', "must be UTF-8"),
    "UTF-16": ('{"tasks": []}'.encode("utf-16"), "must be UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "must be JSON"),
    "a raw NUL": (b'{"tasks": [{"name": "a\0"}]}', "must be JSON"),
    "NaN": (b'{"tasks": [{"priority": NaN}]}', "NaN is no number"),
    "a key twice": (b'{"tasks": [], "tasks": []}', "'tasks' stands twice"),
    "a list": (b"[]", "must be a JSON object"),
    "a string": (b'"tasks"', "must be a JSON object"),
    "100,000 brackets": (b"[" * 100_000, "must be JSON of few levels"),
    "100,000 objects": (b'{"a":' * 100_000, "must be JSON of few levels"),
    "a million values": (b'{"tasks": [' + b"{}," * 1_000_000 + b"{}]}", "must hold at most 200,000 values"),
    "a number of 100,000 digits": (b'{"tasks": [{"priority": ' + b"1" * 100_000 + b"}]}", "must be JSON"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("path", ["/v1/tasks", ENQUEUE])
async def test_what_is_no_message_is_refused_and_nothing_is_stored(
    site: Site, ask_site: Ask, kind: str, path: str
) -> None:
    body, rule = HOSTILE[kind]
    answered = await ask_site("POST", path, body, content_type=JSON)
    assert (answered.status, answered.reason) == (400, "MALFORMED_REQUEST")
    assert rule in answered.error.message
    assert truth.count(site.server._config.database_url) == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"tasks": [{"name": "\\ud800"}]}', "tasks[0].name"),
        (b'{"tasks": [{"name": "a", "headers": {"\\udfff": ""}}]}', "tasks[0].headers"),
        (b'{"tasks": [{"name": "a\\u0000"}]}', "tasks[0].name"),
        (b'{"tasks": [{"name": "a", "tags": ["a\\u0000"]}]}', "tasks[0].tags[0]"),
        (b'{"tasks": [{"name": "a", "priority": 1e999}]}', "tasks[0].priority"),
        (b'{"tasks": [{"name": "a", "priority": 4294967296}]}', "tasks[0].priority"),
        (b'{"tasks": [{"name": "a", "priority": true}]}', "tasks[0].priority"),
        (b'{"tasks": [{"name": "a", "retryPolicy": {"multiplier": "NaN"}}]}', "tasks[0].retry_policy.multiplier"),
        (b'{"tasks": [{"name": "a", "retryPolicy": {"multiplier": "Infinity"}}]}', "tasks[0].retry_policy.multiplier"),
        (b'{"tasks": [{"name": "a", "args": {"x": 1e999}}]}', "tasks[0].args"),
        (b'{"tasks": [{"name": "a", "args": ' + b'{"x":' * 200 + b"1" + b"}" * 200 + b"}]}", "tasks[0].args"),
        (b'{"tasks": [{"name": "a", "delay": "1e3s"}]}', "tasks[0].delay"),
        (b'{"tasks": [{"name": "a", "delay": "99999999999999999999s"}]}', "tasks[0].delay"),
        (b'{"tasks": [{"name": "a", "dueTime": "99999-01-01T00:00:00Z"}]}', "tasks[0].due_time"),
        (b'{"tasks": [{"name": "a", "[x.y]": 1}]}', "tasks[0].[x.y]"),
        (b'{"tasks": [null]}', "tasks[0]"),
    ],
)
async def test_a_value_that_only_json_can_spell_is_refused_by_its_field(ask_site: Ask, body: bytes, field: str) -> None:
    answered = await ask_site("POST", "/v1/tasks", body, content_type=JSON)
    assert (answered.status, answered.reason) == (400, "INVALID_FIELDS"), answered.body
    faults = answered.json["error"]["details"][1]["fieldViolations"]
    assert faults[0]["field"].startswith(field), faults


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", JSON + "x",
             f"{JSON}; charset=latin-1", PROTO]
)  # fmt: skip
async def test_what_a_form_can_send_is_taken_by_no_call(site: Site, ask_site: Ask, kind: str) -> None:
    body = json.dumps(A_TASK).encode()
    answered = await ask_site("POST", "/v1/tasks", body, content_type=kind)
    assert (answered.status, answered.reason) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert answered.headers["accept-post"] in (JSON, None)
    if kind != PROTO:
        assert (await ask_site("POST", ENQUEUE, body, content_type=kind)).status == 415
        empty = await ask_site("POST", f"/v1/tasks/{UNKNOWN_ID}:cancel", b"", content_type=kind or "x")
        assert empty.status == 415
    assert truth.count(site.server._config.database_url) == 0


async def test_a_body_in_another_encoding_or_where_there_is_none_is_refused(ask_site: Ask) -> None:
    assert (await ask_site("POST", "/v1/tasks", A_TASK, content_encoding="gzip")).status == 415
    answered = await ask_site("GET", f"/v1/tasks/{UNKNOWN_ID}", {})
    assert (answered.status, answered.reason) == (400, "UNEXPECTED_BODY")


async def test_a_body_of_more_than_four_mebibytes_is_not_read(site: Site, ask_site: Ask) -> None:
    answered = await ask_site("POST", "/v1/tasks", b" " * (MOST_BYTES + 1), content_type=JSON)
    assert (answered.status, answered.reason, answered.json["error"]["status"]) == (
        413,
        "REQUEST_TOO_LARGE",
        "RESOURCE_EXHAUSTED",
    )

    def in_chunks() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(site.server.http_address, timeout=20)
        chunks = (b" " * 65_536 for _ in range(MOST_BYTES // 65_536 + 1))
        connection.request("POST", "/v1/tasks", chunks, {"content-type": JSON}, encode_chunked=True)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.request("GET", "/livez")  # it is one that goes on
        assert connection.getresponse().status == 200
        connection.close()
        return found

    status, _ = await asyncio.to_thread(in_chunks)
    assert status == 413
    assert (await ask_site("POST", "/v1/tasks", b" " * MOST_BYTES, content_type=JSON)).status == 400


async def test_a_body_that_is_never_whole_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskq_server.http.body.REQUEST_SECONDS", 0.05)

    def half() -> bytes:
        host, port = site.server.http_address.split(":")
        with socket.create_connection((host, int(port)), 20) as raw:
            raw.sendall(f"POST /v1/tasks HTTP/1.1\r\nHost: {host}\r\nContent-Type: {JSON}\r\n".encode())
            raw.sendall(b"Content-Length: 100\r\n\r\n{")
            answered = b""
            while not answered.endswith(b"}]}}"):
                more = raw.recv(65_536)
                assert more, answered
                answered += more
            return answered

    answered = await asyncio.to_thread(half)
    assert answered.startswith(b"HTTP/1.1 408 ")
    assert b'"REQUEST_TOO_SLOW"' in answered


async def test_what_takes_longer_than_its_caller_waits_is_ended(ask_site: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()

    async def never(self: Store, task_ids: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(Store, "get", never)
    answered = await ask_site("GET", f"/v1/tasks/{UNKNOWN_ID}", connect_timeout_ms="20")
    assert (answered.status, answered.json["error"]["status"]) == (504, "DEADLINE_EXCEEDED")
    await soon(ended.wait())
    monkeypatch.setattr(calls, "MOST_SECONDS", 0.02)
    assert (await ask_site("GET", f"/v1/tasks/{UNKNOWN_ID}")).status == 504
    assert (await ask_site("GET", f"/v1/tasks/{UNKNOWN_ID}", connect_timeout_ms="9999999999")).status == 504
    for wrong in ("", "-1", "1.5", "10000000000", "x"):
        answered = await ask_site("GET", f"/v1/tasks/{UNKNOWN_ID}", connect_timeout_ms=wrong)
        assert (answered.status, answered.reason) == (400, "INVALID_TIMEOUT")


@pytest.mark.parametrize(
    ("verb", "path", "status", "allow"),
    [
        ("GET", "/v1/nothing", 404, None),
        ("GET", "/v1/tasks/", 404, None),
        ("GET", "/v1/tasks/a/b", 404, None),
        ("POST", "/taskq.v1.SchedulerService/Explode", 404, None),
        ("POST", "/grpc.health.v1.Health/Check", 404, None),
        ("GET", "/v1/tasks/a:cancel", 405, "POST"),
        ("DELETE", "/v1/tasks", 405, "GET, HEAD, POST"),
        ("PATCH", "/v1/schedules/x", 405, "DELETE, GET, HEAD, PUT"),
        ("OPTIONS", "/v1/tasks", 405, "GET, HEAD, POST"),
        ("TRACE", "/v1/tasks", 405, "GET, HEAD, POST"),
        ("GET", ENQUEUE, 405, "POST"),
    ],
)
async def test_a_path_or_a_verb_that_there_is_not(
    ask_site: Ask, verb: str, path: str, status: int, allow: str | None
) -> None:
    answered = await ask_site(verb, path)
    assert (answered.status, answered.headers["allow"]) == (status, allow)
    assert answered.headers["access-control-allow-origin"] is None


async def test_connect_is_answered_in_the_form_that_was_asked_in_and_errs_in_json(site: Site, ask_site: Ask) -> None:
    request = scheduler_pb2.EnqueueRequest(tasks=[a_task("cook")])
    for kind in (JSON, PROTO):
        asked = by_connect("Enqueue", request, kind)
        answered = await ask_site("POST", asked.path, asked.body, content_type=kind, connect_protocol_version="1")
        assert (answered.status, answered.headers["content-type"]) == (200, kind)
    refused = await ask_site("POST", ENQUEUE, b"\x0a\x02\x12\xff", content_type=PROTO)
    assert (refused.status, refused.headers["content-type"], refused.reason) == (400, JSON, "MALFORMED_REQUEST")
    assert refused.json["code"] == "invalid_argument"
    assert (await ask_site("POST", ENQUEUE, A_TASK, connect_protocol_version="2")).reason == "UNSUPPORTED_PROTOCOL"
    stream = await ask_site("POST", "/taskq.v1.SchedulerService/WatchTask", {})
    assert (stream.status, stream.json["code"], stream.reason) == (501, "unimplemented", "STREAMS_BY_GRPC")
    assert (await ask_site("POST", "/taskq.v1.AdminService/GetServerInfo")).status == 200


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [(StorageFull(), 429, "STORAGE_FULL"), (StorageUnavailable("secret dsn"), 503, "STORAGE_UNAVAILABLE")],
)
async def test_what_may_be_tried_again_says_when(
    ask_site: Ask, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, reason: str
) -> None:
    async def fail(self: Store, tasks: object) -> None:
        raise error

    monkeypatch.setattr(Store, "add", fail)
    answered = await ask_site("POST", "/v1/tasks", A_TASK)
    assert (answered.status, answered.reason, answered.headers["retry-after"]) == (status, reason, "1")
    assert b"secret" not in answered.body


async def test_an_unexpected_error_shows_an_id_and_no_text_of_ours(
    ask_site: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explode(self: Store, task_ids: object) -> None:
        raise RuntimeError("the secret is in /etc/passwd")

    monkeypatch.setattr(Store, "get", explode)
    for answered in (
        await ask_site("GET", f"/v1/tasks/{UNKNOWN_ID}"),
        await ask_site("POST", "/taskq.v1.SchedulerService/GetTask", {"taskId": UNKNOWN_ID}),
    ):
        assert (answered.status, answered.reason) == (500, "INTERNAL")
        assert b"passwd" not in answered.body


async def test_a_request_is_answered_under_its_id_and_kept_by_nobody(ask_site: Ask) -> None:
    for path in ("/v1/serverInfo", "/v1/nothing", "/livez"):
        answered = await ask_site("GET", path, x_request_id="abc-1")
        assert answered.headers["x-request-id"] == "abc-1"
        assert (answered.headers["cache-control"], answered.headers["x-content-type-options"]) == (
            "no-store",
            "nosniff",
        )
    assert (await ask_site("GET", "/livez", x_request_id="x" * 129)).headers["x-request-id"] is None
    assert (await ask_site("GET", "/livez", x_request_id="a b")).headers["x-request-id"] is None


async def test_calls_by_http_are_counted_with_those_by_grpc_as_what_they_are(site: Site, ask_site: Ask) -> None:
    await site.scheduler.enqueue()
    await ask_site("POST", "/v1/tasks", A_TASK)
    await ask_site("POST", ENQUEUE, {"tasks": []})
    values = await site.values()
    call = {"grpc_service": "taskq.v1.SchedulerService", "grpc_method": "Enqueue"}
    assert values.of("grpc_server_handled_total", grpc_type="unary", grpc_code="OK", **call) == 1
    assert values.of("grpc_server_handled_total", grpc_type="http", grpc_code="OK", **call) == 1
    assert values.of("grpc_server_handled_total", grpc_type="http", grpc_code="INVALID_ARGUMENT", **call) == 1
    assert values.of("grpc_server_started_total", grpc_type="http", **call) == 2
    assert values.of("grpc_server_handling_seconds_count", grpc_type="http", **call) == 2


async def test_a_server_that_stops_lets_calls_end_and_takes_no_further_ones(
    site: Site, ask_site: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.restart(stop_grace=10.0, http_listen="127.0.0.1:0")
    task_id = await site.scheduler.enqueue()
    looks = SlowLooks(monkeypatch)
    under_way = asyncio.ensure_future(ask_site("GET", f"/v1/tasks/{task_id}"))
    await soon(looks.begun.wait())
    stop = asyncio.create_task(site.server.stop())
    while (refused := await ask_site("GET", "/v1/processors")).status == 200:
        pass
    assert (refused.status, refused.reason, refused.headers["retry-after"]) == (503, "STOPPING", "1")
    looks.may_go_on.set()
    assert (await soon(under_way)).json["task"]["taskId"] == task_id
    await soon(stop)


async def test_a_large_batch_does_not_hold_the_event_loop_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    monkeypatch.setattr(json_api, "LARGE_BYTES", 1_000)
    message_of = json_api.json_body.message_of

    def seen(*given: Any) -> Any:
        threads.append(asyncio._get_running_loop())
        return message_of(*given)

    monkeypatch.setattr(json_api.json_body, "message_of", seen)
    for count in (1, 100):
        body = json.dumps({"tasks": [{"name": "cook"}] * count}).encode()
        answered = await asyncio.to_thread(ask_now, site.server.http_address, Asked("POST", "/v1/tasks", body, JSON))
        assert len(answered.json["results"]) == count
    assert [loop is not None for loop in threads] == [True, False]
