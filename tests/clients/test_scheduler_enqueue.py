"""Enqueueing when things go wrong: one caller's fault, a server that is away, a reply that is lost."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
from collections.abc import AsyncIterator

import grpc
import pytest

from scheduler_client import (
    Conflict,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    Outcome,
    PermissionDenied,
    Rejected,
    ResourceExhausted,
    Scheduler,
    TaskqError,
    Unavailable,
    calls,
)
from taskq.v1 import scheduler_service_pb2 as pb
from tests.clients.scripted_scheduler_service import Refusal, ScriptedSchedulerService, outcomes, serving, unavailable


@pytest.fixture
async def scheduler(address: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scheduler]:
    monkeypatch.setattr("scheduler_client.enqueuer.FIRST_DELAY", 0.001)
    async with Scheduler(address) as scheduler:
        yield scheduler


# one caller's fault is nobody else's


async def test_a_fault_fails_only_its_own_caller(service: ScriptedSchedulerService, scheduler: Scheduler) -> None:
    service.script.append(
        Refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_FIELDS",
            fields=(("tasks[3].payload", "too large"), ("tasks[3].name", "bad"), ("tasks[7]", "odd")),
        )
    )
    answers = await asyncio.gather(*(scheduler.enqueue(f"cook-{i}") for i in range(10)), return_exceptions=True)

    refused = {i: answer for i, answer in enumerate(answers) if isinstance(answer, InvalidArgument)}
    assert list(refused) == [3, 7]
    assert refused[3].fields == [("payload", "too large"), ("name", "bad")]
    assert refused[7].fields == [("task", "odd")]
    assert refused[3].reason == "INVALID_FIELDS"
    first, second = service.requests
    innocent = [task.task_id for i, task in enumerate(first.tasks) if i not in (3, 7)]
    assert [task.task_id for task in second.tasks] == innocent


@pytest.mark.parametrize("field", ["tasks", "tasks[2].name", "tasks[x].name", "client"])
async def test_a_fault_that_is_nobodys_fails_everybody(
    field: str, service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    service.script.append(Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", fields=((field, "is wrong"),)))
    answers = await asyncio.gather(scheduler.enqueue("a"), scheduler.enqueue("b"), return_exceptions=True)
    assert [type(answer) for answer in answers] == [InvalidArgument, InvalidArgument]
    assert len(service.requests) == 1


async def test_conflict_and_rejection_are_errors_of_their_own(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    service.script.append(
        lambda request: outcomes(
            request, conflicting=pb.ENQUEUE_OUTCOME_CONFLICT, rejected=pb.ENQUEUE_OUTCOME_REJECTED, old=2, changed=3
        )
    )
    conflict, rejected, old, changed = await asyncio.gather(
        scheduler.enqueue("conflicting"),
        scheduler.enqueue("rejected", key="order-1", on_conflict="reject"),
        scheduler.enqueue("old"),
        scheduler.enqueue("changed"),
        return_exceptions=True,
    )
    assert isinstance(conflict, Conflict)
    assert conflict.task_id == service.requests[0].tasks[0].task_id
    assert isinstance(rejected, Rejected)
    assert (rejected.key, rejected.task_id) == ("order-1", service.requests[0].tasks[1].task_id)
    assert not isinstance(old, BaseException)
    assert old.outcome is Outcome.EXISTING
    assert not isinstance(changed, BaseException)
    assert changed.outcome is Outcome.REPLACED


def test_errors_can_be_pickled_whatever_their_arguments() -> None:
    rejected = pickle.loads(pickle.dumps(Rejected("order-1", "t1")))
    assert (type(rejected), rejected.key, str(rejected)) == (Rejected, "order-1", str(Rejected("order-1", "t1")))
    late = pickle.loads(pickle.dumps(DeadlineExceeded("late", metadata={"a": "b"})))
    assert (type(late), late.metadata, str(late)) == (DeadlineExceeded, {"a": "b"}, "late")


# a server that is away


async def test_an_unavailable_server_is_tried_again_with_the_same_ids(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    service.script.extend([unavailable(), unavailable(), unavailable()])
    handle = await scheduler.enqueue("cook")
    assert [[task.task_id for task in request.tasks] for request in service.requests] == [[handle.task_id]] * 4
    assert handle.outcome is Outcome.CREATED


async def test_a_lost_reply_makes_no_second_task(service: ScriptedSchedulerService, scheduler: Scheduler) -> None:
    service.loses_reply = 2
    handle = await scheduler.enqueue("cook")
    assert list(service.tasks) == [handle.task_id]
    assert handle.outcome is Outcome.EXISTING


async def test_an_overloaded_server_says_when_to_come_back(
    service: ScriptedSchedulerService, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = _record_sleeps(monkeypatch)
    service.script.append(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL", retry_delay=7.5))
    await scheduler.enqueue("cook")
    assert [wait for wait in waits if wait >= 7.5] == [7.5]


def _record_sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    sleep = asyncio.sleep

    async def record(delay: float) -> None:
        waits.append(delay)
        await sleep(0)

    monkeypatch.setattr("scheduler_client.enqueuer.asyncio.sleep", record)
    return waits


async def test_a_message_too_large_for_grpc_is_not_tried_again(
    service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    with pytest.raises(ResourceExhausted):
        await scheduler.enqueue("huge", b"x" * (5 * 1024 * 1024))
    assert service.requests == []


@pytest.mark.parametrize(
    ("code", "kind"), [(grpc.StatusCode.PERMISSION_DENIED, PermissionDenied), (grpc.StatusCode.INTERNAL, Internal)]
)
async def test_an_error_that_does_not_pass_is_raised_at_once(
    code: grpc.StatusCode, kind: type[TaskqError], service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    service.script.append(Refusal(code, "WHATEVER"))
    first, second = await asyncio.gather(scheduler.enqueue("a"), scheduler.enqueue("b"), return_exceptions=True)
    assert isinstance(first, kind)
    assert isinstance(second, kind)
    assert first is not second
    ids = [task.task_id for request in service.requests for task in request.tasks]
    assert [first.metadata["task_id"], second.metadata["task_id"]] == ids


async def test_after_the_total_deadline_the_last_error_is_raised_with_the_id(
    service: ScriptedSchedulerService, address: str
) -> None:
    service.script.extend([unavailable()] * 1_000)
    async with Scheduler(address, timeout="50ms") as scheduler:
        with pytest.raises((Unavailable, DeadlineExceeded)) as failed:
            await scheduler.enqueue("cook")
    assert failed.value.metadata["task_id"] == service.requests[0].tasks[0].task_id


async def test_a_server_that_never_answers_is_a_timeout(service: ScriptedSchedulerService, address: str) -> None:
    service.gate.clear()
    async with Scheduler(address, timeout="50ms") as scheduler:
        with pytest.raises(TimeoutError):
            await scheduler.enqueue("cook")
    service.gate.set()


async def test_a_request_without_an_answer_is_sent_again_before_the_total_deadline(
    service: ScriptedSchedulerService, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler_client.enqueuer.CALL_TIMEOUT", 0.05)
    service.gate.clear()
    sent = asyncio.create_task(scheduler.enqueue("cook"))
    await service.arrived.wait()
    service.arrived.clear()
    await service.arrived.wait()
    service.gate.set()
    handle = await sent
    assert {task.task_id for request in service.requests for task in request.tasks} == {handle.task_id}


async def test_a_server_that_is_started_later_gets_the_task(free_port: int) -> None:
    async with Scheduler(f"127.0.0.1:{free_port}", timeout=None) as scheduler:
        sent = asyncio.create_task(scheduler.enqueue("cook"))
        await asyncio.sleep(0)
        service = ScriptedSchedulerService()
        async with serving(service, f"127.0.0.1:{free_port}"):
            handle = await sent
    assert list(service.tasks) == [handle.task_id]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_that_the_server_is_away_is_logged_once(
    service: ScriptedSchedulerService, scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    service.script.extend([unavailable(), unavailable(), unavailable()])
    with caplog.at_level(logging.WARNING, "taskq.scheduler"):
        await scheduler.enqueue("cook")
    assert len(caplog.records) == 1


# calls that ask


async def as_it_is(error: TaskqError) -> TaskqError:
    return error


async def test_a_call_is_repeated_until_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FIRST_DELAY", 0.001)
    tries: list[float] = []

    async def method(request: object, timeout: float) -> str:
        tries.append(timeout)
        if len(tries) < 4:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details="away"
            )
        return "done"

    assert await calls.call(lambda: method, None, 30.0, as_it_is) == "done"
    assert len(tries) == 4
    assert all(0 < timeout <= calls.CALL_TIMEOUT for timeout in tries)


async def test_a_call_gives_up_at_its_deadline() -> None:
    async def method(request: object, timeout: float) -> str:
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details="away"
        )

    with pytest.raises(Unavailable, match="away"):
        await calls.call(lambda: method, None, 0.02, as_it_is)
