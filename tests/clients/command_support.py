"""The `taskq` command as somebody types it, and an AdminService that answers what a test tells it to."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from click.testing import CliRunner
from google.protobuf.message import Message

from admin_client import rpcs
from admin_client.command import main
from taskq.v1 import admin_service_pb2
from tests.clients.scripted_scheduler_service import Refusal
from tests.support.process import ROOT

LIMIT_SECONDS = 60
CTRL_C = "\x03"
SERVICE = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"]


@dataclass(frozen=True)
class Ended:
    """How one run of the command has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class Taskq:
    """The command, with the address of a server, in a thread of this process: as where there is no terminal."""

    def __init__(self, address: str, **environment: str) -> None:
        self.address = address
        self.environment: dict[str, str | None] = {**NOTHING_SET, **NO_PROFILES, "TASKQ_ADDRESS": address}
        self.environment |= environment

    async def __call__(self, *words: str, input: str | None = None) -> Ended:
        return await asyncio.to_thread(self._run, words, input)

    async def table(self, *words: str) -> str:
        """What it shows to people, without colour."""
        ended = await self(*words, "-o", "table")
        assert ended.code == 0, ended.err
        return ended.out

    async def done(self, *words: str) -> Any:
        """Its JSON, once it has succeeded."""
        ended = await self(*words, "--json")
        assert ended.code == 0, ended.err
        return ended.json

    async def fails(self, code: int, *words: str, input: str | None = None) -> str:
        """What it says on stderr; nothing goes to stdout."""
        ended = await self(*words, input=input)
        assert (ended.code, ended.out) == (code, ""), ended
        return ended.err

    def _run(self, words: Sequence[str], input: str | None) -> Ended:
        result = CliRunner().invoke(main, words, input=input, env=self.environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, result.stdout, result.stderr)


NOTHING_SET: dict[str, str | None] = {
    name: None for name in os.environ if name.startswith("TASKQ_") or name in ("NO_COLOR", "FORCE_COLOR", "TRACEPARENT")
}
NO_PROFILES = {"XDG_CONFIG_HOME": "/nonexistent", "XDG_CONFIG_DIRS": "/nonexistent"}


def command_line(*words: str) -> list[str]:
    return [sys.executable, "-m", "admin_client.command", *words]


def own_environment(**more: str) -> dict[str, str]:
    """For a process of its own, wherever that is started."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "generated")])
    kept = {name: value for name, value in os.environ.items() if name not in NOTHING_SET}
    return {**kept, **NO_PROFILES, "PYTHONPATH": path, **more}


async def a_process(*words: str, **more: str) -> asyncio.subprocess.Process:
    """The command in a process of its own, to look on and to send signals to."""
    pipe = asyncio.subprocess.PIPE
    command = command_line(*words)
    return await asyncio.create_subprocess_exec(
        *command, env=own_environment(**more), stdout=pipe, stderr=pipe, preexec_fn=_heed_ctrl_c
    )


def _heed_ctrl_c() -> None:
    """A shell lets what it runs in the background ignore it, and so would what that starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def on_a_terminal(address: str, *words: str, answers: Sequence[tuple[str, str]] = (), **more: str) -> Ended:
    """The command at a terminal 200 columns wide: `answers` are what is typed once something is shown."""
    return await asyncio.to_thread(_on_a_terminal, address, words, answers, more)


def _on_a_terminal(
    address: str, words: Sequence[str], answers: Sequence[tuple[str, str]], more: dict[str, str]
) -> Ended:
    ours, theirs = pty.openpty()
    environment = own_environment(TASKQ_ADDRESS=address, **{"COLUMNS": "200", "TERM": "xterm-256color", **more})
    process = subprocess.Popen(
        command_line(*words), stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
        preexec_fn=_heed_ctrl_c,
    )  # fmt: skip
    os.close(theirs)
    shown, left, deadline = "", list(answers), time.monotonic() + LIMIT_SECONDS
    press_again = deadline
    while time.monotonic() < deadline:
        if time.monotonic() > press_again:  # it came in the instant before the terminal was read, which heeds the next
            process.send_signal(signal.SIGINT)
            press_again += 1
        if left and left[0][0] in shown:
            typed = left.pop(0)[1]
            if typed == CTRL_C:  # a terminal of nobody's session makes no signal of it
                process.send_signal(signal.SIGINT)
                press_again = time.monotonic() + 1
            else:
                os.write(ours, typed.encode())
        if select.select([ours], [], [], 0.05)[0]:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not piece:
                break
            shown += piece.decode()
    os.close(ours)
    if process.poll() is None and time.monotonic() >= deadline:
        process.kill()
    return Ended(process.wait(LIMIT_SECONDS), shown.replace("\r\n", "\n"), "")


def without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


Answer = Message | Refusal | Callable[[Any], Any]


@dataclass
class ScriptedAdmin:
    """An AdminService: answers each request by its kind, several of a kind one after the other, the last for ever."""

    answers: dict[type[Message], list[Answer]] = field(default_factory=dict)
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)

    def on(self, kind: type[Message], *answers: Answer) -> None:
        self.answers[kind] = list(answers)

    def asked(self, kind: type[Message]) -> list[Any]:
        """The requests of this kind, in their order."""
        return [request for request in self.requests if isinstance(request, kind)]

    async def _answer(self, request: Any, context: Any) -> Message:
        self.requests.append(request)
        self.metadata.append({key: value for key, value in context.invocation_metadata() if isinstance(value, str)})
        known = self.answers[type(request)]
        answer = known.pop(0) if len(known) > 1 else known[0]
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, Refusal):
            await context.abort_with_status(answer.status)
        assert isinstance(answer, Message)
        return answer


@asynccontextmanager
async def serving_admin(service: ScriptedAdmin) -> AsyncIterator[str]:
    """Serves it, and answers its address."""
    from google.protobuf import message_factory

    handlers = {}
    for method in SERVICE.methods:
        kind = message_factory.GetMessageClass(method.input_type)
        rpc = rpcs.of(kind())
        if not rpc.is_stream:
            handlers[method.name] = grpc.unary_unary_rpc_method_handler(
                service._answer, kind.FromString, rpc.answer.SerializeToString
            )
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
