"""What /openapi.json says is so: it is well-formed, whole, and no request that it allows meets a surprise."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import requests
import schemathesis
from google.api import annotations_pb2
from hypothesis import HealthCheck, given, seed, settings
from schemathesis import GenerationMode, openapi
from schemathesis.checks import CHECKS

from taskq_server.http.comments import comments
from tests.http.asking import Asked, ask_now, by_rest
from tests.http.given import NOT_THERE, Both, a_world, about
from tests.rpc.wire import METHODS
from tests.support.process import ServerProcess

OPERATIONS = [
    f"{method.containing_service.name}_{method.name}{number or ''}"
    for method in METHODS.values()
    if (rule := method.GetOptions().Extensions[annotations_pb2.http]).WhichOneof("pattern")
    for number in range(1 + len(rule.additional_bindings))
]
SEED = 20_261_126
EXAMPLES = 30
"""Of each operation, in the form that it takes and in others: all of them take half a minute."""
BY_HTTP_ITSELF = {404, 405, 413, 415}
"""What is said of every path and body alike, and described as the default."""
NOT_HERE = "positive_data_acceptance", "negative_data_rejection"
"""What makes a cron or a label a good one no schema says; and protobuf JSON takes more than its schema: numbers as
strings, names of fields in two spellings, null for what is not set."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    url = f"sqlite:///{tmp_path_factory.mktemp('openapi')}/taskq.db"
    process = ServerProcess(url, http_listen="127.0.0.1:0")
    with process.log:
        process.start()
        yield process
        process.kill()


@pytest.fixture(scope="module")
def described(served: ServerProcess) -> Any:
    return ask_now(served.http_address, Asked("GET", "/openapi.json")).json


def test_every_call_that_is_annotated_is_described_by_its_comments(described: Any) -> None:
    assert described["openapi"] == "3.1.0"
    operations = {one["operationId"]: one for path in described["paths"].values() for one in path.values()}
    for method in METHODS.values():
        service = method.containing_service.name
        if service != "ProcessorService" and not method.server_streaming:
            operation = operations[f"{service}_{method.name}"]
            assert operation["summary"] and operation["description"].startswith(operation["summary"].split()[0])
            assert "Errors:" not in operation["description"]
            assert {"200", "503", "default"} <= set(operation["responses"])
    assert "404" in operations["SchedulerService_GetTask"]["responses"]
    assert (
        "`TASK_NOT_FOUND`: never enqueued, or pruned."
        in (operations["SchedulerService_GetTask"]["responses"]["404"]["description"])
    )
    assert set(operations) == set(OPERATIONS), "two calls have one path, or a call has none"


def test_every_message_and_field_is_described(described: Any) -> None:
    schemas = described["components"]["schemas"]
    for name, schema in schemas.items():
        assert schema["description"], name
        for field, one in schema.get("properties", {}).items():
            assert name == "Error" or one["description"], f"{name}.{field}"
    assert schemas["Schedule"]["properties"]["counters"]["readOnly"]
    assert schemas["Task"]["properties"]["state"]["$ref"] == "#/components/schemas/TaskState"
    assert "Never beside delay." in schemas["NewTask"]["properties"]["dueTime"]["description"]


def test_the_comments_are_those_of_the_protos() -> None:
    assert comments()["taskq.v1.RetryPolicy.Jitter.JITTER_FULL"] == "Uniform from zero to the delay."
    assert comments()["taskq.v1.GetTaskRequest.task_id"] == "UUID."


@pytest.fixture(scope="module")
def fuzzed(served: ServerProcess) -> Any:
    return openapi.from_url(f"http://{served.http_address}/openapi.json")


@pytest.mark.parametrize("operation_id", OPERATIONS)
async def test_what_is_answered_is_what_the_description_says(
    served: ServerProcess, fuzzed: Any, operation_id: str
) -> None:
    service, name, number = re.fullmatch(r"([A-Za-z]+)_([A-Za-z]+)(\d*)", operation_id).groups()  # type: ignore[union-attr]
    if METHODS[name].containing_service.name != service:
        name = f"{service}.{name}"
    async with grpc.aio.insecure_channel(served.address) as channel:
        request = about(name, await a_world(Both(served.http_address, channel)))

    asked = list(by_rest(name, request))[int(number or 0)]
    headers = {"content-type": asked.kind} if asked.kind else {}
    answered = await asyncio.to_thread(
        requests.request, asked.verb, f"http://{served.http_address}{asked.path}", data=asked.body, headers=headers
    )

    assert answered.status_code == (404 if name in NOT_THERE else 200), answered.text
    fuzzed.find_operation_by_id(operation_id).validate_response(answered)


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_no_request_meets_what_the_description_does_not_say(
    fuzzed: Any, operation_id: str, mode: GenerationMode
) -> None:
    operation = fuzzed.find_operation_by_id(operation_id)
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
        pytest.skip("every text may stand in its path")
    told = {int(status) for status in operation.definition.raw["responses"] if status.isdecimal()}

    @seed(SEED)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(mode))
    def ask_whatever(case: schemathesis.Case) -> None:
        response = case.call_and_validate(excluded_checks=[CHECKS.get_one(name) for name in NOT_HERE])
        assert response.status_code in told | BY_HTTP_ITSELF

    ask_whatever()
