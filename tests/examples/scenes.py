"""What stands around the commands of a page while they are typed: a server, what it holds, who works for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.protobuf.duration_pb2 import Duration

from taskq.v1.scheduler_service_pb2 import EnqueueRequest, NewTask
from taskq.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from tests.examples.terminal import LIMIT_SECONDS, Terminal
from tests.packaging.machines import COMPOSE
from tests.support.process import ROOT, ServerProcess

OVEN = """
import time
from processor_client import Processor
processor = Processor(name="oven-1", concurrency=8)

@processor.task("cook.pasta")
def cook():
    time.sleep(600)

processor.run()
"""


@dataclass(frozen=True)
class Stage:
    terminal: Terminal
    server: ServerProcess
    """One that all may use, and that holds nothing of which a page speaks."""
    postgres_url: Callable[[], str]
    """An empty database of its own."""


Scene = Callable[[Stage], AbstractContextManager[None]]


@contextmanager
def nothing(stage: Stage) -> Iterator[None]:
    """The page starts what it needs."""
    yield


@contextmanager
def a_server(stage: Stage) -> Iterator[None]:
    stage.terminal.finds(stage.server.address, stage.server.http_address)
    yield


@contextmanager
def a_token(stage: Stage) -> Iterator[None]:
    """The page tells one that it has made."""
    stage.terminal.others["revoke tq_b8087e8866b8"] = "revoke $(taskq token list | awk 'END {print $1}')"
    yield


@contextmanager
def a_first_task_and_a_profile(stage: Stage) -> Iterator[None]:
    _said(stage.terminal, ["taskq", "config", "set", "staging", f"--address={stage.server.address}"])
    stage.terminal.others["TASK_ID"] = "$(taskq task list -o name | head -n 1)"
    yield


@contextmanager
def a_stack_of_compose(stage: Stage) -> Iterator[None]:
    """Its server and one of its processors with their settings, without containers: all certificates in one folder."""
    terminal, services = stage.terminal, COMPOSE["services"]
    certs = terminal.folder / "volume"
    terminal.environment["COMPOSE_CERTS"] = str(certs)
    _said(terminal, ["taskq", "certs", "init", str(certs)])

    def settings(service: str) -> dict[str, str]:
        said: dict[str, str] = services[service]["environment"]
        files = {name: str(certs / Path(value).name) for name, value in said.items() if value.startswith("/certs/")}
        return said | files

    state = terminal.folder / "state" / "taskq"
    state.mkdir(parents=True)
    its_own = {name.removeprefix("TASKQ_").lower(): value for name, value in settings("server").items()}
    server = ServerProcess(f"sqlite:///{state}/taskq.db", http_listen="127.0.0.1:0", **its_own)
    with ExitStack() as ends:
        ends.enter_context(server.log)
        server.start()
        ends.callback(server.kill)
        terminal.finds(f"localhost:{server.address.rpartition(':')[2]}", server.http_address)
        processor = subprocess.Popen(
            [sys.executable, *services["processor"]["command"][1:]],
            cwd=ROOT,
            env={**os.environ, **settings("processor"), "TASKQ_ADDRESS": terminal.address},
            stdout=subprocess.DEVNULL,
        )
        ends.callback(processor.wait, LIMIT_SECONDS)
        ends.callback(processor.terminate)
        yield


@contextmanager
def a_restaurant(stage: Stage) -> Iterator[None]:
    """On PostgreSQL, where the page starts its server; then an oven that is full, and what waits for it."""
    terminal = stage.terminal
    terminal.others["postgresql://taskq@db.example/taskq"] = stage.postgres_url()
    ovens: list[subprocess.Popen[bytes]] = []

    def furnish() -> None:
        now, later = NewTask(name="cook.pasta"), NewTask(name="cook.pasta", delay=Duration(seconds=3600))
        with grpc.insecure_channel(terminal.address) as channel:
            for tasks in ([now] * 20, [later] * 1000):
                SchedulerServiceStub(channel).Enqueue(EnqueueRequest(tasks=tasks), timeout=LIMIT_SECONDS)
        environment = {**os.environ, "TASKQ_ADDRESS": terminal.address}
        ovens.append(subprocess.Popen([sys.executable, "-c", OVEN], cwd=ROOT, env=environment))
        listed = ["taskq", "processor", "list", "-o", "json", f"--address={terminal.address}"]
        ends = time.monotonic() + LIMIT_SECONDS
        while '"inFlight": 8' not in (said := _said(terminal, listed)):
            assert time.monotonic() < ends, said
            time.sleep(0.1)
        terminal.others["019abc…"] = re.findall(r'"sessionId": "(.*?)"', said)[0]

    terminal.on_start = furnish
    try:
        yield
    finally:
        for oven in ovens:
            oven.kill()
            oven.wait()


def _said(terminal: Terminal, command: list[str]) -> str:
    path = shutil.which(command[0], path=terminal.environment["PATH"])
    assert path is not None
    done = subprocess.run([path, *command[1:]], env=terminal.environment, capture_output=True, text=True, check=True)
    return done.stdout


@contextmanager
def a_processor_of_mine(stage: Stage) -> Iterator[None]:
    """The kit needs minutes for all of its promises; here it looks for one."""
    program = stage.terminal.folder / "my-processor"
    program.write_text(f"#!/bin/bash\ncd {ROOT} && exec {sys.executable} -m examples.clients.python.processor\n")
    program.chmod(0o755)
    stage.terminal.others['--command "./my-processor"'] = '--command "./my-processor" --only echo'
    yield
