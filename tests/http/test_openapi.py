"""What /openapi.json says is so: it is well-formed, whole, and no request that it allows meets a surprise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from schemathesis import openapi
from schemathesis.checks import CHECKS

from taskq_server.http.comments import comments
from tests.http.asking import Asked, ask_now
from tests.rpc.wire import METHODS
from tests.support.process import ServerProcess

SEED = 20_261_126
EXAMPLES = 12
"""Of each operation and phase: all of them take half a minute."""
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
    assert len(operations) == sum(len(path) for path in described["paths"].values())


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


schema = schemathesis.pytest.from_fixture("api")


@pytest.fixture
def api(served: ServerProcess) -> Any:
    return openapi.from_url(f"http://{served.http_address}/openapi.json")


@pytest.mark.timeout(300)
@schema.parametrize()
@seeded(SEED)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_meets_what_the_description_does_not_say(case: schemathesis.Case) -> None:
    case.call_and_validate(excluded_checks=[CHECKS.get_one(name) for name in NOT_HERE])
