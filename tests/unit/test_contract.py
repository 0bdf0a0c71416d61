"""The contract as it is published: the names that clients in other languages rely on; and `generated/` is fresh."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import ServiceDescriptor

from taskq.v1 import admin_service_pb2, processor_service_pb2, schedule_service_pb2, scheduler_service_pb2
from tests.support.process import ROOT

SCHEDULER = scheduler_service_pb2.DESCRIPTOR.services_by_name["SchedulerService"]
PROCESSOR = processor_service_pb2.DESCRIPTOR.services_by_name["ProcessorService"]
ADMIN = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"]
SCHEDULE = schedule_service_pb2.DESCRIPTOR.services_by_name["ScheduleService"]
SCHEDULE_CALLS = [
    "CreateSchedule", "GetSchedule", "ListSchedules", "UpdateSchedule", "DeleteSchedule", "PauseSchedule",
    "ResumeSchedule", "TriggerSchedule", "BackfillSchedule", "PreviewSchedule",
]  # fmt: skip
ADMIN_CALLS = [
    "ListTasks", "GetTask", "ExplainTask", "PruneTasks", "StartBulkOperation", "GetBulkOperation", "ListBulkOperations",
    "CancelBulkOperation", "ListFailureGroups", "ResolveFailureGroup", "GetStats", "WatchEvents", "ListAuditEntries",
    "ListProcessors", "DrainProcessor", "DisconnectProcessor", "ListCapabilities", "PauseCapability",
    "ResumeCapability", "GetServerInfo",
]  # fmt: skip


def files_below(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_the_generated_code_is_what_the_protos_generate(tmp_path: Path) -> None:
    made = subprocess.run(
        ["make", "proto", f"GENERATED={tmp_path}"], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert made.returncode == 0, f"`make proto` failed, so nobody knows whether generated/ is stale:\n{made.stderr}"
    fresh, committed = files_below(tmp_path / "taskq"), files_below(ROOT / "generated" / "taskq")
    assert len(fresh) >= 16
    assert set(committed) == set(fresh), "generated/ is stale: run `make proto`"
    stale = [name for name, content in fresh.items() if committed[name] != content]
    assert not stale, f"generated/ is stale: run `make proto` ({', '.join(stale)})"


@pytest.mark.parametrize("language", ["go", "typescript", "java"])
def test_another_language_is_made_when_make_is_told_so_and_not_when_the_locale_is_called_like_it(language: str) -> None:
    def would_run(*arguments: str, **environment: str) -> str:
        command = ["make", "--dry-run", "proto", *arguments]
        told = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return told.stdout + told.stderr

    assert f"buf.gen.{language}.yaml" in would_run(f"LANG={language}")
    assert "grpc_tools.protoc" in would_run(LANG=language)
    assert "LANG is klingon; must be python, go, typescript or java" in would_run("LANG=klingon")


def test_the_package_works_from_anywhere_once_it_is_installed(tmp_path: Path) -> None:
    code = (
        "from taskq.v1 import task_pb2, scheduler_service_pb2, processor_service_pb2;"
        "from taskq.v1 import scheduler_service_pb2_grpc, processor_service_pb2_grpc;"
        "import importlib.metadata; importlib.metadata.version('taskq');"
        "print(processor_service_pb2.AssignedTask(payload=task_pb2.Payload(data=b'x')).ByteSize())"
    )
    ended = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 0


@pytest.mark.parametrize(
    ("service", "calls", "streams"),
    [
        (SCHEDULER, ["Enqueue", "GetTask", "WatchTask", "CancelTask"], ["WatchTask"]),
        (PROCESSOR, ["Register", "StreamTasks", "Heartbeat", "ReportResult", "Unregister"], ["StreamTasks"]),
        (SCHEDULE, SCHEDULE_CALLS, []),
        (ADMIN, ADMIN_CALLS, ["WatchEvents"]),
    ],
)
def test_the_names_of_the_calls_are_those_of_the_contract(
    service: ServiceDescriptor, calls: list[str], streams: list[str]
) -> None:
    assert service.full_name.startswith("taskq.v1.")
    assert [method.name for method in service.methods] == calls
    assert [method.name for method in service.methods if method.server_streaming] == streams
    assert not any(method.client_streaming for method in service.methods)


@pytest.mark.parametrize(
    ("service", "rules"),
    [
        (
            SCHEDULER,
            {
                "Enqueue": http_pb2.HttpRule(post="/v1/tasks", body="*"),
                "GetTask": http_pb2.HttpRule(get="/v1/tasks/{task_id}"),
                "CancelTask": http_pb2.HttpRule(post="/v1/tasks/{task_id}:cancel", body="*"),
            },
        ),
        (
            SCHEDULE,
            {
                "CreateSchedule": http_pb2.HttpRule(post="/v1/schedules", body="schedule"),
                "GetSchedule": http_pb2.HttpRule(get="/v1/schedules/{schedule_id}"),
                "ListSchedules": http_pb2.HttpRule(get="/v1/schedules"),
                "UpdateSchedule": http_pb2.HttpRule(put="/v1/schedules/{schedule.schedule_id}", body="schedule"),
                "DeleteSchedule": http_pb2.HttpRule(delete="/v1/schedules/{schedule_id}"),
                "PauseSchedule": http_pb2.HttpRule(post="/v1/schedules/{schedule_id}:pause", body="*"),
                "ResumeSchedule": http_pb2.HttpRule(post="/v1/schedules/{schedule_id}:resume", body="*"),
                "TriggerSchedule": http_pb2.HttpRule(post="/v1/schedules/{schedule_id}:trigger", body="*"),
                "BackfillSchedule": http_pb2.HttpRule(post="/v1/schedules/{schedule_id}:backfill", body="*"),
                "PreviewSchedule": http_pb2.HttpRule(
                    post="/v1/schedules:preview",
                    body="*",
                    additional_bindings=[http_pb2.HttpRule(get="/v1/schedules/{schedule_id}:preview")],
                ),
            },
        ),
        (
            ADMIN,
            {
                "ListTasks": http_pb2.HttpRule(get="/v1/tasks"),
                "GetTask": http_pb2.HttpRule(get="/v1/tasks/{task_id}:inspect"),
                "ExplainTask": http_pb2.HttpRule(get="/v1/tasks/{task_id}:explain"),
                "PruneTasks": http_pb2.HttpRule(post="/v1/tasks:prune", body="*"),
                "StartBulkOperation": http_pb2.HttpRule(post="/v1/bulkOperations", body="*"),
                "GetBulkOperation": http_pb2.HttpRule(get="/v1/bulkOperations/{operation_id}"),
                "ListBulkOperations": http_pb2.HttpRule(get="/v1/bulkOperations"),
                "CancelBulkOperation": http_pb2.HttpRule(post="/v1/bulkOperations/{operation_id}:cancel", body="*"),
                "ListFailureGroups": http_pb2.HttpRule(get="/v1/failureGroups"),
                "ResolveFailureGroup": http_pb2.HttpRule(post="/v1/failureGroups/{fingerprint}:resolve", body="*"),
                "GetStats": http_pb2.HttpRule(get="/v1/stats"),
                "ListAuditEntries": http_pb2.HttpRule(get="/v1/auditEntries"),
                "ListProcessors": http_pb2.HttpRule(get="/v1/processors"),
                "DrainProcessor": http_pb2.HttpRule(post="/v1/processors/{session_id}:drain", body="*"),
                "DisconnectProcessor": http_pb2.HttpRule(post="/v1/processors/{session_id}:disconnect", body="*"),
                "ListCapabilities": http_pb2.HttpRule(get="/v1/capabilities"),
                "PauseCapability": http_pb2.HttpRule(post="/v1/capabilities/{name=**}:pause", body="*"),
                "ResumeCapability": http_pb2.HttpRule(post="/v1/capabilities/{name=**}:resume", body="*"),
                "GetServerInfo": http_pb2.HttpRule(get="/v1/serverInfo"),
            },
        ),
    ],
)
def test_every_unary_call_has_its_http_path(service: ServiceDescriptor, rules: dict[str, http_pb2.HttpRule]) -> None:
    unary = [method for method in service.methods if not method.server_streaming]
    assert {method.name: method.GetOptions().Extensions[annotations_pb2.http] for method in unary} == rules


def test_no_field_number_has_two_meanings_for_a_state() -> None:
    # the numbers of the states and outcomes stand in the database too
    from taskq.v1 import audit_pb2, bulk_operation_pb2, event_pb2, task_pb2
    from taskq_server.core.bulk_operation import OperationState
    from taskq_server.core.event import Topic
    from taskq_server.core.origin import Source
    from taskq_server.core.recurring import FiringOutcome
    from taskq_server.core.schedule import CatchUp, Dst, DstPolicy, Overlap
    from taskq_server.core.task import DedupConflict, DedupHold, EndStatus, EnqueueOutcome, TaskState

    for ours, theirs, prefix in (
        (TaskState, task_pb2.TaskState, "TASK_STATE_"),
        (DedupConflict, scheduler_service_pb2.DedupConflict, "DEDUP_CONFLICT_"),
        (DedupHold, scheduler_service_pb2.DedupHold, "DEDUP_HOLD_"),
        (EnqueueOutcome, scheduler_service_pb2.EnqueueOutcome, "ENQUEUE_OUTCOME_"),
        (DstPolicy, schedule_service_pb2.DstPolicy, "DST_POLICY_"),
        (Overlap, schedule_service_pb2.Overlap, "OVERLAP_"),
        (CatchUp, schedule_service_pb2.CatchUp, "CATCH_UP_"),
        (FiringOutcome, schedule_service_pb2.FiringOutcome, "FIRING_OUTCOME_"),
        (Dst, schedule_service_pb2.DstMark, "DST_MARK_"),
        (OperationState, bulk_operation_pb2.BulkOperationState, "BULK_OPERATION_STATE_"),
        (Source, audit_pb2.AuditSource, "AUDIT_SOURCE_"),
        (Topic, event_pb2.EventTopic, "EVENT_TOPIC_"),
        (EndStatus, processor_service_pb2.ReportStatus, "REPORT_STATUS_"),
    ):
        assert {f"{prefix}{one.name}": one.value for one in ours} | {f"{prefix}UNSPECIFIED": 0} == dict(theirs.items())
