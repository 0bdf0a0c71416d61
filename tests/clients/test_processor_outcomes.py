"""What a handler does becomes what is reported, and the hooks follow the server's answer."""

import asyncio
import contextvars
import logging
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from client_core.payload import decode
from processor_client import Context, Fail, Retry, Snooze, Task, TaskCancelled
from taskq.v1 import processor_service_pb2 as pb
from taskq.v1.task_pb2 import TASK_STATE_FAILED, TASK_STATE_SCHEDULED, Payload
from tests.clients.scripted_processor_service import Runs, a_task, at_work, now, utc_now


@dataclass
class Dish:
    name: str
    servings: int = 1


async def outcome_of(function: Any, args: object = None, **fields: Any) -> pb.TaskResult:
    async with at_work(Runs("cook", function)) as (server, stream):
        task = a_task("cook", args, **fields)
        stream.send(task)
        return await server.result_of(task)


async def test_what_an_async_handler_returns_is_its_result() -> None:
    async def cook(dish: str) -> dict[str, str]:
        await asyncio.sleep(0)
        return {"cooked": dish}

    result = await outcome_of(cook, {"dish": "soup"})

    assert decode(result.succeeded.result) == {"cooked": "soup"}


async def test_a_handler_that_returns_nothing_succeeds_without_a_result() -> None:
    async def cook() -> None: ...

    result = await outcome_of(cook)

    assert result.HasField("succeeded")
    assert not result.succeeded.HasField("result")


async def test_a_plain_function_runs_in_a_thread_and_keeps_the_loop_free() -> None:
    async def free(ctx: Context) -> None:
        ready.set()

    def busy() -> str:
        assert ready.wait(10)
        return threading.current_thread().name

    ready = threading.Event()
    async with at_work(Runs("busy", busy), Runs("free", free)) as (server, stream):
        task = a_task("busy")
        stream.send(task, a_task("free"))
        result = await server.result_of(task)

    assert decode(result.succeeded.result).startswith("taskq-handler")


async def test_a_dataclass_goes_in_and_comes_out() -> None:
    async def cook(args: Dish) -> Dish:
        return Dish(args.name, args.servings * 2)

    result = await outcome_of(cook, {"name": "soup", "servings": 2})

    assert decode(result.succeeded.result, Dish) == Dish("soup", 4)


async def test_an_error_is_reported_with_its_type_its_message_and_its_stack() -> None:
    async def cook() -> None:
        raise ValueError("burnt")

    failed = (await outcome_of(cook)).failed

    assert (failed.error_type, failed.message) == ("ValueError", "burnt")
    assert "in cook" in failed.stack
    assert not failed.HasField("retryable")


async def test_the_type_of_an_error_is_qualified_by_its_module() -> None:
    async def cook() -> None:
        raise asyncio.InvalidStateError

    assert (await outcome_of(cook)).failed.error_type == "asyncio.exceptions.InvalidStateError"


async def test_an_error_that_no_database_takes_is_cleaned_and_cut(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "taskq.processor")  # a report with half a character could not be written

    async def cook() -> None:
        raise ValueError("\0\ud800" + "x" * 10_000)

    failed = (await outcome_of(cook)).failed

    assert failed.message.startswith("\\0\\ud800x")
    assert len(failed.message) == 4_096


async def test_retry_asks_for_another_attempt_after_a_delay() -> None:
    async def cook() -> None:
        raise Retry("oven busy", after="30s")

    failed = (await outcome_of(cook)).failed

    assert (failed.retryable, failed.retry_delay.seconds, failed.message) == (True, 30, "oven busy")


async def test_fail_ends_the_task() -> None:
    async def cook() -> None:
        raise Fail("no such dish", error_type="UNKNOWN_DISH")

    failed = (await outcome_of(cook)).failed

    assert failed.HasField("retryable")
    assert (failed.retryable, failed.error_type, failed.message) == (False, "UNKNOWN_DISH", "no such dish")


