"""`taskq capability`: what tasks ask for, and what there is for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from admin_client import lists
from admin_client.output import Block, Column, Output, Table
from admin_client.verb import verb
from admin_client.words import Words, count

if TYPE_CHECKING:
    from admin_client.client import AdminClient

_COUNTED: Final = 1_000
"""Where the server's counts of those that wait end."""


def _waiting(number: int) -> str:
    return count(number, or_more=number >= _COUNTED)


def _state(one: Any, words: Words) -> str:
    if one.HasField("pause"):
        return "PAUSED"
    if one.due_tasks and not one.processors:
        return "NO PROCESSOR"
    return ""


CAPABILITIES: Final = Table(
    [
        Column("NAME", lambda one, words: one.name, is_long=True),
        Column("STATE", _state, style=lambda text: "red" if text == "NO PROCESSOR" else "yellow"),
        Column("DUE", lambda one, words: _waiting(one.due_tasks), is_number=True),
        Column("LATER", lambda one, words: _waiting(one.later_tasks), is_number=True),
        Column("FIRST DUE", lambda one, words: words.at(one, "first_due_time")),
        Column("RUNNING", lambda one, words: count(one.running_tasks), is_number=True),
        Column("PROCESSORS", lambda one, words: count(one.processors), is_number=True),
        Column("FREE", lambda one, words: count(one.free_credits), is_number=True),
        Column("SINCE", lambda one, words: words.at(one.pause, "pause_time") if one.HasField("pause") else ""),
        Column("WHY", lambda one, words: one.pause.reason, is_long=True),
    ],
    name=lambda one: str(one.name),
    nothing="no name is known yet",
)


@click.group()
def capability() -> None:
    """What tasks ask for and what there is for them; pause and resume."""


@verb(capability, "list")
@lists.list_options
async def list_(client: AdminClient, output: Output, **how: Any) -> None:
    """List the names that tasks have had, that processors run, or that are paused."""
    await lists.show(
        output, lambda limit, token: client.list_capabilities(limit=limit, page_token=token), CAPABILITIES, **how
    )


@verb(capability, "pause")
@click.argument("name")
@click.option("--reason", default="", help="why, for people and for the audit")
async def pause(client: AdminClient, output: Output, name: str, reason: str) -> None:
    """Dispatch no further tasks of NAME; what runs goes on."""
    output.show(await client.pause_capability(name, reason), _pause, name)


@verb(capability, "resume")
@click.argument("name")
@click.option("--reason", default="", help="why, for the audit")
async def resume(client: AdminClient, output: Output, name: str, reason: str) -> None:
    """Dispatch tasks of NAME again."""
    output.show(await client.resume_capability(name, reason), _resumed, name)


def _pause(answer: Any, words: Words) -> list[Block]:
    return [[("paused", words.at(answer.pause, "pause_time")), ("reason", answer.pause.reason)]]


def _resumed(answer: Any, words: Words) -> list[Block]:
    if not answer.HasField("pause"):
        return ["was not paused"]
    return [[("was paused", words.at(answer.pause, "pause_time")), ("reason", answer.pause.reason)]]
