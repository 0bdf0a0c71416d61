"""The blocking scheduler: the same from threads, and a clear word where it cannot work."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from client_core.payload import encode
from scheduler_client import EnqueueManyFailed, InvalidArgument, NotFound, Outcome, TaskState, new_task
from scheduler_client.background import background
from scheduler_client.ids import new_task_id
from scheduler_client.sync import Handle, MainScheduler, Scheduler, Task
from taskq.v1 import task_pb2
from tests.clients.scripted_scheduler_service import ScriptedSchedulerService, serving


class SoupTask(Task):
    name = "sync.soup"
    config = {"dish": "soup"}


@pytest.fixture
def address(service: ScriptedSchedulerService) -> Iterator[str]:
    """The scripted server in a loop and a thread of its own, since these tests block theirs."""
    listening: list[str] = []
    ready, loop = threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with serving(service) as address:
            listening.append(address)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait()
    yield listening[0]
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


@pytest.fixture
def scheduler(address: str) -> Iterator[Scheduler]:
    with Scheduler(address) as scheduler:
        yield scheduler


def test_the_same_names_block(service: ScriptedSchedulerService, scheduler: Scheduler) -> None:
    handle = scheduler.enqueue("cook", {"dish": "stew"})
    assert isinstance(handle, Handle)
    assert handle.outcome is Outcome.CREATED
    service.views[handle.task_id] = task_pb2.Task(
        task_id=handle.task_id, name="cook", state=task_pb2.TASK_STATE_SUCCEEDED, result=encode({"grams": 5})
    )
    assert handle.result(timeout=5) == {"grams": 5}
    assert [view.state for view in handle.watch()] == [TaskState.SUCCEEDED]


def test_a_task_enqueues_itself_by_the_given_or_the_default_scheduler(
    service: ScriptedSchedulerService, scheduler: Scheduler, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = SoupTask(dish="stew").enqueue(scheduler=scheduler, priority=3)
    assert service.tasks[given.task_id].priority == 3
    monkeypatch.setattr("scheduler_client.sync._default_scheduler", scheduler)
    assert SoupTask().enqueue().task_id in service.tasks


def test_a_decorated_function_blocks_too(service: ScriptedSchedulerService, scheduler: Scheduler) -> None:
    @scheduler.task("sync.cook")
    def cook(dish: str) -> str:
        return dish

    handle = cook.after("5m").enqueue(dish="soup")
    assert isinstance(handle, Handle)
    assert service.tasks[handle.task_id].delay.seconds == 300
    assert cook("soup") == "soup"


def test_threads_share_it_and_their_requests(service: ScriptedSchedulerService, scheduler: Scheduler) -> None:
    with ThreadPoolExecutor(32) as threads:
        handles = list(threads.map(lambda i: scheduler.enqueue("cook", i), range(640)))
    assert len({handle.task_id for handle in handles}) == len(service.tasks) == 640
    assert len(service.requests) < 640


def test_many_are_iterated_in_the_callers_own_thread(service: ScriptedSchedulerService, scheduler: Scheduler) -> None:
    seen = set()

    def tasks() -> Iterator[object]:
        for _ in range(3):
            seen.add(threading.current_thread())
            yield new_task("cook")

    handles = scheduler.enqueue_many(tasks())  # type: ignore[arg-type]
    assert [type(handle) for handle in handles] == [Handle] * 3
    assert seen == {threading.current_thread()}


def test_errors_are_the_same(scheduler: Scheduler) -> None:
    bad = SoupTask()
    bad.priority = 12
    with pytest.raises(InvalidArgument, match="priority"):
        scheduler.enqueue(bad)
    with pytest.raises(EnqueueManyFailed) as failed:
        scheduler.enqueue_many([SoupTask(), bad])
    assert isinstance(failed.value.handles[0], Handle)
    assert failed.value.handles[1] is None
    with pytest.raises(NotFound):
        scheduler.result(new_task_id(), timeout=5)
    with pytest.raises(TimeoutError):
        scheduler.enqueue("cook").result(timeout=0.01)


def test_its_own_thread_is_told_that_it_cannot_wait_for_itself(scheduler: Scheduler) -> None:
    async def call_from_there() -> None:
        scheduler.enqueue("cook")

    with pytest.raises(RuntimeError, match="own background thread"):
        background.run(call_from_there())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_told_that_it_does_not_work_there(scheduler: Scheduler) -> None:
    scheduler.enqueue("cook")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            scheduler.enqueue("cook")
        except BaseException as error:  # noqa: BLE001 - a child that goes on would run the rest of the tests
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read().decode().startswith("RuntimeError: the scheduler's thread runs in process")


def test_a_main_scheduler_for_a_blocking_schedulers_server(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    main = MainScheduler(scheduler)
    main.every("10ms").do(SoupTask)
    thread = threading.Thread(target=main.run)
    thread.start()
    while not service.tasks:
        threading.Event().wait(0.001)
    main.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert {task.name for task in service.tasks.values()} == {"sync.soup"}
