"""Following tasks: few streams for many, and none of it lost when the server or a stream goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from client_core.payload import encode
from scheduler_client import (
    NotFound,
    PermissionDenied,
    Scheduler,
    TaskCancelled,
    TaskFailed,
    TaskState,
    Unavailable,
)
from scheduler_client.ids import new_task_id
from taskq.v1 import task_pb2
from taskq.v1.task_pb2 import Failure, Task
from tests.clients.scripted_scheduler_service import Refusal, ScriptedSchedulerService, serving, unavailable

WAITS = task_pb2.TASK_STATE_SCHEDULED
RUNS = task_pb2.TASK_STATE_RUNNING
SUCCEEDED = task_pb2.TASK_STATE_SUCCEEDED
FAILED = task_pb2.TASK_STATE_FAILED
CANCELLED = task_pb2.TASK_STATE_CANCELLED


@pytest.fixture
async def scheduler(service: ScriptedSchedulerService) -> AsyncIterator[Scheduler]:
    async with serving(service) as address, Scheduler(address) as scheduler:
        yield scheduler


async def some_tasks(service: ScriptedSchedulerService, count: int) -> list[str]:
    ids = [new_task_id() for _ in range(count)]
    await service.show(*(Task(task_id=task_id, name="cook", state=WAITS) for task_id in ids))
    return ids


async def until_watched(service: ScriptedSchedulerService, streams: int) -> None:
    while len(service.watches) < streams:  # noqa: ASYNC110 - the other side is the server in this same loop
        await asyncio.sleep(0)


def done(task_id: str, result: object = None) -> Task:
    return Task(task_id=task_id, name="cook", state=SUCCEEDED, result=encode(result))


async def test_results_of_many_tasks_come_over_a_few_streams(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    ids = await some_tasks(service, 2_500)
    waiting = asyncio.gather(*(scheduler.result(task_id) for task_id in ids))
    await until_watched(service, 3)
    await service.show(*(done(task_id, i) for i, task_id in enumerate(ids)))
    assert await waiting == list(range(2_500))
    assert sorted(len(watched) for watched in service.watches) == [500, 1_000, 1_000]


async def test_waiting_one_by_one_keeps_the_number_of_streams_small(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    ids = await some_tasks(service, 200)
    waiting = []
    for task_id in ids:
        before = len(service.watches)
        waiting.append(asyncio.ensure_future(scheduler.result(task_id)))
        await until_watched(service, before + 1)
    connection = scheduler._connection
    assert connection is not None
    assert len(connection.watcher._streams) <= 21
    await service.show(*(done(task_id) for task_id in ids))
    await asyncio.gather(*waiting)
    assert connection.watcher._streams == []
    assert sum(len(watched) for watched in service.watches) < 200 * 4  # each was told again at most a few times


async def test_callers_of_one_task_share_its_place(service: ScriptedSchedulerService, scheduler: Scheduler) -> None:
    (task_id,) = await some_tasks(service, 1)
    waiting = asyncio.gather(*(scheduler.result(task_id) for _ in range(50)))
    await until_watched(service, 1)
    await service.show(done(task_id, "soup"))
    assert await waiting == ["soup"] * 50
    assert service.watches == [[task_id]]


async def test_a_watch_shows_each_change_once_and_ends_with_the_task(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    (task_id,) = await some_tasks(service, 1)
    views = scheduler.watch(task_id)
    assert (await anext(views)).state is TaskState.SCHEDULED
    await service.show(Task(task_id=task_id, name="cook", state=RUNS, attempt=1))
    assert (await anext(views)).state is TaskState.RUNNING
    service.watch_script.append(None)
    await service.show(done(task_id))
    assert [view.state async for view in views] == [TaskState.SUCCEEDED]


async def test_what_a_task_came_to_is_a_value_or_an_error(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    good, bad, stopped, silent = await some_tasks(service, 4)
    failure = Failure(error_type="Burnt", message="too hot", stack="Traceback", attempt=3)
    await service.show(
        done(good, {"dish": "soup"}),
        Task(task_id=bad, name="cook", state=FAILED, last_failure=failure),
        Task(task_id=stopped, name="cook", state=CANCELLED),
        done(silent),
    )
    assert await scheduler.result(good) == {"dish": "soup"}
    assert await scheduler.result(silent) is None
    with pytest.raises(TaskFailed, match="failed in attempt 3: Burnt: too hot") as failed:
        await scheduler.result(bad)
    assert failed.value.failure.error_type == "Burnt"
    assert failed.value.failure.stack == "Traceback"
    assert failed.value.task_id == bad
    with pytest.raises(TaskCancelled):
        await scheduler.result(stopped)


async def test_a_stream_that_breaks_is_opened_again_until_the_task_is_finished(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    (task_id,) = await some_tasks(service, 1)
    service.watch_script.extend(
        [
            unavailable(retry_delay=0.001),
            Refusal(grpc.StatusCode.INTERNAL, "INTERNAL"),
            Refusal(grpc.StatusCode.CANCELLED),
            Refusal(grpc.StatusCode.UNKNOWN),
        ]
    )
    waiting = asyncio.ensure_future(scheduler.result(task_id))
    await until_watched(service, 5)
    await service.show(done(task_id, 1))
    assert await waiting == 1


async def test_a_server_that_restarts_is_found_again() -> None:
    first, second = ScriptedSchedulerService(), ScriptedSchedulerService()
    (task_id,) = await some_tasks(first, 1)
    await second.show(done(task_id, "from the second"))
    async with serving(first) as address:
        scheduler = Scheduler(address)
        waiting = asyncio.ensure_future(scheduler.result(task_id))
        await until_watched(first, 1)
    async with serving(second, address):
        assert await waiting == "from the second"
        await scheduler.close()


async def test_an_unknown_task_fails_its_own_caller_only(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    known, unknown = await some_tasks(service, 1), [new_task_id(), new_task_id()]
    waiting = [asyncio.ensure_future(scheduler.result(task_id)) for task_id in (unknown[0], *known, unknown[1])]
    await until_watched(service, 3)
    await service.show(done(known[0], "soup"))
    first, good, second = await asyncio.gather(*waiting, return_exceptions=True)
    assert good == "soup"
    assert isinstance(first, NotFound)
    assert isinstance(second, NotFound)
    assert second.metadata["task_id"] == unknown[1]
    assert [len(watched) for watched in service.watches] == [3, 2, 1]


async def test_an_unknown_task_is_found_also_when_the_server_does_not_name_it(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    ids = await some_tasks(service, 8)
    await service.show(*(done(task_id) for task_id in ids))
    unknown = new_task_id()
    nameless = Refusal(grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
    service.watch_script.extend([nameless] * 2)
    answers = await asyncio.gather(*(scheduler.result(task_id) for task_id in [unknown, *ids]), return_exceptions=True)
    assert isinstance(answers[0], NotFound)
    assert answers[1:] == [None] * 8


async def test_who_may_not_watch_is_told_so(service: ScriptedSchedulerService, scheduler: Scheduler) -> None:
    ids = await some_tasks(service, 2)
    service.watch_script.append(Refusal(grpc.StatusCode.PERMISSION_DENIED, "NO_SCOPE"))
    answers = await asyncio.gather(*(scheduler.result(task_id) for task_id in ids), return_exceptions=True)
    assert [type(answer) for answer in answers] == [PermissionDenied, PermissionDenied]
    assert len(service.watches) == 1


async def test_waiting_ends_with_a_timeout_and_leaves_no_stream(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    (task_id,) = await some_tasks(service, 1)
    with pytest.raises(TimeoutError, match=r"was not finished within 0\.02 s"):
        await scheduler.result(task_id, timeout="20ms")
    connection = scheduler._connection
    assert connection is not None
    while connection.watcher._streams:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_closing_tells_those_who_wait(service: ScriptedSchedulerService, scheduler: Scheduler) -> None:
    ids = await some_tasks(service, 3)
    waiting = asyncio.gather(*(scheduler.result(task_id) for task_id in ids), return_exceptions=True)
    await until_watched(service, 1)
    await scheduler.close()
    assert [type(answer) for answer in await waiting] == [Unavailable] * 3


async def test_an_enqueue_is_not_held_up_by_more_watches_than_a_connection_carries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scheduler_client.watcher._STREAMS_PER_LINE", 2)
    service = ScriptedSchedulerService()
    ids = await some_tasks(service, 4_500)
    async with serving(service, streams_per_connection=2) as address, Scheduler(address) as scheduler:
        waiting = asyncio.gather(*(scheduler.result(task_id) for task_id in ids))
        await until_watched(service, 5)
        await asyncio.wait_for(scheduler.enqueue("cook"), 5)
        await service.show(*(done(task_id) for task_id in ids))
        await waiting
