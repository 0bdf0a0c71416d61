"""How late schedules fire, and what they cost when they do not.

`make bench-schedules`, or with DATABASE=postgres on PostgreSQL, takes about four minutes.

    lateness     from when a firing is due to when its processor has it, by the clock of this machine
    at once      many schedules that are due in the same instant: when the last of them has arrived
    idle         the server's CPU, its memory and the statements it runs, with many schedules that fire in years

The processor is one stream in this process, which reports at once what it gets.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import grpc

from benchmarks import command, machine
from benchmarks.database import Cluster, Database, opened
from benchmarks.flow import spent
from benchmarks.roles import serving
from benchmarks.statements import LOGGED, counted
from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq.v1 import processor_service_pb2_grpc, schedule_service_pb2_grpc
from taskq.v1 import schedule_service_pb2 as schedule_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server.store import schema

OPTIONS = [("grpc.max_receive_message_length", 64 << 20)]
CREATE_AT_ONCE = 50
IDLE_SECONDS = 30
NEW_IN_EACH = ("schedule_seq", "schedule_id", "name")
NEW_ON_SQLITE, NEW_ON_POSTGRES = "randomblob(16)", "decode(md5(n::text), 'hex')"
SETTLE_SECONDS = 5


def a_schedule(name: str, seconds: int, phase_ms: int = 0, **fields: Any) -> schedule_pb2.Schedule:
    schedule = schedule_pb2.Schedule(name=name, task=scheduler_pb2.NewTask(name="bench"), **fields)
    schedule.recurrence.interval.seconds = seconds
    schedule.recurrence.phase.FromMilliseconds(phase_ms)
    return schedule


async def create(address: str, schedules: Iterable[schedule_pb2.Schedule]) -> float:
    """Makes schedules; answers how many a second."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = schedule_service_pb2_grpc.ScheduleServiceStub(channel)
        waiting, began, many = list(schedules), time.monotonic(), 0

        async def make() -> None:
            while waiting:
                await stub.CreateSchedule(schedule_pb2.CreateScheduleRequest(schedule=waiting.pop()))

        many = len(waiting)
        await asyncio.gather(*(make() for _ in range(CREATE_AT_ONCE)))
        return many / (time.monotonic() - began)


