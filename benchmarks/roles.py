"""Those who take part, each a process: servers, and roles that say when they are ready, wait for `go`, and answer.

A role says lines of JSON; the last of them is its answer. It ends when it has done its part, or its input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks import machine
from benchmarks.database import ROOT
from benchmarks.wire import PLAINTEXT, Wire
from processor_client import Context, Processor
from scheduler_client import Scheduler, new_task

PAYLOAD = bytes(100)
SEED = 1
"""Of payloads that are no such zeros: they must not be made smaller by a database that compresses."""
CONCURRENCY = 4_000
"""Of all processors of a role together."""
TELL_SECONDS = 0.02
ANSWER_SECONDS = 1_200


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    address: str
    pid: int
    wire: Wire = PLAINTEXT


@contextmanager
def serving(url: str, program: str = "taskq_server", wire: Wire = PLAINTEXT) -> Iterator[Server]:
    """A server, or a `program` that becomes one."""
    command = [sys.executable, "-m", program, "--listen=127.0.0.1:0", "--log-level=error"]
    environment = {**os.environ, "TASKQ_DATABASE_URL": url, "TASKQ_HTTP_LISTEN": "", **wire.server}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT)
    assert process.stdout is not None
    try:
        yield Server(process.stdout.readline().split()[-1].decode(), process.pid, wire)
    finally:
        process.terminate()
        process.communicate(timeout=30)


class Role:
    """One of the functions below, in a process of its own, with what it is to be told; or another program's that speaks
    as they do."""

    def __init__(
        self,
        name: str,
        *where: str,
        program: Sequence[str] = (sys.executable, "-m", "benchmarks.roles"),
        environment: Mapping[str, str] | None = None,
        **given: Any,
    ) -> None:
        command = [*program, name, *where, json.dumps(given)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment, text=True
        )
        assert self._process.stdout is not None
        self._name = name
        self.pid = self._process.pid
        self.said: dict[str, Any] = {}
        """What it has said last."""
        assert self._process.stdout.readline() == "ready\n", f"{name} did not get ready"
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said = json.loads(line)

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """If it has not ended, it does now."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """It is to end by itself, now."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def cpu_seconds(self) -> float:
        """What it has cost up to now, while it lives."""
        return machine.cpu_seconds(self._process.pid)

    def check(self) -> None:
        """RuntimeError when it has failed."""
        if self._process.poll():
            raise RuntimeError(f"{self._name} failed")

    def answer(self) -> dict[str, Any]:
        self._process.wait(ANSWER_SECONDS)
        self.check()
        self._listener.join()
        return self.said


def until(over: Callable[[], bool], roles: Sequence[Role]) -> None:
    """Returns when it is over; RuntimeError when one of those who work at it has failed."""
    while not over():
        time.sleep(TELL_SECONDS / 4)
        for role in roles:
            role.check()


def all_registered(processors: Sequence[Role]) -> bool:
    """Whether all processors of these roles are."""
    return all("done" in role.said for role in processors)


def done(processors: Sequence[Role]) -> int:
    """How many tasks they have run together."""
    return sum(role.said.get("done", 0) for role in processors)


async def produce(address: str, tasks: int, names: int = 1, payload_bytes: int | None = None) -> dict[str, Any]:
    """Enqueues as fast as it can, of so many names in turn."""
    named, payload = _names("bench.noop", names), _payload(payload_bytes)
    async with Scheduler(address) as scheduler:
        await scheduler.enqueue("bench.warm", PAYLOAD)
        await _ready()
        started = time.time()
        await scheduler.enqueue_many(new_task(named[i % names], payload) for i in range(tasks))
        return {"started": started, "ended": time.time()}


async def process(address: str, tasks: int | None = None, processors: int = 1, names: int = 1) -> dict[str, Any]:
    """Runs no-op handlers until every result has been accepted: of so many, or of as many as came before its end."""
    done, last, enough = 0, 0.0, asyncio.Event()

    async def noop() -> None:
        nonlocal done, last
        done, last = done + 1, time.time()
        if done == tasks:
            enough.set()

    crew = _crew(address, processors, _names("bench.noop", names), noop)
    stopped = asyncio.create_task((await _ready()).read())
    ends = {stopped, asyncio.create_task(enough.wait())}
    started = time.time()
    async with _at_work(crew):  # which flushes the reports in the end
        while not (await asyncio.wait(ends, timeout=TELL_SECONDS, return_when=asyncio.FIRST_COMPLETED))[0]:
            _say({"done": done})
    return {"started": started, "last": last, "ended": time.time(), "done": done}


