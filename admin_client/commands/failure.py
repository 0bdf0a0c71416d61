"""`taskq failure`: alike failures together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from admin_client import bulk, lists
from admin_client.commands import task_bulk
from admin_client.output import Block, Column, Facts, Output, Rows, Table
from admin_client.verb import verb
from admin_client.words import Words, count

if TYPE_CHECKING:
    from admin_client.client import AdminClient

_COUNTED: Final = 1_000


def _failed(group: Any) -> str:
    return count(group.failed_tasks, or_more=group.failed_tasks >= _COUNTED)


FAILURES: Final = Table(
    [
        Column("FINGERPRINT", lambda group, words: group.fingerprint),
        Column("NAME", lambda group, words: group.name, is_long=True),
        Column("FAILURES", lambda group, words: count(group.failures), is_number=True),
        Column("FAILED TASKS", lambda group, words: _failed(group), is_number=True),
        Column("LAST", lambda group, words: words.at(group, "last_time")),
        Column("ERROR", lambda group, words: group.error_type, style=lambda text: "red"),
        Column("MESSAGE", lambda group, words: group.pattern or group.last_message, is_long=True),
    ],
    name=lambda group: str(group.fingerprint),
    nothing="nothing has failed",
)
_TREND: Final = Table(
    [
        Column("HOUR", lambda hour, words: words.at(hour, "start_time")),
        Column("FAILURES", lambda hour, words: count(hour.failures), is_number=True),
    ],
    name=lambda hour: "",
    nothing="",
)


@click.group()
def failure() -> None:
    """Failures, alike ones together."""


@verb(failure, "list")
@click.option("--name", default="", help="only those of tasks of this name")
@click.option("--resolved", is_flag=True, help="also those that somebody has resolved")
@lists.list_options
async def list_(client: AdminClient, output: Output, name: str, resolved: bool, **how: Any) -> None:
    """List groups of alike failures, the one seen last first."""
    await lists.show(
        output,
        lambda limit, token: client.list_failures(name, include_resolved=resolved, limit=limit, page_token=token),
        FAILURES,
        **how,
    )


@verb(failure, "get")
@click.argument("fingerprint")
async def get(client: AdminClient, output: Output, fingerprint: str) -> None:
    """Show one group: what failed, where, since when, and on which processors."""
    async for page in client.list_failures(include_resolved=True, limit=None):
        for group in page.groups:
            if group.fingerprint == fingerprint:
                output.show(group, _view, fingerprint)
                return
    from client_core.errors import NotFound

    raise NotFound(f"no failure has the fingerprint {fingerprint!r}", reason="FAILURE_GROUP_NOT_FOUND")


@verb(failure, "rerun")
@click.argument("fingerprint")
@task_bulk.how_options
async def rerun(client: AdminClient, output: Output, fingerprint: str, **how: Any) -> None:
    """Run again the tasks that are FAILED so."""
    from taskq.v1.bulk_operation_pb2 import BulkAction, RerunAction

    filter = f"state:FAILED failure:{fingerprint}"
    await bulk.fulfil(client, output, bulk.Wish("rerun", BulkAction(rerun=RerunAction()), (), filter, **how))


@verb(failure, "resolve")
@click.argument("fingerprint")
@click.option("--note", default="", help="for people, and for the audit")
async def resolve(client: AdminClient, output: Output, fingerprint: str, note: str) -> None:
    """Note that a group needs nobody's attention any more, until it is seen again."""
    answer = await client.resolve_failure(fingerprint, note)
    output.show(answer, lambda answer, words: [_facts(answer.group, words)], fingerprint)


def _facts(group: Any, words: Words) -> Facts:
    return [
        ("fingerprint", group.fingerprint),
        ("name", group.name),
        ("error", group.error_type),
        ("message", group.last_message),
        ("where", group.top_frame),
        ("failures", count(group.failures)),
        ("failed tasks", _failed(group)),
        ("first", words.at(group, "first_time")),
        ("last", words.at(group, "last_time")),
        ("last task", group.last_task_id),
        ("processors", ", ".join(group.processor_names)),
        ("builds", ", ".join(group.build_ids)),
        ("resolved", words.at(group, "resolve_time")),
        ("note", group.resolve_note),
    ]


def _view(group: Any, words: Words) -> list[Block]:
    return [_facts(group, words), Rows("The last 24 hours", group.trend, _TREND)]
