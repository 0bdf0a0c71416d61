"""The whole path: one producer, one server, one processor with no-op handlers, each a process; fsync on.

`make bench` prints a table; with BENCH_ARGS=--publish it is written to `benchmarks/results/` and `docs/performance.md`.
A figure is the median of several runs, with the smallest and the largest:

    enqueue     tasks/s from the first enqueue to the last answer, with nobody processing
    drain       tasks/s from the processor's start to the last accepted result, with all of them waiting
    lifecycle   tasks/s from the first enqueue to the last accepted result, both at once
    start       milliseconds from just before an enqueue to the start of its handler, at 500 tasks/s
    lateness    milliseconds from due to the start of the handler, for 500 tasks/s due at given instants
    early       handlers that started before their task was due
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from processor_client import Context, Processor
from scheduler_client import Scheduler, new_task

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "lifecycle.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- lifecycle: written by make bench -->", "<!-- /lifecycle -->"
PAYLOAD = bytes(100)
CONCURRENCY = 4_000
TIMED_PER_SECOND = 500
TIMED_SECONDS = 4


@contextmanager
def serving() -> Iterator[tuple[str, int]]:
    """A server on a new file of its own: its address and its process id."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TASKQ_BENCH_FOLDER", "/var/tmp")) as folder:
        command = [sys.executable, "-m", "taskq_server", "--listen=127.0.0.1:0", "--log-level=error"]
        environment = {**os.environ, "TASKQ_DATABASE_URL": f"sqlite:///{folder}/bench.db"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT)
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1].decode(), process.pid
        finally:
            process.terminate()
            process.communicate(timeout=30)


class Role:
    """One of the functions below, in a process of its own: it says when it is ready, waits for `go`, and answers."""

    def __init__(self, name: str, address: str, tasks: int) -> None:
        command = [sys.executable, "-m", "benchmarks.lifecycle", "--role", name, address, str(tasks)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", f"{name} did not get ready"

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        output, _ = self._process.communicate(timeout=600)
        return dict(json.loads(output.splitlines()[-1]))


def play(role: str, address: str, tasks: int) -> None:
    """Runs a role in this process."""
    answer = asyncio.run({"produce": produce, "process": process, "time_starts": time_starts}[role](address, tasks))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({**answer, "cpu_seconds": usage.ru_utime + usage.ru_stime}), flush=True)


async def _ready() -> None:
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def produce(address: str, tasks: int) -> dict[str, Any]:
    """Enqueues as fast as it can."""
    async with Scheduler(address) as scheduler:
        await scheduler.enqueue("bench.warm", PAYLOAD)
        await _ready()
        started = time.time()
        await scheduler.enqueue_many(new_task("bench.noop", PAYLOAD) for _ in range(tasks))
        return {"started": started, "ended": time.time()}


async def process(address: str, tasks: int) -> dict[str, Any]:
    """Runs no-op handlers until every result has been accepted."""
    processor = Processor(address, concurrency=CONCURRENCY, name="bench")
    left, done = tasks, asyncio.Event()

    @processor.task("bench.noop")
    async def noop() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    await _ready()
    started = time.time()
    async with processor:
        await done.wait()
    return {"started": started, "ended": time.time()}  # leaving the block has flushed the reports


async def time_starts(address: str, tasks: int) -> dict[str, Any]:
    """Enqueues at a steady rate, first tasks that are due at once, then tasks that are due at given instants."""
    starts: list[float] = []
    lateness: list[float] = []
    processor = Processor(address, concurrency=CONCURRENCY, name="bench")

    @processor.task("bench.now")
    async def now(sent: float) -> None:
        starts.append(time.time() - sent)

    @processor.task("bench.later")
    async def later(ctx: Context) -> None:
        lateness.append(time.time() - ctx.due_time.timestamp())

    await _ready()
    async with Scheduler(address) as scheduler, processor:
        due = time.time() + 2
        later_tasks = [new_task("bench.later", {}, at=due + i / TIMED_PER_SECOND) for i in range(tasks)]
        await scheduler.enqueue_many(later_tasks)
        while len(lateness) < tasks:
            await asyncio.sleep(0.05)
        begun, waiting = time.time(), set()
        for i in range(tasks):
            await asyncio.sleep(max(0.0, begun + i / TIMED_PER_SECOND - time.time()))
            waiting.add(asyncio.create_task(scheduler.enqueue("bench.now", {"sent": time.time()})))
        await asyncio.gather(*waiting)
        while len(starts) < tasks:
            await asyncio.sleep(0.05)
    return {"starts": starts, "lateness": lateness}