class Processor:
    """Notes how late each task comes."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, OPTIONS)
        self._stub = processor_service_pb2_grpc.ProcessorServiceStub(self._channel)
        self._reporting: list[asyncio.Future[None]] = []
        self.late_ms: list[tuple[float, float]] = []
        """When each was due, in seconds since 1970, and how late it came."""

    async def run(self) -> None:
        request = processor_pb2.RegisterRequest(
            processor_name="bench", capabilities=[processor_pb2.Capability(name="bench")], max_in_flight=10_000
        )
        session_id = (await self._stub.Register(request)).session_id
        beats = asyncio.create_task(self._beat(session_id))
        with contextlib.suppress(asyncio.CancelledError):
            async for response in self._stub.StreamTasks(processor_pb2.StreamTasksRequest(session_id=session_id)):
                now = time.time()
                tasks = response.tasks.tasks
                for task in tasks:
                    due = task.due_time.ToNanoseconds() / 1e9
                    self.late_ms.append((due, 1_000 * (now - due)))
                if tasks:
                    results = [_succeeded(one) for one in tasks]
                    report = processor_pb2.ReportResultRequest(session_id=session_id, results=results)
                    self._reporting.append(asyncio.ensure_future(self._report(report)))
        beats.cancel()
        await asyncio.gather(beats, *self._reporting, return_exceptions=True)
        await self._channel.close()

    async def _report(self, report: processor_pb2.ReportResultRequest) -> None:
        """Beside the stream: what comes meanwhile is not to wait for the answer."""
        await self._stub.ReportResult(report)

    async def _beat(self, session_id: str) -> None:
        while True:
            await asyncio.sleep(5)
            await self._stub.Heartbeat(processor_pb2.HeartbeatRequest(session_id=session_id))


def _succeeded(task: processor_pb2.AssignedTask) -> processor_pb2.TaskResult:
    return processor_pb2.TaskResult(task_id=task.task_id, attempt=task.attempt, succeeded=processor_pb2.Succeeded())


@contextlib.asynccontextmanager
async def processing(address: str) -> AsyncIterator[Processor]:
    processor = Processor(address)
    task = asyncio.create_task(processor.run())
    yield processor
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def summed(late_ms: list[float]) -> str:
    if len(late_ms) < 2:
        return "too few firings"
    percentiles = statistics.quantiles(late_ms, n=1_000, method="inclusive")
    p50, p99, p999 = percentiles[499], percentiles[989], percentiles[998]
    early = sum(one < 0 for one in late_ms)
    most = max(late_ms)
    return f"{len(late_ms):,} firings; p50 {p50:.1f} ms, p99 {p99:.1f}, p99.9 {p999:.1f}, max {most:.1f}; early {early}"


def mixed(many: int) -> Iterator[schedule_pb2.Schedule]:
    """Every one to ten seconds, each at an instant of its own, by all policies."""
    for i in range(many):
        overlap = 1 + i % 5
        yield a_schedule(f"mixed-{i}", 1 + i % 10, i * 37 % 1_000, overlap=overlap)


async def lateness(address: str, many: int, seconds: float) -> None:
    async with processing(address) as processor:
        rate = await create(address, mixed(many))
        await asyncio.sleep(SETTLE_SECONDS)
        since = time.time()
        await asyncio.sleep(seconds)
        found = [late for due, late in processor.late_ms if due >= since]
    print(f"lateness, {many:,} schedules, {len(found) / seconds:.0f} firings/s: {summed(found)}")
    print(f"creating them: {rate:,.0f} a second")


async def at_once(address: str, many: int) -> None:
    """A minute's turn is far enough for all of them to be made."""
    async with processing(address) as processor:
        period = max(20, many // 200)
        phase_ms = int((time.time() % period) * 1_000 - 1_000) % (period * 1_000)  # when they are made, it has passed
        made = await create(address, (a_schedule(f"once-{i}", period, phase_ms) for i in range(many)))
        now = time.time()
        due = now - (now - phase_ms / 1_000) % period + period
        while time.time() < due + 10 and sum(abs(at - due) < 0.001 for at, _ in processor.late_ms) < many:
            await asyncio.sleep(0.1)
        found = [late for at, late in processor.late_ms if abs(at - due) < 0.001]
    print(f"{many:,} due at once: {summed(found)}; made at {made:,.0f} a second")


def multiply(database: Database, many: int, of: str) -> None:
    """Makes many of the one schedule that there is."""
    columns = [column.name for column in schema.schedule.columns if column.name not in NEW_IN_EACH]
    same = ", ".join(columns)
    new = NEW_ON_POSTGRES if isinstance(database, Cluster) else NEW_ON_SQLITE
    numbers = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $1)"
    database.ask(
        f"{numbers} INSERT INTO schedule (schedule_id, name, {same}) SELECT {new}, 'idle-' || n, {same} "  # noqa: S608
        "FROM schedule, numbers",
        many,
        of=of,
    )


def idle(database: Database, many: int) -> None:
    url = database.make("idle")
    with serving(url) as server:
        asyncio.run(create(server.address, [a_schedule("idle", 86_400 * 3_000)]))
    multiply(database, many, "idle")
    with counted(database, url) as (server, statements):
        time.sleep(SETTLE_SECONDS)
        statements.skip()
        began, before = time.monotonic(), spent(database, [server])
        time.sleep(IDLE_SECONDS)
        words, seconds, after = statements.words(), time.monotonic() - began, spent(database, [server])
        peak = machine.peak_mib(server.pid)
    costs = ", ".join(
        f"{name} {100 * (now - before[name]) / seconds:.2f} %" for name, now in after.items() if "CPU" in name
    )
    print(f"idle with {many:,} schedules: {costs}; {len(words) / seconds:.1f} statements/s; {peak:.0f} MiB at the most")


def measure(given: argparse.Namespace) -> None:
    scale = given.scale
    with opened(given.database, **(LOGGED if given.database == "postgres" else {})) as database:
        print(database.title)
        with serving(database.make("late")) as server:
            asyncio.run(lateness(server.address, round(500 * scale), given.seconds))
        with serving(database.make("once")) as server:
            asyncio.run(at_once(server.address, round(10_000 * scale)))
        idle(database, round(100_000 * scale))


def main() -> None:
    parser = command.parser(__doc__, publishes=False)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--seconds", type=float, default=30, help="for which lateness is measured")
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers of schedules")
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
