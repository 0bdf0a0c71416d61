"""Those who take part, each a process: servers, and roles that say when they are ready, wait for `go`, and answer.

A role says lines of JSON; the last of them is its answer. It ends when it has done its part, or its input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks import machine
from benchmarks.database import ROOT
from processor_client import Context, Processor
from scheduler_client import Scheduler, new_task

PAYLOAD = bytes(100)
CONCURRENCY = 4_000
"""Of all processors of a role together."""
TELL_SECONDS = 0.02
ANSWER_SECONDS = 1_200


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    address: str
    pid: int


@contextmanager
def serving(url: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "taskq_server", "--listen=127.0.0.1:0", "--log-level=error"]
    environment = {**os.environ, "TASKQ_DATABASE_URL": url}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT)
    assert process.stdout is not None
    try:
        yield Server(process.stdout.readline().split()[-1].decode(), process.pid)
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

    def answer(self) -> dict[str, Any]:
        if self._process.wait(ANSWER_SECONDS) != 0:
            raise RuntimeError(f"{self._name} failed")
        self._listener.join()
        return self.said


def until_done(processors: list[Role], tasks: int) -> None:
    """Returns when together they have run so many, and stops them."""
    while sum(role.said.get("done", 0) for role in processors) < tasks:
        time.sleep(TELL_SECONDS / 4)
    for role in processors:
        role.stop()


async def produce(address: str, tasks: int) -> dict[str, Any]:
    """Enqueues as fast as it can."""
    async with Scheduler(address) as scheduler:
        await scheduler.enqueue("bench.warm", PAYLOAD)
        await _ready()
        started = time.time()
        await scheduler.enqueue_many(new_task("bench.noop", PAYLOAD) for _ in range(tasks))
        return {"started": started, "ended": time.time()}


async def process(address: str, tasks: int | None = None, processors: int = 1) -> dict[str, Any]:
    """Runs no-op handlers until every result has been accepted: of so many, or of as many as came before its end."""
    done, last, enough = 0, 0.0, asyncio.Event()

    async def noop() -> None:
        nonlocal done, last
        done, last = done + 1, time.time()
        if done == tasks:
            enough.set()

    crew = [Processor(address, concurrency=CONCURRENCY // processors, name=f"bench{i}") for i in range(processors)]
    for processor in crew:
        processor.task("bench.noop")(noop)
    stopped = asyncio.create_task((await _ready()).read())
    ends = {stopped, asyncio.create_task(enough.wait())}
    started = time.time()
    await asyncio.gather(*(processor.start() for processor in crew))
    while not (await asyncio.wait(ends, timeout=TELL_SECONDS, return_when=asyncio.FIRST_COMPLETED))[0]:
        _say({"done": done})
    await asyncio.gather(*(processor.stop() for processor in crew))  # has flushed the reports
    return {"started": started, "last": last, "ended": time.time(), "done": done}


async def time_later(address: str, tasks: int, per_second: int) -> dict[str, Any]:
    """Enqueues tasks that are due at given instants; how late each was started."""
    late: list[float] = []
    processor = Processor(address, concurrency=CONCURRENCY, name="bench")

    @processor.task("bench.later")
    async def later(ctx: Context) -> None:
        late.append(time.time() - ctx.due_time.timestamp())

    await _ready()
    async with Scheduler(address) as scheduler, processor:
        due = time.time() + 2
        await scheduler.enqueue_many(new_task("bench.later", {}, at=due + i / per_second) for i in range(tasks))
        while len(late) < tasks:
            await asyncio.sleep(0.05)
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
