"""What is enqueued together travels together: single tasks in shared requests, and many in batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from client_core.errors import Unimplemented
from scheduler_client import (
    Conflict,
    EnqueueManyFailed,
    InvalidArgument,
    Outcome,
    Scheduler,
    Unavailable,
    new_task,
)
from scheduler_client.ids import new_task_id
from taskq.v1 import scheduler_service_pb2 as pb
from tests.clients.scripted_scheduler_service import Refusal, ScriptedSchedulerService, outcomes


@pytest.fixture
async def scheduler(address: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scheduler]:
    monkeypatch.setattr("scheduler_client.enqueuer.FIRST_DELAY", 0.001)
    async with Scheduler(address) as scheduler:
        yield scheduler


async def there_and_back(scheduler: Scheduler) -> None:
    """A call to the server and its answer: whatever else was sent before has arrived too."""
    with pytest.raises(Unimplemented):
        await scheduler.get(new_task_id())


# one request for many callers


async def test_callers_at_the_same_time_share_a_request(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    handles = await asyncio.gather(*(scheduler.enqueue("cook", i) for i in range(100)))
    assert len(service.requests) == 1
    assert [handle.task_id for handle in handles] == [task.task_id for task in service.requests[0].tasks]
    assert {handle.outcome for handle in handles} == {Outcome.CREATED}


async def test_what_comes_while_a_request_is_on_its_way_goes_into_the_next(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    service.gate.clear()
    first = asyncio.create_task(scheduler.enqueue("first"))
    await service.arrived.wait()
    later = [asyncio.create_task(scheduler.enqueue("later")) for _ in range(10)]
    await there_and_back(scheduler)
    assert len(service.requests) == 1
    service.gate.set()
    await asyncio.gather(first, *later)
    assert [len(request.tasks) for request in service.requests] == [1, 10]


async def test_while_a_server_answers_callers_share_two_requests_and_what_comes_meanwhile_goes_into_the_next(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    await scheduler.enqueue("first")
    service.gate.clear()
    callers = [asyncio.create_task(scheduler.enqueue("cook")) for _ in range(64)]
    await there_and_back(scheduler)
    callers += [asyncio.create_task(scheduler.enqueue("later")) for _ in range(40)]
    await there_and_back(scheduler)
    assert [len(request.tasks) for request in service.requests] == [1, 32, 32]
    service.gate.set()
    await asyncio.gather(*callers)
    assert [len(request.tasks) for request in service.requests][3:] == [40]


async def test_few_callers_share_one_request(service: ScriptedSchedulerService, scheduler: Scheduler) -> None:
    await scheduler.enqueue("first")
    for many in (17, 31, 32):
        await asyncio.gather(*(scheduler.enqueue("cook") for _ in range(many)))
    assert [len(request.tasks) for request in service.requests] == [1, 17, 31, 16, 16]


async def test_while_a_server_is_away_one_request_is_tried_again_and_all_others_wait(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    await scheduler.enqueue("first")
    service.arrived.clear()
    service.script.append(Refusal(grpc.StatusCode.UNAVAILABLE, retry_delay=0.2))
    callers = [asyncio.create_task(scheduler.enqueue("again"))]
    await service.arrived.wait()
    await there_and_back(scheduler)
    callers += [asyncio.create_task(scheduler.enqueue("later")) for _ in range(64)]
    await asyncio.gather(*callers)
    assert [len(request.tasks) for request in service.requests] == [1, 1, 1, 32, 32]


class SlowDoor:
    """A gate that takes some round trips to pass; counts how many requests do at once after the script is over."""

    def __init__(self, service: ScriptedSchedulerService, scheduler: Scheduler) -> None:
        self._service = service
        self._scheduler = scheduler
        self._passing = 0
        self.most = 0

    async def wait(self) -> None:
        self._passing += not self._service.script
        self.most = max(self.most, self._passing)
        for _ in range(10):  # whatever else was sent meanwhile has come as well
            await there_and_back(self._scheduler)
        self._passing = max(0, self._passing - 1)


async def test_when_a_server_has_gone_under_two_requests_one_is_tried_again_and_then_the_other(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    await scheduler.enqueue("first")
    service.script += [Refusal(grpc.StatusCode.UNAVAILABLE), Refusal(grpc.StatusCode.UNAVAILABLE)]
    callers = [asyncio.create_task(scheduler.enqueue("cook")) for _ in range(64)]
    await asyncio.sleep(0)
    service.gate = door = SlowDoor(service, scheduler)  # type: ignore[assignment]
    await asyncio.gather(*callers)
    assert [len(request.tasks) for request in service.requests] == [1, 32, 32, 32, 32]
    assert door.most == 1


async def test_a_channel_that_is_closed_under_a_request_fails_nobody(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    await scheduler.enqueue("first")
    service.arrived.clear()
    service.gate.clear()
    caller = asyncio.create_task(scheduler.enqueue("cook"))
    await service.arrived.wait()
    connection = scheduler._connection
    (old,), connection._channels = connection._channels, []
    connection._open_calls()
    await old.close()
    service.gate.set()
    task_id = (await caller).task_id
    assert [request.tasks[0].task_id for request in service.requests[1:]] == [task_id, task_id]


async def test_a_request_carries_at_most_500_tasks_and_stays_below_a_mebibyte(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    await asyncio.gather(*(scheduler.enqueue("small") for _ in range(1_201)))
    assert [len(request.tasks) for request in service.requests] == [500, 351, 350]
    service.requests.clear()

    await asyncio.gather(*(scheduler.enqueue("big", b"x" * 200_000) for _ in range(12)))
    assert [len(request.tasks) for request in service.requests] == [4, 4, 4]
    assert max(request.ByteSize() for request in service.requests) < 1024 * 1024


# callers that leave, and closing


async def test_a_caller_that_is_cancelled_leaves_the_others_alone(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    service.gate.clear()
    first = asyncio.create_task(scheduler.enqueue("first"))
    await service.arrived.wait()
    leaving = asyncio.create_task(scheduler.enqueue("leaving"))
    staying = asyncio.create_task(scheduler.enqueue("staying"))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    service.gate.set()
    await asyncio.gather(first, staying)
    assert [[task.name for task in request.tasks] for request in service.requests] == [["first"], ["staying"]]


async def test_closing_waits_for_what_is_on_its_way(service: ScriptedSchedulerService, address: str) -> None:
    scheduler = Scheduler(address)
    service.gate.clear()
    sent = asyncio.create_task(scheduler.enqueue("cook"))
    await service.arrived.wait()
    closing = asyncio.create_task(scheduler.close())
    await asyncio.sleep(0)
    service.gate.set()
    await closing
    assert (await sent).outcome is Outcome.CREATED


async def test_closing_waits_for_requests_that_are_sent_meanwhile(
    service: ScriptedSchedulerService, address: str
) -> None:
    scheduler = Scheduler(address)
    service.gate.clear()
    callers = [asyncio.create_task(scheduler.enqueue("first"))]
    await service.arrived.wait()
    callers += [asyncio.create_task(scheduler.enqueue("cook")) for _ in range(64)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(scheduler.close())
    await asyncio.sleep(0)
    service.gate.set()
    await closing
    assert {handle.outcome for handle in await asyncio.gather(*callers)} == {Outcome.CREATED}


async def test_closing_at_once_fails_what_no_request_was_made_for(
    service: ScriptedSchedulerService, address: str
) -> None:
    scheduler = Scheduler(address, timeout=None)
    await scheduler.enqueue("first")
    caller = asyncio.create_task(scheduler.enqueue("cook"))
    closing = asyncio.create_task(scheduler.close(grace=0))
    async with asyncio.timeout(10):
        await closing
        with pytest.raises(Unavailable, match="was not sent"):
            await caller


async def test_closing_fails_what_the_server_does_not_answer(service: ScriptedSchedulerService, address: str) -> None:
    scheduler = Scheduler(address, timeout=None)
    service.gate.clear()
    first = asyncio.create_task(scheduler.enqueue("cook"))
    await service.arrived.wait()
    second = asyncio.create_task(scheduler.enqueue("cook"))
    await asyncio.sleep(0)
    await scheduler.close(grace=0)
    answers = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
    with pytest.raises(RuntimeError, match="closed"):
        await scheduler.enqueue("cook")
    service.gate.set()


async def test_a_scheduler_connects_again_in_the_next_event_loop(address: str) -> None:
    scheduler = Scheduler(address)

    async def enqueue() -> Outcome:
        return (await scheduler.enqueue("cook")).outcome

    assert await asyncio.to_thread(asyncio.run, enqueue()) is Outcome.CREATED
    assert await enqueue() is Outcome.CREATED
    with pytest.raises(RuntimeError, match="another event loop"):
        await asyncio.to_thread(asyncio.run, enqueue())
    await scheduler.close()


# many


async def test_many_tasks_travel_in_batches_and_their_handles_come_in_order(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    given = [new_task("cook", i) for i in range(1_700)]
    handles = await scheduler.enqueue_many(iter(given))
    assert [handle.task_id for handle in handles] == [task.task_id for task in given]
    assert [len(request.tasks) for request in service.requests] == [500, 500, 500, 200]
    assert [task.task_id for request in service.requests for task in request.tasks] == [t.task_id for t in given]
    assert await scheduler.enqueue_many([]) == []


async def test_of_many_the_guilty_are_named_and_the_others_enqueued(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    service.script.append(
        Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", fields=(("tasks[3].name", "bad"),))
    )
    service.script.append(lambda request: outcomes(request, conflicting=pb.ENQUEUE_OUTCOME_CONFLICT))
    given = [new_task("conflicting" if i == 5 else "cook") for i in range(10)]
    with pytest.raises(EnqueueManyFailed) as failed:
        await scheduler.enqueue_many(given)
    assert {place: type(error) for place, error in failed.value.errors.items()} == {3: InvalidArgument, 5: Conflict}
    assert [handle is None for handle in failed.value.handles] == [i in (3, 5) for i in range(10)]
    assert failed.value.handles[9].task_id == given[9].task_id


async def test_when_the_server_is_lost_the_rest_is_not_looked_at(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    service.script.extend([None, *[Refusal(grpc.StatusCode.INTERNAL, "INTERNAL")] * 100])
    looked_at = 0

    def endless() -> Any:
        nonlocal looked_at
        while True:
            looked_at += 1
            yield new_task("cook")

    with pytest.raises(EnqueueManyFailed) as failed:
        await scheduler.enqueue_many(endless())
    assert failed.value.code is grpc.StatusCode.INTERNAL
    assert set(range(500)).isdisjoint(failed.value.errors)
    assert 500 in failed.value.errors
    assert looked_at < 10_000


async def test_what_the_callers_generator_raises_comes_after_what_was_sent(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    def broken() -> Any:
        for _ in range(1_700):
            yield new_task("cook")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await scheduler.enqueue_many(broken())
    assert len(service.tasks) == 1_500


async def test_many_at_once_are_a_few_requests_on_their_way(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    service.gate.clear()
    sending = asyncio.gather(scheduler.enqueue_many(new_task("cook") for _ in range(5_000)))
    await service.arrived.wait()
    assert len(service.requests) == 1  # the first one alone, until there is a connection
    service.gate.set()
    service.gate.clear()
    while len(service.requests) < 5:
        service.arrived.clear()
        await service.arrived.wait()
    await there_and_back(scheduler)
    assert len(service.requests) == 5
    service.gate.set()
    (handles,) = await sending
    assert len(handles) == 5_000
