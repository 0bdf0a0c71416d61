"""What systemd is told of a server that it has started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskq_server import notify
from tests.support.process import ROOT

DEADLINE_SECONDS = 30


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """Listens as systemd does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(DEADLINE_SECONDS)
        listening.bind(str(tmp_path / "notify"))
        yield listening


def test_it_is_told_that_the_server_serves_and_that_it_stops(systemd: socket.socket, tmp_path: Path) -> None:
    environment = {**os.environ, "NOTIFY_SOCKET": systemd.getsockname(), "TASKQ_HTTP_LISTEN": ""}
    command = [
        sys.executable,
        "-m",
        "taskq_server",
        "--listen=127.0.0.1:0",
        f"--database-url=sqlite:///{tmp_path}/q.db",
    ]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert systemd.recv(100) == b"READY=1"
            assert "listens on" in server.stdout.readline(), "what was told is so"
            server.send_signal(signal.SIGTERM)
            assert systemd.recv(100) == b"STOPPING=1"
            assert server.wait(DEADLINE_SECONDS) == 0
        finally:
            server.kill()


def test_a_socket_may_be_in_no_file_system() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(DEADLINE_SECONDS)
        listening.bind(f"\0taskq-test-{os.getpid()}")
        notify.tell(notify.READY, {"NOTIFY_SOCKET": f"@taskq-test-{os.getpid()}"})
        assert listening.recv(100) == b"READY=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/notify"}])
def test_where_nobody_listens_nothing_happens(environment: dict[str, str]) -> None:
    notify.tell(notify.READY, environment)
