"""The scheduler and a real server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import grpc.aio
import pytest

import scheduler_client.scheduler
from client_core.channel import open_channel
from client_core.payload import encode
from scheduler_client import (
    Conflict,
    EnqueueManyFailed,
    FailedPrecondition,
    InvalidArgument,
    MainScheduler,
    NotFound,
    Outcome,
    Rejected,
    Retry,
    Scheduler,
    Task,
    TaskCancelled,
    TaskFailed,
    TaskState,
    new_task,
)
from scheduler_client.ids import new_task_id
from taskq.v1 import processor_service_pb2 as pb
from taskq.v1.processor_service_pb2_grpc import ProcessorServiceStub
from taskq.v1.scheduler_service_pb2 import NewTask
from taskq_server.server import Server
from tests.support.process import ServerProcess


class CookTask(Task):
    name = "real.cook"
    config = {"dish": "soup", "servings": 2}
    priority = 5
    run_timeout = "10m"
    retry = Retry(max_attempts=1)
    tags = ["vip"]


@pytest.fixture
async def scheduler(server: Server) -> AsyncIterator[Scheduler]:
    async with Scheduler(server.address) as scheduler:
        yield scheduler


class Oven:
    """The least of a processor: takes one task after another."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = ProcessorServiceStub(channel)
        self.session_id = ""

    async def tasks(self, *names: str) -> AsyncIterator[pb.AssignedTask]:
        capabilities = [pb.Capability(name=name) for name in names]
        registered = await self.stub.Register(
            pb.RegisterRequest(processor_name="oven", capabilities=capabilities, max_in_flight=10)
        )
        self.session_id = registered.session_id
        stream = self.stub.StreamTasks(pb.StreamTasksRequest(session_id=self.session_id))
        async for response in stream:
            for task in response.tasks.tasks:
                yield task

    async def report(self, task: pb.AssignedTask, **outcome: object) -> None:
        result = pb.TaskResult(task_id=task.task_id, attempt=task.attempt, **outcome)  # type: ignore[arg-type]
        await self.stub.ReportResult(pb.ReportResultRequest(session_id=self.session_id, results=[result]))


# enqueue and look


async def test_what_is_enqueued_is_what_the_server_has(scheduler: Scheduler) -> None:
    handle = await scheduler.enqueue(
        CookTask(dish="stew"), at=datetime(2030, 1, 1, 0, 0, 0, 123_456, tzinfo=UTC), headers={"table": "4"}
    )
    assert handle.outcome is Outcome.CREATED
    assert handle.due_time == datetime(2030, 1, 1, 0, 0, 0, 123_456, tzinfo=UTC)
    view = await handle.get()
    assert view.task_id == handle.task_id
    assert view.name == "real.cook"
    assert view.state is TaskState.SCHEDULED
    assert not view.is_finished
    assert view.payload() == {"dish": "stew", "servings": 2}
    assert (view.priority, view.attempt, view.failed_attempts) == (5, 0, 0)
    assert (view.tags, view.headers) == (["vip"], {"table": "4"})
    assert view.due_time == handle.due_time
    assert view.enqueue_time is not None
    assert view.lease_time is None
    assert view.finish_time is None
    assert view.last_failure is None
    assert view.progress is None
    assert view.result() is None


async def test_a_task_enqueues_itself_at_the_server_of_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKQ_ADDRESS", server.address)
    scheduler_client.scheduler.default_scheduler.cache_clear()
    handle = await CookTask().enqueue(delay="5m")
    view = await handle.get()
    assert view.due_time is not None
    assert view.enqueue_time is not None
    assert abs(view.due_time - view.enqueue_time - timedelta(minutes=5)) < timedelta(seconds=1)
    await scheduler_client.scheduler.default_scheduler().close()
    scheduler_client.scheduler.default_scheduler.cache_clear()


async def test_the_same_id_is_the_same_task(scheduler: Scheduler) -> None:
    task_id = new_task_id()
    first = await scheduler.enqueue("cook", {"dish": "soup"}, task_id=task_id)
    again = await scheduler.enqueue("cook", {"dish": "soup"}, task_id=task_id)
    assert (first.outcome, again.outcome) == (Outcome.CREATED, Outcome.EXISTING)
    with pytest.raises(Conflict) as conflict:
        await scheduler.enqueue("cook", {"dish": "stew"}, task_id=task_id)
    assert conflict.value.task_id == task_id
    assert (await scheduler.get(task_id)).payload() == {"dish": "soup"}


