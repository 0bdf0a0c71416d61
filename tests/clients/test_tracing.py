"""What a program that traces sees: where a task was enqueued, where it was run, and that the two belong together."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from processor_client import Context, Processor, Snooze
from scheduler_client import Conflict, Retry, Scheduler, TaskFailed, new_task
from taskq_server.server import Server
from tests.support.waiting import until_async


class Traces:
    """The spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def of(self, kind: SpanKind) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.kind is kind]

    async def one(self, kind: SpanKind) -> ReadableSpan:
        """The only span of a kind, once it has ended: its task may be seen as finished a moment before."""
        await until_async(lambda: bool(self.of(kind)), "a span ends")
        (span,) = self.of(kind)
        return span


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    """A program that has told OpenTelemetry where its spans go; the next test has not."""
    traces = Traces()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: traces.provider)
    yield traces
    traces.provider.shutdown()


async def test_a_task_is_sent_in_the_trace_of_its_caller_and_run_in_one_of_its_own_that_links_to_it(
    traces: Traces, server: Server
) -> None:
    seen: list[Any] = []
    processor = Processor(server.address)

    @processor.task("cook")
    async def cook(ctx: Context) -> None:
        seen.append((trace.get_current_span().get_span_context().span_id, baggage.get_baggage("tenant"), ctx.headers))

    async with Scheduler(server.address) as scheduler, processor:
        token = context.attach(baggage.set_baggage("tenant", "blue"))
        with traces.provider.get_tracer("test").start_as_current_span("order") as order:
            handle = await scheduler.enqueue("cook", {"dish": "secret soup"})
        context.detach(token)
        await handle.result(timeout=20)

    sent, run = await traces.one(SpanKind.PRODUCER), await traces.one(SpanKind.CONSUMER)
    assert (sent.name, run.name) == ("send cook", "process cook")
    assert sent.parent is not None and sent.parent.span_id == order.get_span_context().span_id
    assert run.parent is None
    assert sent.context is not None and run.context is not None
    assert run.context.trace_id != sent.context.trace_id
    assert [link.context.span_id for link in run.links] == [sent.context.span_id]
    for span, operation in ((sent, "send"), (run, "process")):
        assert span.attributes is not None
        assert span.attributes["messaging.system"] == "taskq"
        assert span.attributes["messaging.operation.type"] == operation
        assert span.attributes["messaging.destination.name"] == "cook"
        assert span.attributes["messaging.message.id"] == handle.task_id
        assert "secret" not in str(span.attributes)
    assert run.attributes is not None and run.attributes["taskq.attempt"] == 1
    ((span_id, tenant, headers),) = seen
    assert span_id == run.context.span_id and tenant == "blue"
    assert f"{sent.context.span_id:016x}" in headers["traceparent"]


async def test_a_handler_in_a_thread_is_inside_its_span_too(traces: Traces, server: Server) -> None:
    seen: list[tuple[int, bool]] = []
    processor = Processor(server.address)

    @processor.task("cook")
    def cook() -> None:
        is_elsewhere = threading.current_thread() is not threading.main_thread()
        seen.append((trace.get_current_span().get_span_context().span_id, is_elsewhere))

    async with Scheduler(server.address) as scheduler, processor:
        await (await scheduler.enqueue("cook")).result(timeout=20)
    run = await traces.one(SpanKind.CONSUMER)
    assert run.context is not None
    assert seen == [(run.context.span_id, True)]


async def test_many_tasks_are_sent_in_one_span_and_all_carry_it(traces: Traces, server: Server) -> None:
    async with Scheduler(server.address) as scheduler:
        handles = await scheduler.enqueue_many(new_task("cook") for _ in range(3))
        sent = await traces.one(SpanKind.PRODUCER)
        assert sent.attributes is not None and sent.attributes["messaging.batch.message_count"] == 3
        assert len(handles) == 3


async def test_a_handler_that_raises_fails_its_span_and_one_that_snoozes_does_not(
    traces: Traces, server: Server
) -> None:
    processor = Processor(server.address)
    snoozed = asyncio.Event()

    @processor.task("burn")
    async def burn() -> None:
        raise ValueError("burnt")

    @processor.task("doze")
    async def doze() -> None:
        snoozed.set()
        raise Snooze(delay="1h")

    async with Scheduler(server.address) as scheduler, processor:
        burning = await scheduler.enqueue("burn", retry=Retry(max_attempts=1))
        with pytest.raises(TaskFailed):
            await scheduler.result(burning.task_id, timeout=20)
        failed = await traces.one(SpanKind.CONSUMER)
        assert failed.status.status_code is StatusCode.ERROR
        assert failed.attributes is not None and failed.attributes["error.type"] == "ValueError"
        await scheduler.enqueue("doze")
        async with asyncio.timeout(20):
            await snoozed.wait()
    (dozed,) = [span for span in traces.of(SpanKind.CONSUMER) if span.name == "process doze"]
    assert dozed.status.status_code is StatusCode.UNSET


async def test_a_task_that_is_enqueued_again_from_another_trace_is_the_same_task(
    traces: Traces, server: Server
) -> None:
    task_id = "01935000-0000-7000-8000-000000000001"
    tracer = traces.provider.get_tracer("test")
    async with Scheduler(server.address) as scheduler:
        for name in ("first", "second"):
            with tracer.start_as_current_span(name):
                await scheduler.enqueue("cook", {"dish": "soup"}, task_id=task_id)
        with pytest.raises(Conflict):
            await scheduler.enqueue("cook", {"dish": "stew"}, task_id=task_id)
        with pytest.raises(Conflict):
            await scheduler.enqueue("cook", {"dish": "soup"}, task_id=task_id, headers={"tenant": "blue"})


async def test_a_context_that_the_caller_gives_is_kept(traces: Traces, server: Server) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    message = new_task("cook", headers={"traceparent": given})
    async with Scheduler(server.address) as scheduler:
        await scheduler.enqueue(message)
    assert dict(message.headers) == {"traceparent": given}


async def test_a_program_that_does_not_trace_sends_no_headers_and_makes_no_spans(server: Server) -> None:
    message = new_task("cook")
    async with Scheduler(server.address) as scheduler:
        await scheduler.enqueue(message)
        await scheduler.enqueue_many([message])
    assert not message.headers


def test_a_program_that_does_not_trace_does_not_import_opentelemetry() -> None:
    program = (
        "import sys, scheduler_client, processor_client; from client_core import tracing; "
        "assert not tracing.is_on(); print(*sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not any(name.startswith("opentelemetry") for name in ended.stdout.split())
