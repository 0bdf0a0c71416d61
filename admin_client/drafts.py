"""A task as flags describe it: one to be enqueued, or the one that a schedule enqueues at each firing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from admin_client.values import PAIR, SPAN, payload

F = TypeVar("F", bound=Callable[..., Any])

CONTENT: Final = (
    click.option("-d", "--data", help="the payload: JSON, @file, or - for stdin"),
    click.option("--content-type", default="application/json", help="what that is, if not application/json"),
    click.option("--priority", type=click.IntRange(0, 9), default=None, help="0 to 9; larger runs sooner (0)"),
    click.option("--require", "requires", multiple=True, help="what it asks of a processor's labels: 'zone = eu-west'"),
    click.option("--run-timeout", type=SPAN, help="ends an attempt that runs longer"),
    click.option("--max-attempts", type=click.IntRange(1, 1_000), default=None, help="how many may fail (5)"),
    click.option("--header", "headers", type=PAIR, multiple=True, help="carried to the processor"),
    click.option("--tag", "tags", multiple=True, help="a word to find it by"),
    click.option("--retention", type=SPAN, help="how long it is kept once finished"),
)
"""Each may be left out."""


def content_options(command: F) -> F:
    """Adds them to a command, which hands what it is given to `fill`."""
    for option in reversed(CONTENT):
        command = option(command)
    return command


def fill(
    task: Any,
    *,
    data: str | None,
    content_type: str,
    priority: int | None,
    requires: tuple[str, ...],
    run_timeout: float | None,
    max_attempts: int | None,
    headers: tuple[tuple[str, str], ...],
    tags: tuple[str, ...],
    retention: float | None,
) -> None:
    """Writes what is given into a NewTask; what is left out stays as it is."""
    from client_core.times import to_duration
    from taskq.v1.task_pb2 import Payload

    if data is not None:
        task.payload.CopyFrom(Payload(data=payload(data, content_type), content_type=content_type))
    if priority is not None:
        task.priority = priority
    if requires:
        task.requires[:] = requires
    if tags:
        task.tags[:] = tags
    task.headers.update(dict(headers))
    if max_attempts is not None:
        task.retry_policy.max_attempts = max_attempts
    for field, span in (("run_timeout", run_timeout), ("retention", retention)):
        if span is not None:
            getattr(task, field).CopyFrom(to_duration(span))


_TRACE: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def continue_trace(task: Any, environment: Mapping[str, str]) -> str:
    """Lets a task carry the trace of whoever has started this command, as TRACEPARENT says it; answers its id."""
    if "traceparent" not in task.headers and _TRACE.fullmatch(environment.get("TRACEPARENT", "")):
        told = {name: environment.get(name.upper(), "") for name in ("traceparent", "tracestate", "baggage")}
        task.headers.update({name: value for name, value in told.items() if value})
    carried = _TRACE.fullmatch(task.headers["traceparent"]) if "traceparent" in task.headers else None
    return carried[1] if carried is not None else ""
