"""API tokens with real processes: made and revoked by the command beside a server, and never seen anywhere."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq.v1 import processor_service_pb2_grpc, scheduler_service_pb2_grpc
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from tests.support import truth
from tests.support.process import ROOT, ServerProcess
from tests.support.raw import a_task, connected

CLOSED_SECONDS = 5
CALL_SECONDS = 20

Metadata = tuple[tuple[str, str], ...]


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/taskq.db"
    return request.getfixturevalue("postgres_url")  # type: ignore[no-any-return]


class Site:
    """A server at which callers must show who they are, and an operator beside it."""

    def __init__(self, server: ServerProcess, database_url: str) -> None:
        self.server = server
        self.database_url = database_url
        self.said: list[str] = []
        """All that the command has written, but for the new tokens themselves."""
        self.seen: list[bytes] = []
        """The command lines of all processes, whenever somebody looked."""

    def command(self, *arguments: str) -> str:
        environment = {**os.environ, "TASKQ_DATABASE_URL": self.database_url}
        command = [sys.executable, "-m", "taskq_server.tokens", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=60)
        assert done.returncode == 0, done.stderr
        self.said.append(done.stderr)
        if arguments[0] != "create":
            self.said.append(done.stdout)
        return done.stdout.strip()

    def look_at_processes(self) -> None:
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has ended
                self.seen.append(process.read_bytes())


@pytest.fixture
def site(database_url: str) -> Iterator[Site]:
    server = ServerProcess(database_url, auth="required", log_level="debug", log_format="json")
    with server.log:
        server.start()
        yield Site(server, database_url)
        server.kill()


def showing(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


def enqueue(channel: grpc.Channel, metadata: Metadata) -> str:
    """The id of a new task."""
    stub = scheduler_service_pb2_grpc.SchedulerServiceStub(channel)
    request = scheduler_pb2.EnqueueRequest(tasks=[a_task("bake")])
    return str(stub.Enqueue(request, metadata=metadata, timeout=CALL_SECONDS).results[0].task_id)


def test_a_revoked_token_ends_open_streams_within_seconds(site: Site) -> None:
    # given streams that are open, with a token that was made beside the server
    token = site.command("create", "kitchen", "--right=process:*", "--right=enqueue:*")
    shown = showing(token)
    with connected(site.server.address) as channel:
        watched = scheduler_pb2.WatchTaskRequest(task_id=enqueue(channel, shown))
        watch = scheduler_service_pb2_grpc.SchedulerServiceStub(channel).WatchTask(watched, metadata=shown)
        processors = processor_service_pb2_grpc.ProcessorServiceStub(channel)
        capabilities = [processor_pb2.Capability(name="cook")]
        registration = processor_pb2.RegisterRequest(processor_name="oven", max_in_flight=1, capabilities=capabilities)
        session_id = processors.Register(registration, metadata=shown, timeout=CALL_SECONDS).session_id
        stream = processors.StreamTasks(processor_pb2.StreamTasksRequest(session_id=session_id), metadata=shown)
        next(watch), next(stream)

        # when it is revoked
        began = time.monotonic()
        site.command("revoke", token[:15])

        # then they end, and nothing more can be called
        for call in (watch, stream):
            with pytest.raises(grpc.RpcError):
                for _ in call:
                    pass
            assert call.code() is grpc.StatusCode.UNAUTHENTICATED
        assert time.monotonic() - began < CLOSED_SECONDS
        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            enqueue(channel, shown)


def test_a_token_is_never_in_logs_errors_process_lists_or_the_database(site: Site, tmp_path: Path) -> None:
    # given a token that is used, well and badly, and revoked
    token = site.command("create", "kitchen", "--right=enqueue:bake")
    secret, errors = token[16:59], []
    other = site.command("create", "other", "--right=read")
    wrong = [
        showing(token[:-1]), showing(token + "x"), showing(f" {token} {token}"), showing(other[:15] + token[15:]),
        (("authorization", token),), (("authorization", f"Basic {token}"),), (("x-token", token),), showing(other),
    ]  # fmt: skip
    with connected(site.server.address) as channel:
        assert enqueue(channel, showing(token))
        site.look_at_processes()
        for metadata in wrong:
            with pytest.raises(grpc.RpcError) as caught:
                enqueue(channel, metadata)
            errors.append(str(caught.value) + repr(caught.value.trailing_metadata()))  # type: ignore[attr-defined]
        malformed = channel.unary_unary("/taskq.v1.SchedulerService/Enqueue")
        for data in (b"\xff", b""):
            with pytest.raises(grpc.RpcError) as caught:
                malformed(data, metadata=showing(token), timeout=CALL_SECONDS)
            errors.append(str(caught.value))
        site.command("list", "--all")
        site.command("revoke", token[:15])
        site.look_at_processes()
        with pytest.raises(grpc.RpcError, match=f"{token[:15]} is not known here"):
            enqueue(channel, showing(token))
    kept = site.server.read_log()
    tables = whole_database(site.database_url)
    assert site.server.stop() == 0

    # then its secret is in nothing that was written, and the part that is none tells which it was
    written = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    everything = [*errors, *site.said, kept, site.server.read_log(), tables]
    assert token[:15] in kept and token[:15] in tables
    assert not [text for text in everything if secret in text]
    assert not [path for path, data in written.items() if secret.encode() in data]
    assert not [line for line in site.seen if secret.encode() in line]
    assert [line for line in site.seen if b"taskq_server" in line], "the server itself was seen"


def whole_database(url: str) -> str:
    """Every row of every table, those of text as they are."""
    sqlite = "SELECT name FROM sqlite_master WHERE type = 'table'"
    postgres = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'"
    names = [name for (name,) in truth.rows(url, sqlite if url.startswith("sqlite") else postgres)]
    return "\n".join(repr(row) for name in names for row in truth.rows(url, f"SELECT * FROM {name}"))  # noqa: S608
