"""The same done to many tasks: counted first, confirmed, started, followed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import click

from admin_client.errors import DECLINED, FAILED_PRECONDITION, Ended
from admin_client.output import Block, Column, Output, Table
from admin_client.values import interruptible
from admin_client.words import Words, clean, count, enum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from admin_client.client import AdminClient

MANY: Final = 1_000
"""More than so many are confirmed by their number, not by a letter."""

SOON_SECONDS, INTERVAL_SECONDS = 0.02, 0.5
"""How soon an operation is looked at, which may be a small one; and how often at most."""


@dataclass(frozen=True)
class Wish:
    """What is to be done to which tasks, and how far somebody wants to be asked."""

    word: str
    action: Any
    task_ids: tuple[str, ...]
    filter: str
    reason: str
    dry_run: bool
    yes: bool
    no_input: bool
    detach: bool
    expect: int | None
    max_tasks: int | None


def chosen(task_ids: tuple[str, ...], filter: str | None) -> str:
    """The filter. UsageError unless either ids or a filter say which tasks."""
    if bool(task_ids) == (filter is not None):
        raise click.UsageError("say which tasks: either their ids, or --filter", click.get_current_context())
    if filter is not None and not filter.strip():
        raise click.BadParameter("is empty, and would match all tasks; must have a term", param_hint="--filter")
    return filter or ""


async def fulfil(client: AdminClient, output: Output, wish: Wish) -> None:
    """Does it, and shows what came of it."""
    which: dict[str, Any] = {"filter": wish.filter, "task_ids": wish.task_ids, "max_tasks": wish.max_tasks or 0}
    if wish.dry_run:
        answer = await client.start_operation(wish.action, dry_run=True, expected_count=wish.expect or 0, **which)
        output.show(answer, _matched)
        return
    expected = wish.expect or 0
    if wish.filter and not wish.yes and not click.get_current_context().obj.is_grpcurl:
        expected = await _confirmed(client, wish, which)
    answer = await client.start_operation(
        wish.action, operation_id=str(uuid4()), expected_count=expected, reason=wish.reason, **which
    )
    if wish.detach:
        output.show(answer, operation, answer.operation.operation_id)
        return
    done = await follow(client, answer.operation)
    output.show(done, operation, done.operation.operation_id)
    if wish.task_ids and done.operation.skipped_tasks:
        skipped = f"{count(done.operation.skipped_tasks)} of {len(wish.task_ids)} tasks are as they were"
        why = "; ".join(done.operation.skipped_samples[:3])
        raise Ended(FAILED_PRECONDITION, f"{skipped}: {why}" if why else skipped)


async def _confirmed(client: AdminClient, wish: Wish, which: dict[str, Any]) -> int:
    """Asks whether so many are meant; answers how many the server must find when it begins."""
    from client_core.access import is_loopback

    if wish.no_input or not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here: look with --dry-run, then give --yes")
    found = (
        await client.start_operation(wish.action, dry_run=True, expected_count=wish.expect or 0, **which)
    ).operation
    number = min(found.matched_tasks, wish.max_tasks or found.matched_tasks)
    if not number:
        raise Ended(0, "no task matches: nothing is done")
    shown = count(number, or_more=found.matched_is_partial)
    asked = click.get_current_context().obj
    where = "" if is_loopback(client.address) and not asked.profile else f" at {asked.where}"
    question = f"{wish.word} {shown} {'task' if number == 1 else 'tasks'} matching {wish.filter!r}{where}?"
    with interruptible():
        if number > MANY:
            typed = click.prompt(f"{question} Type {number} to go on", default="", show_default=False, err=True)
            is_sure = str(typed).replace(",", "").strip() == str(number)
        else:
            is_sure = click.confirm(question, err=True)
    if not is_sure:
        raise Ended(DECLINED, "nothing is done")
    return 0 if found.matched_is_partial else int(found.matched_tasks)


async def follow(client: AdminClient, running: Any) -> Any:
    """Looks at an operation until it has ended, with a bar on a terminal. What Ctrl-C ends is the looking."""
    from taskq.v1.bulk_operation_pb2 import BULK_OPERATION_STATE_RUNNING, GetBulkOperationResponse

    answer = GetBulkOperationResponse(operation=running)
    pause = SOON_SECONDS
    try:
        with _bar(running) as advance:
            while answer.operation.state == BULK_OPERATION_STATE_RUNNING:
                advance(answer.operation)
                await asyncio.sleep(pause)
                pause = min(pause * 2, INTERVAL_SECONDS)
                answer = await client.get_operation(running.operation_id)
    except asyncio.CancelledError:
        known = running.operation_id
        click.echo(f"\nit goes on: `taskq op watch {known}` looks on, `taskq op cancel {known}` ends it", err=True)
        raise
    return answer


@contextlib.contextmanager
def _bar(running: Any) -> Iterator[Callable[[Any], None]]:
    """What is told of each look: a bar on a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda operation: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(what(running), total=running.matched_tasks or None)

        def advance(operation: Any) -> None:
            progress.update(bar, completed=operation.done_tasks + operation.skipped_tasks)

        yield advance


def what(operation: Any) -> str:
    """Its action in a word or two."""
    action = operation.action
    kind = action.WhichOneof("action") or ""
    if kind == "reprioritise":
        return f"reprioritise to {action.reprioritise.priority}"
    if kind == "rerun" and action.rerun.HasField("payload"):
        return "rerun with another payload"
    return kind


def _count(operation: Any) -> str:
    return count(operation.matched_tasks, or_more=operation.matched_is_partial)


OPERATIONS: Final = Table(
    [
        Column("ID", lambda one, words: one.operation_id),
        Column("ACTION", lambda one, words: what(one)),
        Column("STATE", lambda one, words: enum(one, "state")),
        Column("MATCHED", lambda one, words: _count(one), is_number=True),
        Column("DONE", lambda one, words: count(one.done_tasks), is_number=True),
        Column("SKIPPED", lambda one, words: count(one.skipped_tasks), is_number=True),
        Column("STARTED", lambda one, words: words.at(one, "start_time")),
        Column("ENDED", lambda one, words: words.at(one, "end_time")),
        Column("BY", lambda one, words: one.principal, is_long=True),
        Column("FILTER", lambda one, words: one.filter, is_long=True),
        Column("REASON", lambda one, words: one.reason, is_long=True),
    ],
    name=lambda one: str(one.operation_id),
    nothing="no operation was started",
)


def _matched(answer: Any, words: Words) -> list[Block]:
    """What a dry run has found: nothing is done yet, and nothing has a state."""
    one = answer.operation
    return [[("would", what(one)), ("filter", one.filter), ("matched", _count(one))]]


def operation(answer: Any, words: Words) -> list[Block]:
    """An answer that holds an operation."""
    one = answer.operation
    return [
        [
            ("id", one.operation_id),
            ("action", what(one)),
            ("state", enum(one, "state")),
            ("filter", one.filter),
            ("matched", _count(one)),
            ("done", count(one.done_tasks)),
            ("skipped", count(one.skipped_tasks)),
            ("why skipped", "; ".join(clean(sample) for sample in one.skipped_samples)),
            ("reason", one.reason),
            ("by", one.principal),
            ("started", words.at(one, "start_time")),
            ("ended", words.at(one, "end_time")),
        ]
    ]
