"""The processor and the real server."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from client_core.payload import decode, encode
from client_core.times import to_duration
from processor_client import Context, Fail, Processor, Retry, Snooze, Task
from taskq.v1 import scheduler_service_pb2 as pb
from taskq.v1 import task_pb2
from taskq.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from taskq_server.server import Server
from tests.clients.handlers_for_children import SPIN
from tests.clients.scripted_processor_service import Runs
from tests.rpc.support import RawAdmin
from tests.support.process import ServerProcess

PATIENCE_SECONDS = 20


class Scheduler:
    """The generated stub, and what these tests do with it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = SchedulerServiceStub(channel)

    async def enqueue(self, name: str, args: object = None, **fields: Any) -> str:
        return (await self.enqueue_many(name, [args], **fields))[0]

    async def enqueue_many(self, name: str, many: list[Any], **fields: Any) -> list[str]:
        tasks = [pb.NewTask(name=name, payload=encode(args), **fields) for args in many]
        answer = await self._stub.Enqueue(pb.EnqueueRequest(tasks=tasks), timeout=10)
        return [result.task_id for result in answer.results]

    async def get(self, task_id: str) -> task_pb2.Task:
        answer = await self._stub.GetTask(pb.GetTaskRequest(task_id=task_id), timeout=10)
        return answer.task  # type: ignore[no-any-return]

    async def finished(self, task_id: str) -> task_pb2.Task:
        async with asyncio.timeout(PATIENCE_SECONDS):
            last = None
            async for answer in self._stub.WatchTask(pb.WatchTaskRequest(task_id=task_id)):
                last = answer.task
        assert last is not None
        return last

    async def cancel(self, task_id: str) -> None:
        await self._stub.CancelTask(pb.CancelTaskRequest(task_id=task_id), timeout=10)


@pytest.fixture
async def scheduler(server: Server) -> AsyncIterator[Scheduler]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield Scheduler(channel)


@pytest.fixture
async def admin(server: Server) -> AsyncIterator[RawAdmin]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield RawAdmin(channel)


