"""`taskq audit`: who has changed what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from admin_client import lists
from admin_client.output import Column, Output, Table
from admin_client.values import MOMENT, When
from admin_client.verb import verb
from admin_client.words import Words, enum

if TYPE_CHECKING:
    from admin_client.client import AdminClient


def _change(entry: Any, words: Words) -> str:
    return f"{entry.before or 'nothing'} -> {entry.after or 'nothing'}" if entry.before or entry.after else ""


ENTRIES: Final = Table(
    [
        Column("WHEN", lambda entry, words: words.at(entry, "change_time")),
        Column("WHO", lambda entry, words: entry.principal, is_long=True),
        Column("FROM", lambda entry, words: entry.peer),
        Column("BY", lambda entry, words: enum(entry, "source")),
        Column("ACTION", lambda entry, words: entry.action),
        Column("KIND", lambda entry, words: entry.target_kind),
        Column("TARGET", lambda entry, words: entry.target),
        Column("WHY", lambda entry, words: entry.reason, is_long=True),
        Column("CHANGE", _change, is_long=True),
    ],
    name=lambda entry: str(entry.entry_id),
    nothing="nobody has changed anything",
)


@click.group()
def audit() -> None:
    """Who has changed what, and why."""


@verb(audit, "list")
@click.option("--principal", default="", help="only by this one")
@click.option("--kind", "target_kind", default="", help="only of such things: task, processor, capability, schedule, …")
@click.option("--target", default="", help="only of the one with this id or name")
@click.option("--since", type=MOMENT, help="only from then on: -1h, ISO 8601, epoch seconds")
@click.option("--until", type=MOMENT, help="only before")
@lists.list_options
async def list_(
    client: AdminClient,
    output: Output,
    principal: str,
    target_kind: str,
    target: str,
    since: When | None,
    until: When | None,
    **how: Any,
) -> None:
    """List what administrators have changed, the last first."""
    await lists.show(
        output,
        lambda limit, token: client.list_audit(
            principal=principal,
            target_kind=target_kind,
            target=target,
            start=since.moment() if since is not None else None,
            end=until.moment() if until is not None else None,
            limit=limit,
            page_token=token,
        ),
        ENTRIES,
        **how,
    )
