"""What a handler may know and say, without a server."""

import asyncio
import logging
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from processor_client import Context, TaskCancelled
from processor_client.cancellation import Cancellation


def test_a_fake_context_calls_a_handler_in_a_unit_test() -> None:
    ctx = Context.fake(
        {"dish": "soup"}, task_id="t1", name="cook", attempt=3, headers={"a": "b"}, tags=["vip"], key="k"
    )

    assert (ctx.task_id, ctx.name, ctx.attempt, ctx.failed_attempts, ctx.max_attempts) == ("t1", "cook", 3, 2, 5)
    assert (ctx.payload, ctx.headers, ctx.tags, ctx.key, ctx.priority) == (
        {"dish": "soup"},
        {"a": "b"},
        ["vip"],
        "k",
        0,
    )
    assert (ctx.deadline, ctx.last_failure, ctx.checkpoint) == (None, None, None)
    assert ctx.due_time == ctx.enqueue_time
    ctx.check_cancelled()


def test_the_idempotency_key_is_the_same_in_every_attempt() -> None:
    first, second = Context.fake(task_id="t1", attempt=1), Context.fake(task_id="t1", attempt=2)

    assert first.idempotency_key == second.idempotency_key


def test_a_checkpoint_that_was_saved_is_the_one_that_is_read() -> None:
    ctx = Context.fake(checkpoint={"page": 1})
    assert ctx.checkpoint == {"page": 1}

    ctx.save_checkpoint({"page": 2})

    assert ctx.checkpoint == {"page": 2}


async def test_progress_may_be_awaited_and_need_not_be() -> None:
    ctx = Context.fake()

    ctx.progress(0.5)
    await ctx.progress(0.6, "simmering")
    await ctx.save_checkpoint([1])


def test_progress_is_cut_and_cleaned() -> None:
    told: list[tuple[float, str]] = []
    listener: Any = SimpleNamespace(progressed=lambda context, fraction, message: told.append((fraction, message)))
    assigned = Context.fake()._assigned

    Context(assigned, listener).progress(-1, "\0\ud800" + "x" * 2_000)

    assert told == [(0.0, "\\0\\ud800" + "x" * 1_016)]


def test_progress_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        Context.fake().progress(float("nan"))


def test_a_checkpoint_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="must be at most 262144"):
        Context.fake().save_checkpoint(b"x" * 262_145)


def test_a_cancelled_context_says_so() -> None:
    ctx = Context.fake(cancelled=True)

    assert ctx.cancelled
    assert ctx.cancelled.is_set()
    with pytest.raises(TaskCancelled):
        ctx.check_cancelled()


def test_a_bare_except_exception_does_not_swallow_a_cancellation() -> None:
    assert not issubclass(TaskCancelled, Exception)


def test_a_thread_waits_for_its_cancellation() -> None:
    ctx = Context.fake()
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(ctx.cancelled.wait(10)))
    thread.start()

    ctx.stop()
    thread.join(10)

    assert woken == [True]


async def test_a_coroutine_waits_for_its_cancellation() -> None:
    cancellation = Cancellation()

    async def wait() -> None:
        await cancellation

    waiting = asyncio.gather(wait(), wait())
    await asyncio.sleep(0)
    threading.Thread(target=cancellation.set).start()
    await asyncio.wait_for(waiting, 10)
    await asyncio.wait_for(wait(), 10)


def test_the_log_carries_the_ids(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "taskq.processor"):
        Context.fake(task_id="t1", name="cook", attempt=2).log.info("stirring", extra={"pot": 1})

    (record,) = caplog.records
    assert (record.task_id, record.task_name, record.attempt, record.pot) == ("t1", "cook", 2, 1)  # type: ignore[attr-defined]
