"""`taskq task cancel`, `rerun`, `reschedule`, `reprioritise`, `delete`: some by their ids, or all that match."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from admin_client import bulk, tables
from admin_client.output import Output
from admin_client.values import MOMENT, SPAN, When, payload
from admin_client.verb import verb

if TYPE_CHECKING:
    from admin_client.client import AdminClient

F = TypeVar("F", bound=Callable[..., Any])


def how_options(command: F) -> F:
    """How far somebody wants to be asked, and when it ends."""
    options = (
        click.option("--dry-run", is_flag=True, help="only say how many there are"),
        click.option("--yes", is_flag=True, help="do not ask"),
        click.option("--no-input", is_flag=True, help="never ask: fail instead"),
        click.option("--expect", type=click.IntRange(1), help="refuse unless exactly so many match"),
        click.option("--max-tasks", type=click.IntRange(1), help="end after so many"),
        click.option("--reason", default="", help="why, for people and for the audit"),
        click.option("--detach", is_flag=True, help="do not wait for its end: `taskq op watch` looks on"),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _which(command: F) -> F:
    matching = click.option("--filter", help="all that match: state:FAILED name:kitchen.*")
    return click.argument("task_ids", nargs=-1)(matching(how_options(command)))


def _wish(word: str, action: Any, task_ids: tuple[str, ...], filter: str | None, **how: Any) -> bulk.Wish:
    return bulk.Wish(word, action, task_ids, bulk.chosen(task_ids, filter), **how)


def _when(at: When | None, delay: float | None) -> Any:
    from client_core.times import to_duration, to_timestamp
    from taskq.v1.bulk_operation_pb2 import RescheduleAction

    if (at is None) == (delay is None):
        raise click.UsageError("say when: either --at or --delay", click.get_current_context())
    if at is not None and not at.is_relative:
        return RescheduleAction(due_time=to_timestamp(at.moment()))
    return RescheduleAction(delay=to_duration(max(0.0, at.seconds if at is not None else delay or 0.0)))


async def cancel(client: AdminClient, output: Output, **which: Any) -> None:
    """Cancel tasks that wait or run: those with these TASK_IDS, or all that match --filter."""
    from taskq.v1.bulk_operation_pb2 import BulkAction, CancelAction

    wish = _wish("cancel", BulkAction(cancel=CancelAction()), **which)
    if len(wish.task_ids) == 1 and not (wish.reason or wish.dry_run or wish.detach):
        output.show(await client.cancel_task(wish.task_ids[0]), tables.task, wish.task_ids[0])
        return
    await bulk.fulfil(client, output, wish)


async def rerun(client: AdminClient, output: Output, data: str | None, content_type: str, **which: Any) -> None:
    """Run finished tasks again. With --data, a new task with that payload is made of each, and linked to it."""
    from taskq.v1.bulk_operation_pb2 import BulkAction, RerunAction
    from taskq.v1.task_pb2 import Payload

    action = RerunAction()
    if data is not None:
        action.payload.CopyFrom(Payload(data=payload(data, content_type), content_type=content_type))
    await bulk.fulfil(client, output, _wish("rerun", BulkAction(rerun=action), **which))


async def reschedule(client: AdminClient, output: Output, at: When | None, delay: float | None, **which: Any) -> None:
    """Move the due time of tasks that wait."""
    from taskq.v1.bulk_operation_pb2 import BulkAction

    action = BulkAction(reschedule=_when(at, delay))
    await bulk.fulfil(client, output, _wish("reschedule", action, **which))


async def reprioritise(client: AdminClient, output: Output, priority: int, **which: Any) -> None:
    """Change the priority of tasks that wait: 0 to 9, larger runs sooner."""
    from taskq.v1.bulk_operation_pb2 import BulkAction, ReprioritiseAction

    action = BulkAction(reprioritise=ReprioritiseAction(priority=priority))
    await bulk.fulfil(client, output, _wish("reprioritise", action, **which))


async def delete(client: AdminClient, output: Output, **which: Any) -> None:
    """Delete finished tasks, whatever their retention."""
    from taskq.v1.bulk_operation_pb2 import BulkAction, DeleteAction

    await bulk.fulfil(client, output, _wish("delete", BulkAction(delete=DeleteAction()), **which))


def add_to(task: click.Group) -> None:
    """Adds these verbs to `taskq task`."""
    verb(task, "cancel")(_which(cancel))
    data = click.option("-d", "--data", help="another payload: JSON, @file, or - for stdin")
    kind = click.option("--content-type", default="application/json", help="what that is, if not application/json")
    verb(task, "rerun")(_which(data(kind(rerun))))
    at = click.option("--at", type=MOMENT, help="when they may run: +5m, ISO 8601, epoch seconds, now")
    delay = click.option("--delay", type=SPAN, help="how long from now: 5m")
    verb(task, "reschedule")(_which(at(delay(reschedule))))
    priority = click.option("--priority", type=click.IntRange(0, 9), required=True, help="0 to 9; larger runs sooner")
    verb(task, "reprioritise")(_which(priority(reprioritise)))
    verb(task, "delete")(_which(delete))
