"""What a server writes to stderr: one fact a line, as JSON, never what a task holds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from taskq.v1 import admin_service_pb2 as admin_pb2
from taskq.v1 import admin_service_pb2_grpc, processor_service_pb2_grpc, scheduler_service_pb2_grpc, task_pb2
from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from tests.support.process import ROOT, ServerProcess
from tests.support.waiting import until

CANARY = "canary-5up-0f-the-day"


def run_with_logs(program: str) -> list[dict[str, object]]:
    """What a program has logged that logs as the server does."""
    begin = "from taskq_server import logs; from taskq_server.config import Config; logs.configure(Config());"
    command = [sys.executable, "-c", begin + program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    return [json.loads(line) for line in ended.stderr.splitlines()]


def test_what_a_library_logs_is_a_line_of_json_too() -> None:
    lines = run_with_logs(
        "import logging, warnings;"
        "logging.getLogger('asyncio').error('lost %s', 'exception');"
        "logging.getLogger('some.library').info('chatter');"
        "warnings.warn('old');"
    )
    assert [line["level"] for line in lines] == ["error", "warning"]
    assert (lines[0]["event"], lines[0]["logger"]) == ("lost exception", "asyncio")
    assert all(line["timestamp"] for line in lines)


def test_a_traceback_is_part_of_its_line_and_shows_no_values() -> None:
    (line,) = run_with_logs(
        "import structlog\n"
        "def fail():\n"
        f"    payload = {CANARY!r}\n"
        "    raise ValueError('bad')\n"
        "try:\n    fail()\n"
        "except ValueError as error:\n    structlog.get_logger('taskq').error('unexpected', exc_info=error)\n"
    )
    assert line["exception"]
    assert CANARY not in json.dumps(line["exception"]).replace(f"payload = {CANARY!r}", "")


@pytest.fixture
def loud(tmp_path: Path) -> ServerProcess:
    return ServerProcess(f"sqlite:///{tmp_path}/taskq.db", log_level="debug", log_format="json", lease_duration="1s")


def test_whatever_happens_to_a_task_nothing_that_it_holds_is_logged(loud: ServerProcess) -> None:
    with loud.log:
        loud.start()
        try:
            _live_through_it_all(loud)
            loud.signal(signal.SIGTERM)
            assert loud.wait() == 0
        finally:
            loud.kill()
        text = loud.read_log()
    lines = [json.loads(line) for line in text.splitlines()]
    assert {"server started", "processor registered", "session ended", "server stopped"} <= {
        line["event"] for line in lines
    }
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)
    assert CANARY not in text


def _live_through_it_all(server: ServerProcess) -> None:
    """A task is enqueued, refused, run, failed, reported wrongly, and its processor dies."""
    with grpc.insecure_channel(server.address) as channel:
        scheduler = scheduler_service_pb2_grpc.SchedulerServiceStub(channel)
        processors = processor_service_pb2_grpc.ProcessorServiceStub(channel)
        admin = admin_service_pb2_grpc.AdminServiceStub(channel)
        held = task_pb2.Payload(data=CANARY.encode(), metadata={"key": CANARY})
        task = scheduler_pb2.NewTask(name="cook", payload=held, headers={"secret": CANARY}, tags=[CANARY])
        task_ids = [scheduler.Enqueue(scheduler_pb2.EnqueueRequest(tasks=[task])).results[0].task_id for _ in range(3)]
        with pytest.raises(grpc.RpcError):
            scheduler.Enqueue(scheduler_pb2.EnqueueRequest(tasks=[scheduler_pb2.NewTask(name=CANARY + "!")]))
        registered = processors.Register(
            processor_pb2.RegisterRequest(
                processor_name="oven", capabilities=[processor_pb2.Capability(name="cook")], max_in_flight=3
            )
        )
        stream = processors.StreamTasks(processor_pb2.StreamTasksRequest(session_id=registered.session_id))
        taken = []
        while len(taken) < len(task_ids):
            taken += next(stream).tasks.tasks
        failed = processor_pb2.Failed(error_type="Burnt", message=CANARY, stack=CANARY)
        results = [
            processor_pb2.TaskResult(
                task_id=taken[0].task_id, attempt=1, succeeded=processor_pb2.Succeeded(result=held)
            ),
            processor_pb2.TaskResult(task_id=taken[1].task_id, attempt=1, failed=failed),
            processor_pb2.TaskResult(task_id=taken[1].task_id, attempt=9, failed=failed),
        ]
        processors.ReportResult(processor_pb2.ReportResultRequest(session_id=registered.session_id, results=results))
        until(lambda: not admin.ListProcessors(admin_pb2.ListProcessorsRequest()).processors, "its session ends")
        stream.cancel()