async def test_the_same_id_twice_in_one_request_is_one_task(scheduler: Scheduler) -> None:
    task_id = new_task_id()
    handles = await asyncio.gather(*(scheduler.enqueue("cook", 1, task_id=task_id) for _ in range(5)))
    assert sorted(handle.outcome for handle in handles) == [Outcome.CREATED] + [Outcome.EXISTING] * 4


async def test_a_key_is_held_by_one_task(scheduler: Scheduler) -> None:
    holder = await scheduler.enqueue("cook", 1, key="order-42", delay="1h")
    same = await scheduler.enqueue("cook", 2, key="order-42")
    assert (same.task_id, same.outcome) == (holder.task_id, Outcome.EXISTING)
    with pytest.raises(Rejected) as rejected:
        await scheduler.enqueue("cook", 3, key="order-42", on_conflict="reject")
    assert rejected.value.task_id == holder.task_id
    replaced = await scheduler.enqueue("cook", 4, key="order-42", on_conflict="replace", delay="2h")
    assert (replaced.task_id, replaced.outcome) == (holder.task_id, Outcome.REPLACED)
    assert (await holder.get()).payload() == 4


async def test_a_rejected_enqueue_that_is_repeated_under_its_id_is_still_its_own(scheduler: Scheduler) -> None:
    # What a lost reply looks like: the first try was stored, the second one must not find itself in the way.
    task = new_task("cook", 1, key="order-43", on_conflict="reject")
    assert (await scheduler.enqueue(task)).outcome is Outcome.CREATED
    assert (await scheduler.enqueue(task)).outcome is Outcome.EXISTING


async def test_what_only_the_server_can_judge_fails_only_its_caller(scheduler: Scheduler) -> None:
    answers = await asyncio.gather(
        scheduler.enqueue("good"),
        scheduler.enqueue("large", b"x" * (256 * 1024 + 1)),
        scheduler.enqueue("strange", requires=["zone ~ eu"]),
        scheduler.enqueue("fine"),
        return_exceptions=True,
    )
    good, large, strange, fine = answers
    assert isinstance(large, InvalidArgument)
    assert large.fields[0][0].startswith("payload")
    assert isinstance(strange, InvalidArgument)
    assert strange.fields[0][0].startswith("requires")
    for handle in (good, fine):
        assert not isinstance(handle, BaseException)
        assert (await handle.get()).state is TaskState.SCHEDULED


async def test_thousands_are_enqueued_in_order(scheduler: Scheduler) -> None:
    given = [new_task("bulk", i) for i in range(3_000)]
    handles = await scheduler.enqueue_many(given)
    assert [handle.task_id for handle in handles] == [task.task_id for task in given]
    assert {handle.outcome for handle in handles} == {Outcome.CREATED}
    assert (await handles[2_345].get()).payload() == 2_345


async def test_of_thousands_the_one_at_fault_is_named(scheduler: Scheduler) -> None:
    given = [new_task("bulk", i, requires=["zone ~ eu"] if i == 700 else None) for i in range(1_200)]
    with pytest.raises(EnqueueManyFailed) as failed:
        await scheduler.enqueue_many(given)
    assert list(failed.value.errors) == [700]
    assert [place for place, handle in enumerate(failed.value.handles) if handle is None] == [700]
    with pytest.raises(NotFound):
        await scheduler.get(given[700].task_id)
    assert (await scheduler.get(given[701].task_id)).payload() == 701


async def test_an_unknown_task_is_not_found_and_no_uuid_is_not_even_asked_for(scheduler: Scheduler) -> None:
    for ask in (scheduler.get, scheduler.cancel, scheduler.result):
        with pytest.raises(NotFound):
            await ask(new_task_id())
        with pytest.raises(InvalidArgument, match="task_id: is 't1'; must be a UUID"):
            await ask("t1")


# cancel and follow


async def test_a_cancelled_task_ends_for_all_who_wait(scheduler: Scheduler) -> None:
    handle = await scheduler.enqueue("cook", delay="1h")
    waiting = asyncio.ensure_future(handle.result(timeout=10))
    assert (await handle.cancel()).state is TaskState.CANCELLED
    assert (await handle.cancel()).state is TaskState.CANCELLED
    with pytest.raises(TaskCancelled):
        await waiting