async def another_session(admin: RawAdmin, before: str) -> str:
    """The session of the only processor, once it is not the one before."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            for processor in (await admin.processors()).processors:
                if processor.session_id != before:
                    return processor.session_id
            await asyncio.sleep(0.01)


def no_delay(max_attempts: int = 5) -> task_pb2.RetryPolicy:
    return task_pb2.RetryPolicy(max_attempts=max_attempts, initial_delay=to_duration(0), max_delay=to_duration(0))


async def test_a_task_runs_and_its_result_is_kept(server: Server, scheduler: Scheduler) -> None:
    async def cook(dish: str) -> str:
        return f"cooked {dish}"

    async with Processor(server.address, [Runs("cook", cook)], name="oven-1"):
        task = await scheduler.finished(await scheduler.enqueue("cook", {"dish": "soup"}))

    assert task.state == task_pb2.TASK_STATE_SUCCEEDED
    assert (decode(task.result), task.processor_name) == ("cooked soup", "oven-1")


async def test_a_failed_attempt_leaves_its_error_and_its_checkpoint_to_the_next(
    server: Server, scheduler: Scheduler
) -> None:
    hooks: list[Any] = []

    class Cook(Task):
        name = "cook"

        async def process(self, ctx: Context) -> Any:
            if ctx.attempt == 1:
                await ctx.save_checkpoint({"page": 2})
                raise Retry("oven busy", after=0)
            failure = ctx.last_failure
            assert failure is not None
            return [ctx.attempt, ctx.failed_attempts, ctx.checkpoint, failure.error_type, failure.message]

        async def success(self, result: Any) -> None:
            hooks.append("success")
            done.set()

        async def failure(self, error: Exception, will_retry: bool) -> None:
            hooks.append((str(error), will_retry))

    done = asyncio.Event()
    async with Processor(server.address, [Cook]):
        task = await scheduler.finished(await scheduler.enqueue("cook"))
        await asyncio.wait_for(done.wait(), PATIENCE_SECONDS)

    assert decode(task.result) == [2, 1, {"page": 2}, "Retry", "oven busy"]
    assert hooks == [("oven busy", True), "success"]


async def test_the_last_failure_says_that_there_is_no_further_attempt(server: Server, scheduler: Scheduler) -> None:
    answers: asyncio.Queue[bool] = asyncio.Queue()

    class Cook(Task):
        name = "cook"

        def process(self) -> None:
            raise ValueError("burnt")

        async def failure(self, will_retry: bool) -> None:
            answers.put_nowait(will_retry)

    async with Processor(server.address, [Cook]):
        task = await scheduler.finished(await scheduler.enqueue("cook", retry_policy=no_delay(2)))
        assert [await asyncio.wait_for(answers.get(), 10) for _ in range(2)] == [True, False]

    assert task.state == task_pb2.TASK_STATE_FAILED
    assert (task.last_failure.error_type, task.failed_attempts) == ("ValueError", 2)


async def test_fail_ends_a_task_and_snooze_costs_no_attempt(server: Server, scheduler: Scheduler) -> None:
    async def cook(ctx: Context) -> None:
        if ctx.attempt == 1:
            raise Snooze(delay="1ms")
        assert ctx.failed_attempts == 0
        raise Fail("no such dish", error_type="UNKNOWN_DISH")

    async with Processor(server.address, [Runs("cook", cook)]):
        task = await scheduler.finished(await scheduler.enqueue("cook"))

    assert (task.state, task.attempt, task.failed_attempts) == (task_pb2.TASK_STATE_FAILED, 2, 1)
    assert task.last_failure.error_type == "UNKNOWN_DISH"


async def test_a_running_task_that_is_cancelled_stops(server: Server, scheduler: Scheduler) -> None:
    async def cook() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    begun, stopped = asyncio.Event(), asyncio.Event()
    async with Processor(server.address, [Runs("cook", cook)], concurrency=1, drain_timeout=0):
        task_id = await scheduler.enqueue("cook")
        await asyncio.wait_for(begun.wait(), PATIENCE_SECONDS)
        await scheduler.cancel(task_id)
        await asyncio.wait_for(stopped.wait(), PATIENCE_SECONDS)
        # Its place is free again.
        begun.clear()
        await scheduler.enqueue("cook")
        await asyncio.wait_for(begun.wait(), PATIENCE_SECONDS)

    assert (await scheduler.get(task_id)).state == task_pb2.TASK_STATE_CANCELLED


async def test_an_attempt_that_runs_too_long_is_stopped_and_fails_as_run_timeout(
    server: Server, scheduler: Scheduler
) -> None:
    async with Processor(server.address, [SPIN], concurrency=1):
        task_id = await scheduler.enqueue("spin", run_timeout=to_duration("300ms"), retry_policy=no_delay(1))
        task = await scheduler.finished(task_id)

    assert task.state == task_pb2.TASK_STATE_FAILED
    assert task.last_failure.error_type == "RUN_TIMEOUT"


async def test_every_one_of_many_tasks_runs_once(server: Server, scheduler: Scheduler) -> None:
    async def count(number: int) -> None:
        runs[number] += 1
        if len(runs) == 3_000:
            all_ran.set()

    runs: Counter[int] = Counter()
    all_ran = asyncio.Event()
    async with Processor(server.address, [Runs("count", count)], concurrency=500):
        for start in range(0, 3_000, 1_000):
            await scheduler.enqueue_many("count", [{"number": n} for n in range(start, start + 1_000)])
        await asyncio.wait_for(all_ran.wait(), PATIENCE_SECONDS)

    assert set(runs.values()) == {1}


async def test_a_processor_that_stops_gives_back_what_it_has_not_finished(server: Server, scheduler: Scheduler) -> None:
    async def cook() -> str:
        begun.set()
        return await results.get()

    begun = asyncio.Event()
    results: asyncio.Queue[str] = asyncio.Queue()
    async with Processor(server.address, [Runs("cook", cook)], drain_timeout=0):
        task_id = await scheduler.enqueue("cook")
        await asyncio.wait_for(begun.wait(), PATIENCE_SECONDS)
    released = await scheduler.get(task_id)
    assert (released.state, released.failed_attempts) == (task_pb2.TASK_STATE_SCHEDULED, 0)

    results.put_nowait("done")
    async with Processor(server.address, [Runs("cook", cook)]):
        task = await scheduler.finished(task_id)

    assert (decode(task.result), task.attempt) == ("done", 2)


async def test_what_runs_survives_a_server_that_is_killed_and_started_again(server_process: ServerProcess) -> None:
    async def cook(ctx: Context) -> int:
        begun.set()
        await gate.wait()
        return ctx.attempt

    begun, gate = asyncio.Event(), asyncio.Event()
    async with Processor(server_process.address, [Runs("cook", cook)]):
        async with grpc.aio.insecure_channel(server_process.address) as channel:
            task_id = await Scheduler(channel).enqueue("cook")
        await asyncio.wait_for(begun.wait(), PATIENCE_SECONDS)
        await asyncio.to_thread(server_process.kill)
        gate.set()
        await asyncio.to_thread(server_process.start)
        async with grpc.aio.insecure_channel(server_process.address) as channel:
            first = await Scheduler(channel).finished(task_id)
            second = await Scheduler(channel).finished(await Scheduler(channel).enqueue("cook"))

    server_process.log.close()
    assert (decode(first.result), first.attempt) == (1, 1)
    assert second.state == task_pb2.TASK_STATE_SUCCEEDED


async def test_a_processor_that_an_administrator_disconnects_stops_what_it_runs_and_registers_again(
    server: Server, scheduler: Scheduler, admin: RawAdmin
) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def cook() -> str:
        if begun.is_set():
            return "cooked"
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return "never"

    async with Processor(server.address, [Runs("cook", cook)]):
        session_id = await another_session(admin, "")
        task_id = await scheduler.enqueue("cook")
        await asyncio.wait_for(begun.wait(), PATIENCE_SECONDS)

        assert await admin.disconnect(session_id) == 1

        task = await scheduler.finished(task_id)
        assert await another_session(admin, session_id)

    assert stopped.is_set()
    assert (decode(task.result), task.attempt, task.failed_attempts) == ("cooked", 2, 0)


async def test_a_processor_that_was_drained_takes_nothing_more_though_it_is_disconnected_and_registers_again(
    server: Server, scheduler: Scheduler, admin: RawAdmin
) -> None:
    async def cook() -> str:
        return "cooked"

    async with Processor(server.address, [Runs("cook", cook)], name="drained"):
        session_id = await another_session(admin, "")
        await admin.drain(session_id)
        await admin.disconnect(session_id)
        await another_session(admin, session_id)
        task_id = await scheduler.enqueue("cook")

        async with Processor(server.address, [Runs("cook", cook)], name="other"):
            task = await scheduler.finished(task_id)

    assert (task.processor_name, task.failed_attempts) == ("other", 0)
