"""`--grpcurl` prints the same call for grpcurl; what it prints is run."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from taskq_server.server import Server
from tests.clients.command_support import Taskq
from tests.support import grpcurl


@pytest.fixture
def taskq(quiet_server: None, server: Server) -> Taskq:
    return Taskq(server.address)


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return grpcurl.find()
    except grpcurl.NoGrpcurl as why:
        pytest.skip(f"GRPCURL IS NOT TESTED: {why}")


async def printed(taskq: Taskq, *words: str) -> str:
    ended = await taskq(*words, "--grpcurl")
    assert ended.code == 0 and ended.err == "", ended
    return ended.out.strip()


async def run(line: str, program: Path) -> Any:
    """Runs it in a shell, as who has copied it."""
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    ended = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", line], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("note", ["it's", '"quoted" $HOME `id` \\', "Küche\nund Herd"])
async def test_grpcurl_does_what_is_printed_whatever_stands_in_it(taskq: Taskq, program: Path, note: str) -> None:
    line = await printed(taskq, "task", "enqueue", "greet", "--header", f"note={note}", "--delay", "1h")

    answer = await run(line, program)
    (result,) = answer["results"]
    assert result["outcome"] == "ENQUEUE_OUTCOME_CREATED"
    cancelled = await run(await printed(taskq, "task", "cancel", result["taskId"]), program)
    assert cancelled["task"]["state"] == "TASK_STATE_CANCELLED"
    assert cancelled["task"]["headers"] == {"note": note}


@pytest.mark.parametrize(
    "words",
    [
        ("capability", "pause", "cook", "--reason", "mended"),
        ("capability", "list"),
        ("processor", "list"),
        ("schedule", "create", "breakfast", "--task", "cook", "--cron", "0 9 * * MON-FRI", "--tz", "Europe/Paris"),
        ("schedule", "next", "--every", "10m"),
        ("server-info",),
    ],
    ids=" ".join,
)
async def test_grpcurl_understands_every_call(taskq: Taskq, program: Path, words: tuple[str, ...]) -> None:
    assert isinstance(await run(await printed(taskq, *words), program), dict)


async def test_nothing_is_done_and_nobody_is_asked(taskq: Taskq) -> None:
    await printed(taskq, "schedule", "create", "breakfast", "--task", "cook", "--every", "1h")
    assert (await taskq("schedule", "list")).out == ""
    line = await printed(taskq, "task", "delete", "--filter", "is:finished")
    assert "taskq.v1.AdminService/StartBulkOperation" in line


async def test_a_token_never_stands_in_it_and_tls_does(taskq: Taskq) -> None:
    hidden = await printed(taskq, "server-info", "--token", "tq_secret")
    assert "tq_secret" not in hidden and '-H "authorization: Bearer $TASKQ_TOKEN"' in hidden

    kept = await printed(taskq, "server-info", "--token-file", "my token")
    assert "-H \"authorization: Bearer $(cat 'my token')\"" in kept

    flags = ["--tls-ca", "ca.pem", "--tls-cert", "me.pem", "--tls-key", "me.key", "--tls-server-name", "queue"]
    words = shlex.split(await printed(taskq, "server-info", *flags, "--address", "10.0.0.1:50051,10.0.0.2:50051"))
    tls = ["-cacert", "ca.pem", "-cert", "me.pem", "-key", "me.key", "-authority", "queue"]
    target = ["10.0.0.1:50051", "taskq.v1.AdminService/GetServerInfo"]
    assert words == ["grpcurl", *tls, "-d", "{}", *target]