async def test_snooze_gives_the_task_back_until_then() -> None:
    until = datetime(2030, 1, 1, tzinfo=UTC)

    async def cook() -> None:
        raise Snooze(until=until)

    assert (await outcome_of(cook)).released.due_time.ToDatetime(UTC) == until


async def test_snooze_for_a_while_counts_on_the_servers_clock() -> None:
    async def cook() -> None:
        raise Snooze(delay="1h")

    due = (await outcome_of(cook)).released.due_time.ToDatetime(UTC)

    assert abs(due - utc_now() - timedelta(hours=1)) < timedelta(minutes=1)


@pytest.mark.parametrize("times", [{}, {"until": 1, "delay": 1}])
def test_a_snooze_says_when_and_only_once(times: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="must have one of until and delay"):
        Snooze(**times)


async def test_a_mistake_in_what_is_asked_for_is_a_failure() -> None:
    async def cook() -> None:
        raise Retry(after="soon")

    failed = (await outcome_of(cook)).failed

    assert failed.error_type == "ValueError"
    assert "soon" in failed.message


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException("all of it")])
async def test_no_exception_of_a_thread_ends_the_processor(error: BaseException) -> None:
    def cook(burn: bool) -> None:
        if burn:
            raise error

    async with at_work(Runs("cook", cook)) as (server, stream):
        bad, good = a_task("cook", {"burn": True}), a_task("cook", {"burn": False})
        stream.send(bad)
        assert (await server.result_of(bad)).failed.error_type == type(error).__name__
        stream.send(good)
        assert (await server.result_of(good)).HasField("succeeded")


@pytest.mark.parametrize("leave", [sys.exit, lambda: (_ for _ in ()).throw(BaseException)])
async def test_no_exception_on_the_loop_ends_the_processor(leave: Any) -> None:
    async def cook(burn: bool) -> None:
        if burn:
            next(iter(leave() or ()))

    async with at_work(Runs("cook", cook)) as (server, stream):
        bad, good = a_task("cook", {"burn": True}), a_task("cook", {"burn": False})
        stream.send(bad)
        assert (await server.result_of(bad)).HasField("failed")
        stream.send(good)
        assert (await server.result_of(good)).HasField("succeeded")


async def test_a_handler_that_is_cancelled_by_its_own_doing_has_failed() -> None:
    async def cook() -> None:
        raise asyncio.CancelledError

    assert (await outcome_of(cook)).failed.error_type == "asyncio.exceptions.CancelledError"


@pytest.mark.parametrize("waits", [True, False])
async def test_a_handler_that_cancels_its_own_task_harms_only_itself(waits: bool) -> None:
    async def cook(burn: bool) -> None:
        task = asyncio.current_task()
        if burn and task is not None:
            task.cancel()
        if waits or not burn:
            await asyncio.sleep(0)

    async with at_work(Runs("cook", cook), concurrency=1) as (server, stream):
        bad, good = a_task("cook", {"burn": True}), a_task("cook", {"burn": False})
        stream.send(bad, good)
        assert (await server.result_of(bad)).HasField("failed") is waits
        assert (await server.result_of(good)).HasField("succeeded")


async def test_a_payload_that_cannot_be_decoded_is_a_failure_that_says_so() -> None:
    async def cook(dish: str) -> None: ...

    failed = (await outcome_of(cook, Payload(data=b"{", content_type="application/json"))).failed

    assert failed.error_type == "PAYLOAD_UNDECODABLE"
    assert "JSON" in failed.message


async def test_a_result_that_cannot_be_encoded_ends_the_task() -> None:
    async def cook() -> object:
        return object()

    failed = (await outcome_of(cook)).failed

    assert (failed.error_type, failed.retryable) == ("RESULT_NOT_ENCODABLE", False)


