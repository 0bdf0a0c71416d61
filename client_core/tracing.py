"""Spans for programs that trace: a producer where a task is enqueued, a consumer where it is run, and a link between.

A program that traces with OpenTelemetry has imported it and told it where spans go; then there are spans. Every other
program pays nothing, and needs no package. What a task carries are the W3C's headers, which the server passes on.

The consumer begins a trace of its own, since a task may be due days after it was enqueued; and nothing here lives as
long as a stream. Names follow OpenTelemetry's conventions for messaging (status: Development).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from taskq.v1.scheduler_service_pb2 import NewTask

SYSTEM = "taskq"
HEADERS = "traceparent", "tracestate", "baggage"

Carry = Callable[[NewTask], NewTask]
"""Gives a task the context of a span, unless it has one already."""


def is_on() -> bool:
    """Whether the program has told OpenTelemetry where spans go."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return False
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


@contextmanager
def sending(name: str, task_id: str) -> Iterator[Carry]:
    """A producer's span around the enqueue of one task."""
    if not is_on():
        yield _as_it_is
        return
    with _producer(f"send {name}", {"messaging.destination.name": name, "messaging.message.id": task_id}) as span:
        yield _carrying(span)


@contextmanager
def sending_many() -> Iterator[Carry]:
    """A producer's span around the enqueue of many tasks, which all carry it."""
    if not is_on():
        yield _as_it_is
        return
    sent = 0
    with _producer("send", {}) as span:
        carry = _carrying(span)

        def carry_and_count(message: NewTask) -> NewTask:
            nonlocal sent
            sent += 1
            return carry(message)

        yield carry_and_count
        span.set_attribute("messaging.batch.message_count", sent)


@contextmanager
def processing(name: str, task_id: str, attempt: int, headers: Mapping[str, str]) -> Iterator[Any]:
    """A consumer's span around one attempt, in a trace of its own; it links to the span that enqueued the task."""
    from opentelemetry import context, trace

    carried = _context_of(headers)
    sender = trace.get_current_span(carried).get_span_context()
    attributes = {
        **_attributes("process"),
        "messaging.destination.name": name,
        "messaging.message.id": task_id,
        "taskq.attempt": attempt,
    }
    token = context.attach(trace.set_span_in_context(trace.INVALID_SPAN, carried))  # the baggage alone
    try:
        with _tracer().start_as_current_span(
            f"process {name}",
            kind=trace.SpanKind.CONSUMER,
            links=[trace.Link(sender)] if sender.is_valid else [],
            attributes=attributes,
        ) as span:
            try:
                yield span
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                raise
    finally:
        context.detach(token)


@contextmanager
def _producer(name: str, attributes: Mapping[str, str]) -> Iterator[Any]:
    from opentelemetry import trace

    with _tracer().start_as_current_span(
        name, kind=trace.SpanKind.PRODUCER, attributes={**_attributes("send"), **attributes}
    ) as span:
        yield span


def _tracer() -> Any:
    from opentelemetry import trace

    return trace.get_tracer("taskq")


def _attributes(operation: str) -> dict[str, Any]:
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }


def _as_it_is(message: NewTask) -> NewTask:
    return message


def _carrying(span: Any) -> Carry:
    from opentelemetry import trace
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    context = trace.set_span_in_context(span)
    TraceContextTextMapPropagator().inject(headers, context)
    W3CBaggagePropagator().inject(headers, context)

    def carry(message: NewTask) -> NewTask:
        if headers and HEADERS[0] not in message.headers:
            message.headers.update(headers)
        return message

    return carry


def _context_of(headers: Mapping[str, str]) -> Any:
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract(headers, Context())
    return W3CBaggagePropagator().extract(headers, context)
