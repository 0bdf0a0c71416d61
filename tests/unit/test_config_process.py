"""`python -m taskq_server` as a program: what it prints, how it stops, and what its exit code says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq.v1 import processor_service_pb2_grpc, scheduler_service_pb2_grpc
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from tests.support.authority import Authority
from tests.support.process import ROOT, ServerProcess


def run(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A server that is to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "taskq_server", *flags],
        capture_output=True, text=True, timeout=60, cwd=ROOT,
        env={**os.environ, "TASKQ_HTTP_LISTEN": "", **environment}, check=False,
    )  # fmt: skip


def test_wrong_settings_are_all_told_and_exit_2() -> None:
    ended = run("--listen=nowhere", "--bogus", TASKQ_RETENTION="soon", TASKQ_LEASE_DURATION="0s")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("taskq server: wrong settings:\n")
    for word in ("TASKQ_LISTEN", "--bogus", "TASKQ_RETENTION", "TASKQ_LEASE_DURATION"):
        assert word in ended.stderr
    assert "Traceback" not in ended.stderr


def test_help_exits_0() -> None:
    ended = run("--help")
    assert ended.returncode == 0
    assert "--listen" in ended.stdout


def test_a_database_in_use_exits_75_and_names_its_holder(server_process: ServerProcess) -> None:
    ended = run("--listen=127.0.0.1:0", TASKQ_DATABASE_URL=server_process.database_url)
    assert ended.returncode == 75
    assert f"pid {server_process.pid}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert server_process.stop() == 0


def test_a_server_prints_where_it_answers_http_and_another_that_wants_the_same_says_which_setting(
    tmp_path: Path,
) -> None:
    server = ServerProcess(f"sqlite:///{tmp_path}/taskq.db", http_listen="127.0.0.1:0")
    with server.log:
        server.start()
        try:
            with urllib.request.urlopen(f"http://{server.http_address}/readyz", timeout=20) as ready:
                assert ready.status == 200
            ended = run(
                "--listen=127.0.0.1:0",
                f"--http-listen={server.http_address}",
                TASKQ_DATABASE_URL=f"sqlite:///{tmp_path}/other.db",
            )
            assert ended.returncode == 75
            assert f"{server.http_address} cannot be listened on" in ended.stderr
            assert "TASKQ_HTTP_LISTEN" in ended.stderr and "Traceback" not in ended.stderr
            assert server.stop() == 0
        finally:
            server.kill()


def test_a_server_prints_where_it_takes_tokens_without_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.signs("server")
    server = ServerProcess(
        f"sqlite:///{tmp_path}/taskq.db", token_listen="127.0.0.1:0", http_listen="127.0.0.1:0", tls_cert=pair.cert,
        tls_key=pair.key, tls_client_ca=authority.ca, tls_client_auth="require",
    )  # fmt: skip
    with server.log:
        server.start()
        try:
            assert len({server.address, server.token_address, server.http_address}) == 3
            trusted = grpc.ssl_channel_credentials(Path(authority.ca).read_bytes())
            with grpc.secure_channel(server.token_address, trusted) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                told = health.Check(health_pb2.HealthCheckRequest(), timeout=20, wait_for_ready=True)
            assert told.status == health_pb2.HealthCheckResponse.SERVING
            assert server.stop() == 0
            [started] = [json.loads(line) for line in server.read_log().splitlines() if '"server started"' in line]
            assert (started["address"], started["token_address"]) == (server.address, server.token_address)
        finally:
            server.kill()


def test_an_address_in_use_exits_75_and_the_server_that_has_it_goes_on(
    server_process: ServerProcess, tmp_path: Path
) -> None:
    ended = run(f"--listen={server_process.address}", TASKQ_DATABASE_URL=f"sqlite:///{tmp_path}/other.db")
    assert ended.returncode == 75
    assert f"taskq server: {server_process.address} cannot be listened on" in ended.stderr
    assert "listens on" not in ended.stdout
    assert "Traceback" not in ended.stderr
    assert server_process.stop() == 0


@pytest.mark.parametrize("content", [b"this is no database, but it is long enough to be read as one" * 20, None])
def test_a_database_that_must_not_be_used_exits_78(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "taskq.db"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    ended = run("--listen=127.0.0.1:0", TASKQ_DATABASE_URL=f"sqlite:///{path}")
    assert ended.returncode == 78
    assert str(path) in ended.stderr
    assert "Traceback" not in ended.stderr
    if content is not None:
        assert path.read_bytes() == content


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_streams_are_open_ends_them_and_exits_0(
    server_process: ServerProcess, number: signal.Signals
) -> None:
    host, _, port = server_process.address.rpartition(":")
    assert host == "127.0.0.1" and int(port) > 0, "port 0 takes a free one, and the bound address is printed"
    async with grpc.aio.insecure_channel(server_process.address) as channel:
        processor = processor_service_pb2_grpc.ProcessorServiceStub(channel)
        scheduler = scheduler_service_pb2_grpc.SchedulerServiceStub(channel)
        registered = await processor.Register(
            processor_pb2.RegisterRequest(
                processor_name="oven", capabilities=[processor_pb2.Capability(name="cook")], max_in_flight=1
            )
        )
        streams = [processor.StreamTasks(processor_pb2.StreamTasksRequest(session_id=registered.session_id))]
        await streams[0].read()
        delayed = scheduler_pb2.NewTask(name="cook")
        delayed.delay.seconds = 60
        enqueued = await scheduler.Enqueue(scheduler_pb2.EnqueueRequest(tasks=[delayed]))
        streams.append(scheduler.WatchTask(scheduler_pb2.WatchTaskRequest(task_id=enqueued.results[0].task_id)))
        await streams[1].read()

        server_process.signal(number)
        code = await asyncio.to_thread(server_process.wait, 20)  # the grace; streams end at once
        assert code == 0, server_process.read_log()
        assert (await streams[0].read()).HasField("drain")
        assert await streams[1].code() == grpc.StatusCode.UNAVAILABLE


def test_a_server_logs_json_lines_when_nobody_looks_and_no_secrets(server_process: ServerProcess) -> None:
    server_process.stop()
    lines = [line for line in server_process.read_log().splitlines() if line]
    assert lines
    assert all(line.startswith("{") and '"event"' in line for line in lines), lines