async def test_a_task_is_followed_from_its_enqueue_to_its_result(server: Server, scheduler: Scheduler) -> None:
    handle = await scheduler.enqueue(CookTask())
    states = []
    async with open_channel(server.address) as channel:
        oven = Oven(channel)
        tasks = oven.tasks("real.cook")
        views = handle.watch()
        states.append((await anext(views)).state)
        task = await anext(tasks)
        states.append((await anext(views)).state)
        await oven.report(task, succeeded=pb.Succeeded(result=encode({"grams": 400})))
        states += [view.state async for view in views]
        assert states == [TaskState.SCHEDULED, TaskState.RUNNING, TaskState.SUCCEEDED]
        assert await handle.result() == {"grams": 400}
        view = await handle.get()
        assert view.processor_name == "oven"
        assert view.finish_time is not None
        with pytest.raises(FailedPrecondition) as failed:
            await handle.cancel()
        assert failed.value.reason == "WRONG_STATE"
        await tasks.aclose()  # type: ignore[attr-defined]


async def test_a_failure_comes_with_its_facts(server: Server, scheduler: Scheduler) -> None:
    handle = await scheduler.enqueue(CookTask())
    async with open_channel(server.address) as channel:
        oven = Oven(channel)
        tasks = oven.tasks("real.cook")
        task = await anext(tasks)
        await oven.report(task, failed=pb.Failed(error_type="Burnt", message="too hot", stack="at oven.py"))
        with pytest.raises(TaskFailed) as failed:
            await handle.result(timeout=10)
        await tasks.aclose()  # type: ignore[attr-defined]
    failure = failed.value.failure
    assert (failure.error_type, failure.message, failure.stack, failure.attempt) == (
        "Burnt",
        "too hot",
        "at oven.py",
        1,
    )
    assert failure.failure_time is not None


async def test_thousands_are_waited_for_at_once(scheduler: Scheduler) -> None:
    handles = await scheduler.enqueue_many(new_task("bulk", retention="1h", delay="1h") for _ in range(1_500))
    waiting = asyncio.gather(*(handle.result(timeout=60) for handle in handles[:1_400]), return_exceptions=True)
    await asyncio.gather(*(handle.cancel() for handle in handles[:50]))
    with pytest.raises(TaskCancelled):
        await handles[0].result(timeout=10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


# a server that is killed


async def test_what_is_enqueued_while_the_server_is_killed_and_restarted_is_stored_once(
    server_process: ServerProcess,
) -> None:
    async with Scheduler(server_process.address, timeout=60) as scheduler:
        given = [new_task("bulk", i) for i in range(20_000)]
        half = asyncio.Event()

        def telling() -> Iterator[NewTask]:
            for i, task in enumerate(given):
                if i == 10_000:
                    half.set()
                yield task

        sending = asyncio.gather(scheduler.enqueue_many(telling()))
        await half.wait()
        await asyncio.to_thread(server_process.restart)
        (handles,) = await sending
        assert [handle.task_id for handle in handles] == [task.task_id for task in given]
        assert {handle.outcome for handle in handles} <= {Outcome.CREATED, Outcome.EXISTING}
        last = await handles[-1].get()
        assert last.payload() == 19_999


async def test_waiting_for_a_result_survives_a_restart(server_process: ServerProcess) -> None:
    async with Scheduler(server_process.address) as scheduler:
        handle = await scheduler.enqueue("cook", delay="1h")
        views = handle.watch()
        assert (await anext(views)).state is TaskState.SCHEDULED
        waiting = asyncio.ensure_future(handle.result(timeout=30))
        await asyncio.to_thread(server_process.restart)
        await handle.cancel()
        with pytest.raises(TaskCancelled):
            await waiting
        assert [view.state async for view in views] == [TaskState.CANCELLED]


async def test_a_main_scheduler_loses_no_firing_while_the_server_is_away(server_process: ServerProcess) -> None:
    async with Scheduler(server_process.address) as scheduler:
        main = MainScheduler(scheduler)
        main.every("20ms").do(CookTask)
        running = asyncio.create_task(main.run_async())
        await asyncio.to_thread(server_process.restart)
        last = main.entries["real.cook"].next_us
        while main.firings or main.entries["real.cook"].next_us == last:  # noqa: ASYNC110 - it has no event for a test
            await asyncio.sleep(0.01)
        main.stop()
        await running
        assert main.firings.refused == 0


def test_importing_the_client_imports_neither_the_server_nor_its_libraries() -> None:
    program = "import sys, scheduler_client.sync; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    unwanted = {"taskq_server", "sqlalchemy", "pydantic", "structlog", "msgspec"}
    assert unwanted.isdisjoint(modules)