@pytest.mark.parametrize(("size", "is_kept"), [(262_144, True), (262_145, False)])
async def test_a_result_of_256_kib_is_kept_and_a_larger_one_is_refused_before_it_is_sent(
    size: int, is_kept: bool
) -> None:
    async def cook() -> bytes:
        return b"x" * size

    result = await outcome_of(cook)

    assert result.HasField("succeeded") is is_kept
    assert is_kept or result.failed.error_type == "RESULT_TOO_LARGE"


async def test_a_name_that_nobody_here_runs_is_released_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with at_work(Runs("cook", lambda: None)) as (server, stream):
        task = a_task("wash")
        stream.send(task)
        result = await server.result_of(task)

    assert result.HasField("released")
    assert result.released.due_time.ToDatetime(UTC) > utc_now()
    assert any(r.levelno == logging.ERROR and "'wash'" in r.getMessage() for r in caplog.records)


async def test_a_handler_sees_what_came_before_it() -> None:
    async def cook(ctx: Context) -> None:
        seen.append((ctx.attempt, ctx.checkpoint, ctx.last_failure, ctx.deadline))

    seen: list[Any] = []
    task = a_task("cook", attempt=3, checkpoint=Payload(data=b'{"page":2}', content_type="application/json"))
    task.last_failure.error_type = "ValueError"
    task.last_failure.attempt = 2
    task.run_deadline.CopyFrom(now(60))
    task.run_timeout.seconds = 60
    async with at_work(Runs("cook", cook)) as (server, stream):
        stream.send(task)
        await server.result_of(task)

    ((attempt, checkpoint, last_failure, deadline),) = seen
    assert (attempt, checkpoint) == (3, {"page": 2})
    assert (last_failure.error_type, last_failure.attempt) == ("ValueError", 2)
    assert deadline == task.run_deadline.ToDatetime(UTC)


class Cook(Task):
    name = "cook"
    calls: asyncio.Queue[Any]

    async def process(self, ctx: Context, args: dict[str, Any]) -> str:
        self.dish = args["dish"]
        if self.dish == "toast":
            raise ValueError("burnt")
        return f"cooked {self.dish}"

    async def success(self, ctx: Context, result: str) -> None:
        self.calls.put_nowait(("success", ctx.task_id, self.dish, result))
        raise RuntimeError("a hook's own fault")

    def failure(self, ctx: Context, error: BaseException, *, will_retry: bool) -> None:
        asyncio.run_coroutine_threadsafe(self.calls.put((str(error), self.dish, will_retry)), self.loop).result(10)

    loop: asyncio.AbstractEventLoop


@pytest.fixture
async def cook() -> type[Cook]:
    Cook.calls, Cook.loop = asyncio.Queue(), asyncio.get_running_loop()
    return Cook


async def test_success_runs_once_the_server_has_accepted_the_result(cook: type[Cook]) -> None:
    async with at_work(cook) as (server, stream):
        server.answering.clear()
        task = a_task("cook", {"dish": "soup"})
        stream.send(task)
        await server.beats()
        assert cook.calls.empty()

        server.answering.set()
        assert await asyncio.wait_for(cook.calls.get(), 10) == ("success", task.task_id, "soup", "cooked soup")


async def test_what_a_hook_raises_changes_nothing(cook: type[Cook], caplog: pytest.LogCaptureFixture) -> None:
    async with at_work(cook, concurrency=1) as (server, stream):
        for _ in range(2):
            task = a_task("cook", {"dish": "soup"})
            stream.send(task)
            assert (await server.result_of(task)).HasField("succeeded")
            await asyncio.wait_for(cook.calls.get(), 10)

    assert "success() of cook raised" in caplog.text