async def time_later(
    address: str,
    tasks: int,
    per_second: int,
    processors: int = 1,
    names: int = 1,
    payload_bytes: int | None = None,
    ahead_seconds: float = 2,
) -> dict[str, Any]:
    """Enqueues tasks that are due at given instants, the first so long after the first enqueue; how late each was
    started."""
    late: list[float] = []

    async def later(ctx: Context) -> None:
        late.append(time.time() - ctx.due_time.timestamp())

    named, payload = _names("bench.later", names), _payload(payload_bytes)
    crew = _crew(address, processors, named, later)
    await _ready()
    async with Scheduler(address) as scheduler, _at_work(crew):
        due = time.time() + ahead_seconds
        await scheduler.enqueue_many(new_task(named[i % names], payload, at=due + i / per_second) for i in range(tasks))
        enqueued = time.time()
        while len(late) < tasks:
            await asyncio.sleep(0.05)
    if enqueued > due:
        raise RuntimeError(f"enqueued {enqueued - due:.1f} s after the first was due; must be enqueued before")
    return {"seconds": late}


async def time_starts(address: str, tasks: int, per_second: int) -> dict[str, Any]:
    """Enqueues at a steady rate what is due at once; when each was sent, and how long after that it was started."""
    sent_at: list[float] = []
    starts: list[float] = []
    processor = Processor(address, concurrency=CONCURRENCY, name="bench")

    @processor.task("bench.now")
    async def now(sent: float) -> None:
        sent_at.append(sent)
        starts.append(time.time() - sent)

    await _ready()
    async with Scheduler(address) as scheduler, processor:
        begun, waiting = time.time(), set()
        for i in range(tasks):
            await asyncio.sleep(max(0.0, begun + i / per_second - time.time()))
            enqueued = asyncio.create_task(scheduler.enqueue("bench.now", {"sent": time.time()}))
            waiting.add(enqueued)
            enqueued.add_done_callback(waiting.discard)
        await asyncio.gather(*waiting)
        while len(starts) < tasks:
            await asyncio.sleep(0.05)
    return {"sent": sent_at, "seconds": starts}


ROLES: dict[str, Callable[..., Coroutine[Any, Any, dict[str, Any]]]] = {
    "produce": produce,
    "process": process,
    "time_later": time_later,
    "time_starts": time_starts,
}


def _names(name: str, many: int) -> list[str]:
    return [name] if many == 1 else [f"{name}{i}" for i in range(many)]


def _payload(many_bytes: int | None) -> bytes:
    return PAYLOAD if many_bytes is None else random.Random(SEED).randbytes(many_bytes)


def _crew(address: str, many: int, names: Sequence[str], handler: Callable[..., Any]) -> list[Processor]:
    """Processors that share what a role may hold at a time."""
    crew = [Processor(address, concurrency=CONCURRENCY // many, name=f"bench{i}") for i in range(many)]
    for processor in crew:
        for name in names:
            processor.task(name)(handler)
    return crew


@asynccontextmanager
async def _at_work(crew: Sequence[Processor]) -> AsyncIterator[None]:
    """All of them from their start to their stop, at once."""
    await asyncio.gather(*(processor.start() for processor in crew))
    yield
    await asyncio.gather(*(processor.stop() for processor in crew))


async def _ready() -> asyncio.StreamReader:
    """Waits for `go`, from which on its costs count; answers where `stop` would come from: the end of the input."""
    global _cpu_seconds_before
    told = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    print("ready", flush=True)
    await told.readline()
    _cpu_seconds_before = machine.cpu_seconds(os.getpid())
    return told


_cpu_seconds_before = 0.0


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    name, address, given = sys.argv[1:]
    answer = asyncio.run(ROLES[name](address, **json.loads(given)))
    _say({**answer, "cpu_seconds": machine.cpu_seconds(os.getpid()) - _cpu_seconds_before})


if __name__ == "__main__":
    main()
