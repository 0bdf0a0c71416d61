"""`taskq task`: one task."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from admin_client import drafts, lists, tables, waiting
from admin_client.commands import task_bulk
from admin_client.output import Output
from admin_client.values import MOMENT, SPAN, When, choice, chosen
from admin_client.verb import verb
from admin_client.words import count as counted
from admin_client.words import enum
from taskq.v1.scheduler_service_pb2 import DedupConflict

if TYPE_CHECKING:
    from admin_client.client import AdminClient

_FULL_HELP = "also payload, result, headers and stack traces; needs the right payload:read"


@click.group()
def task() -> None:
    """Enqueue, find, explain, cancel, rerun, move and delete tasks, one or many.

    FILTER is terms that must all be true, such as `state:FAILED name:kitchen.* enqueue_time>now-1h`.
    """


@verb(task, "enqueue")
@click.argument("name")
@drafts.content_options
@click.option("--at", type=MOMENT, help="when it may run: +5m, ISO 8601, or epoch seconds; else now")
@click.option("--delay", type=SPAN, help="how long from now: 5m")
@click.option("--expire", type=MOMENT, help="it fails unless it has started by then")
@click.option("--id", "task_id", help="a UUID: the same id again is the same task")
@click.option("--key", help="at most one task of this name holds a key")
@click.option("--key-scope", default="", help="the space of the key, if not the name")
@click.option("--key-ttl", type=SPAN, help="how long the key is held, if not until the task is finished")
@click.option("--on-conflict", type=choice(DedupConflict), help="when another holds the key (return-existing)")
@click.option(
    "--wait", is_flag=True, help="until it is finished; exit code 3 if it fails, 4 if it is cancelled or late"
)
@click.option("--wait-timeout", type=SPAN, help="how long to wait, if not for ever")
async def enqueue(
    client: AdminClient,
    output: Output,
    name: str,
    at: When | None,
    delay: float | None,
    expire: When | None,
    task_id: str | None,
    key: str | None,
    key_scope: str,
    key_ttl: float | None,
    on_conflict: str | None,
    wait: bool,
    wait_timeout: float | None,
    **content: Any,
) -> None:
    """Enqueue a task: its NAME is the capability that its processor must have."""
    from uuid import uuid4

    from client_core.times import to_duration, to_timestamp
    from taskq.v1.scheduler_service_pb2 import Dedup, NewTask, WatchTaskResponse

    if at is not None and delay is not None:
        raise click.UsageError("--at and --delay are both given: one of them", click.get_current_context())
    new = NewTask(task_id=task_id or str(uuid4()), name=name)
    drafts.fill(new, **content)
    if at is not None and not at.is_relative:
        new.due_time.CopyFrom(to_timestamp(at.moment()))
    elif at is not None or delay is not None:
        new.delay.CopyFrom(to_duration(max(0.0, at.seconds if at is not None else delay or 0.0)))
    if expire is not None:
        new.expire_time.CopyFrom(to_timestamp(expire.moment()))
    if key is not None:
        new.dedup.CopyFrom(Dedup(key=key, scope=key_scope, on_conflict=chosen(DedupConflict, on_conflict)))
        if key_ttl is not None:
            new.dedup.ttl.CopyFrom(to_duration(key_ttl))
    trace_id = drafts.continue_trace(new, os.environ)
    if trace_id and click.get_current_context().obj.is_verbose:
        click.echo(f"trace id: {trace_id}", err=True)
    output.shown = WatchTaskResponse.DESCRIPTOR if wait else None
    answer = await client.enqueue([new])
    (result,) = answer.results
    outcome = enum(result, "outcome")
    if outcome in ("REJECTED", "CONFLICT"):
        from client_core.errors import AlreadyExists

        said = f"another task holds the key {key!r}" if outcome == "REJECTED" else "its id belongs to another task"
        raise AlreadyExists(f"{said}: {result.task_id}", reason=outcome, metadata={"task_id": result.task_id})
    if not wait:
        output.show(answer, _enqueued, result.task_id)
        return
    if output.kind == "table":
        click.echo(f"{result.task_id} {outcome.lower()}", err=True)
    last: list[Any] = []
    try:
        await waiting.wait(client, [result.task_id], wait_timeout, lambda answer: last.append(answer))
    finally:
        if last:
            output.show(last[-1], tables.task, result.task_id)


def _enqueued(answer: Any, words: Any) -> list[Any]:
    (result,) = answer.results
    facts = [("id", result.task_id), ("outcome", enum(result, "outcome")), ("due", words.at(result, "due_time"))]
    return [facts]


@verb(task, "list")
@click.option("--filter", default="", help="which: state:FAILED name:kitchen.*")
@click.option("--full", is_flag=True, help=_FULL_HELP)
@lists.list_options
async def list_(client: AdminClient, output: Output, filter: str, full: bool, **how: Any) -> None:
    """List tasks, those enqueued last first."""
    from taskq.v1.admin_task_pb2 import TASK_VIEW_BASIC, TASK_VIEW_FULL

    view = TASK_VIEW_FULL if full else TASK_VIEW_BASIC
    await lists.show(
        output,
        lambda limit, token: client.list_tasks(filter, limit=limit, page_token=token, view=view),
        tables.TASKS,
        **how,
    )


@verb(task, "count")
@click.option("--filter", default="", help="which: state:FAILED name:kitchen.*")
async def count(client: AdminClient, output: Output, filter: str) -> None:
    """Count the tasks that a filter matches. Of very many, as far as the server looks."""
    answer = await client.count_tasks(filter)
    answer.ClearField("tasks")  # the one of its page
    answer.ClearField("next_page_token")
    number = counted(answer.total_size, or_more=answer.total_is_partial)
    output.show(answer, lambda answer, words: [number], str(answer.total_size))


@verb(task, "get")
@click.argument("task_id")
@click.option("--full", is_flag=True, help=_FULL_HELP)
async def get(client: AdminClient, output: Output, task_id: str, full: bool) -> None:
    """Show a task with its attempts, its failures and its timeline."""
    from taskq.v1.admin_task_pb2 import TASK_VIEW_BASIC, TASK_VIEW_FULL

    answer = await client.get_task(task_id, TASK_VIEW_FULL if full else TASK_VIEW_BASIC)
    output.show(answer, tables.task_detail, task_id)


@verb(task, "explain")
@click.argument("task_id")
async def explain(client: AdminClient, output: Output, task_id: str) -> None:
    """Say why a task is not running, or what became of it."""
    output.show(await client.explain_task(task_id), tables.explanation, task_id)


@verb(task, "watch")
@click.argument("task_ids", nargs=-1, required=True)
async def watch(client: AdminClient, output: Output, task_ids: tuple[str, ...]) -> None:
    """Show tasks as they stand and after each change, until all are finished."""
    async for answer in client.watch_tasks(task_ids):
        _changed(output, answer)


@verb(task, "wait")
@click.argument("task_ids", nargs=-1, required=True)
@click.option("--wait-timeout", type=SPAN, help="how long to wait, if not for ever")
async def wait(client: AdminClient, output: Output, task_ids: tuple[str, ...], wait_timeout: float | None) -> None:
    """Wait until tasks are finished: exit code 3 if one failed, 4 if one was cancelled or is late."""
    finished: dict[str, Any] = {}

    def changed(answer: Any) -> None:
        if answer.task.HasField("finish_time"):
            finished[answer.task.task_id] = answer

    try:
        await waiting.wait(client, task_ids, wait_timeout, changed)
    finally:
        for answer in finished.values():
            _changed(output, answer)


def _changed(output: Output, answer: Any) -> None:
    """One line for each change: who looks on does not want a page."""
    task = answer.task
    parts = [task.task_id, enum(task, "state"), task.name]
    parts += [f"attempt {task.attempt}"] if task.attempt else []
    parts += [f"on {task.processor_name}"] if task.processor_name else []
    if task.HasField("last_failure"):
        parts.append(f"{task.last_failure.error_type}: {task.last_failure.message}")
    output.show(answer, lambda answer, words: ["  ".join(parts)], task.task_id)


@verb(task, "prune")
@click.option("--reason", default="", help="why, for the audit")
async def prune(client: AdminClient, output: Output, reason: str) -> None:
    """Delete finished tasks whose retention has passed, without waiting for the server's own rounds."""
    total = 0
    while True:
        answer = await client.prune_tasks(reason=reason)
        total += answer.pruned_tasks
        if not answer.has_more:
            break
    answer.pruned_tasks = total
    output.show(answer, lambda answer, words: [f"{counted(total)} pruned"])


task_bulk.add_to(task)