@pytest.mark.parametrize("will_retry", [True, False])
async def test_failure_learns_from_the_servers_answer_whether_there_will_be_another(
    cook: type[Cook], will_retry: bool
) -> None:
    async with at_work(cook) as (server, stream):
        state = TASK_STATE_SCHEDULED if will_retry else TASK_STATE_FAILED
        server.judge = lambda result: pb.ReportAnswer(status=pb.REPORT_STATUS_ACCEPTED, state=state)
        stream.send(a_task("cook", {"dish": "toast"}))

        assert await asyncio.wait_for(cook.calls.get(), 10) == ("burnt", "toast", will_retry)


@pytest.mark.parametrize("status", [pb.REPORT_STATUS_LEASE_LOST, pb.REPORT_STATUS_NOT_FOUND])
async def test_no_hook_runs_when_the_report_came_too_late(cook: type[Cook], status: pb.ReportStatus) -> None:
    async with at_work(cook) as (server, stream):
        server.judge = lambda result: pb.ReportAnswer(status=status)
        task = a_task("cook", {"dish": "soup"})
        stream.send(task)
        await server.result_of(task)
        await server.until(lambda: server.heartbeats and not server.heartbeats[-1].in_flight)

    assert cook.calls.empty()


async def test_middleware_stands_around_every_handler() -> None:
    async def outer(ctx: Context, call_next: Any) -> Any:
        calls.append(("outer", ctx.name))
        return f"<{await call_next(ctx)}>"

    async def inner(ctx: Context, call_next: Any) -> Any:
        try:
            return await call_next()
        except ValueError as error:
            return f"mended {error}"

    def cook() -> None:
        raise ValueError("burnt")

    calls: list[Any] = []
    async with at_work(Runs("cook", cook), middleware=[outer, inner]) as (server, stream):
        task = a_task("cook")
        stream.send(task)
        result = await server.result_of(task)

    assert decode(result.succeeded.result) == "<mended burnt>"
    assert calls == [("outer", "cook")]


async def test_what_one_handler_leaves_in_its_context_the_next_does_not_find() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="clean")

    async def cook() -> str:
        found = variable.get()
        variable.set("dirty")
        return found

    async with at_work(Runs("cook", cook), concurrency=1) as (server, stream):
        tasks = [a_task("cook") for _ in range(3)]
        stream.send(*tasks)
        found = [decode((await server.result_of(task)).succeeded.result) for task in tasks]

    assert found == ["clean"] * 3


async def test_a_timeout_of_the_handlers_own_hits_only_itself() -> None:
    async def cook() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    async with at_work(Runs("cook", cook), concurrency=1) as (server, stream):
        tasks = [a_task("cook") for _ in range(2)]
        stream.send(*tasks)
        assert {(await server.result_of(task)).failed.error_type for task in tasks} == {"TimeoutError"}


async def test_no_more_run_at_a_time_than_concurrency_says_and_in_the_order_in_which_they_came() -> None:
    async def cook(number: int) -> None:
        running.append(number)
        most.append(len(running))
        await asyncio.sleep(0)
        running.remove(number)
        order.append(number)

    running: list[int] = []
    most: list[int] = []
    order: list[int] = []
    async with at_work(Runs("cook", cook), concurrency=3) as (server, stream):
        stream.send(*[a_task("cook", {"number": number}) for number in range(20)])
        await server.until(lambda: len(server.results) == 20)

    assert max(most) == 3
    assert order == sorted(order)


async def test_a_handler_that_waits_does_not_hold_up_the_others() -> None:
    async def cook(wait: bool) -> None:
        if wait:
            await gate.wait()

    gate = asyncio.Event()
    async with at_work(Runs("cook", cook), concurrency=2) as (server, stream):
        slow, quick = a_task("cook", {"wait": True}), a_task("cook", {"wait": False})
        stream.send(slow, quick)
        assert (await server.result_of(quick)).HasField("succeeded")
        gate.set()
        await server.result_of(slow)


def test_a_cancellation_is_no_exception_for_a_handler_to_swallow() -> None:
    assert issubclass(TaskCancelled, BaseException)