def run_once(tasks: int) -> dict[str, float]:
    """Every figure, once."""
    with serving() as (address, pid):
        figures = _apart(address, tasks) | _together(address, pid, tasks)
    with serving() as (address, _):
        timer = Role("time_starts", address, TIMED_PER_SECOND * TIMED_SECONDS)
        timer.go()
        timed = timer.answer()
    figures["start p50 ms"], figures["start p99 ms"] = _percentiles(timed["starts"])
    figures["lateness p50 ms"], figures["lateness p99 ms"] = _percentiles(timed["lateness"])
    figures["early"] = sum(late < 0 for late in timed["lateness"])
    return figures


def _apart(address: str, tasks: int) -> dict[str, float]:
    producer, processor = Role("produce", address, tasks), Role("process", address, tasks)
    producer.go()
    produced = producer.answer()
    processor.go()
    processed = processor.answer()
    return {
        "enqueue /s": tasks / (produced["ended"] - produced["started"]),
        "drain /s": tasks / (processed["ended"] - processed["started"]),
    }


def _together(address: str, pid: int, tasks: int) -> dict[str, float]:
    producer, processor = Role("produce", address, tasks), Role("process", address, tasks)
    processor.go()
    time.sleep(0.5)  # registered by then; its time does not count
    before = _cpu_seconds(pid)
    producer.go()
    produced, processed = producer.answer(), processor.answer()
    per_1000 = 1000 / tasks
    return {
        "lifecycle /s": tasks / (processed["ended"] - produced["started"]),
        "server CPU s/1000": (_cpu_seconds(pid) - before) * per_1000,
        "producer CPU s/1000": produced["cpu_seconds"] * per_1000,
        "processor CPU s/1000": processed["cpu_seconds"] * per_1000,
        "server peak MiB": _peak_mib(pid),
    }


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return cuts[49] * 1000, cuts[98] * 1000


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--publish", action="store_true", help="keep the figures in benchmarks/results and docs")
    parser.add_argument("--role", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        play(given.role[0], given.role[1], int(given.role[2]))
        return
    runs = [run_once(given.tasks) for _ in range(given.runs)]
    figures = {
        name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
        for name in runs[0]
        if (values := [run[name] for run in runs])
    }
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    versions = {name: version(name) for name in ("grpcio", "protobuf", "sqlalchemy")}
    result = {"tasks": given.tasks, "runs": given.runs, "machine": machine, "versions": versions, "figures": figures}
    print(table(result))
    if not given.publish:
        return
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(result)}\n{END}{rest.partition(END)[2]}")


def table(result: dict[str, Any]) -> str:
    """The figures as docs/performance.md shows them."""
    facts = ", ".join(f"{name} {value}" for name, value in {**result["machine"], **result["versions"]}.items())
    rows = [
        f"SQLite, fsync on; {result['tasks']:,} tasks of {len(PAYLOAD)} bytes a run, {result['runs']} runs; {facts}.",
        "",
        "| figure | median | min | max |",
        "|---|--:|--:|--:|",
    ]
    for name, figure in result["figures"].items():
        digits = 0 if figure["median"] >= 100 else 2
        cells = " | ".join(f"{figure[which]:,.{digits}f}" for which in ("median", "min", "max"))
        rows.append(f"| {name} | {cells} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
