"""`taskq processor`: run one, and steer those that are registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from admin_client import lists
from admin_client.output import Block, Column, Facts, Output, Rows, Table
from admin_client.verb import connection_options, environment, verb
from admin_client.words import Words, count

if TYPE_CHECKING:
    from admin_client.client import AdminClient


def _names(one: Any, words: Words) -> str:
    return ", ".join(capability.name for capability in one.capabilities)


def _labels(one: Any, words: Words) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(one.labels.items()))


PROCESSORS: Final = Table(
    [
        Column("SESSION", lambda one, words: one.session_id),
        Column("NAME", lambda one, words: one.processor_name, is_long=True),
        Column("STATE", lambda one, words: "DRAINING" if one.HasField("drain") else "", style=lambda text: "yellow"),
        Column("IN FLIGHT", lambda one, words: f"{one.in_flight}/{one.max_in_flight}", is_number=True),
        Column("HEARD", lambda one, words: words.at(one, "heartbeat_time")),
        Column("SINCE", lambda one, words: words.at(one, "register_time")),
        Column("LABELS", _labels, is_long=True),
        Column("RUNS", _names, is_long=True),
    ],
    name=lambda one: str(one.session_id),
    nothing="no processor is registered; `taskq dev`, or `taskq processor run app:processor`, starts one",
)
_HELD: Final = Table(
    [
        Column("TASK", lambda held, words: held.task_id),
        Column("NAME", lambda held, words: held.name, is_long=True),
        Column("ATTEMPT", lambda held, words: str(held.attempt), is_number=True),
        Column("LEASED", lambda held, words: words.at(held, "lease_time")),
    ],
    name=lambda held: str(held.task_id),
    nothing="",
)


@click.group()
def processor() -> None:
    """Run a processor; look at those that are registered, drain and disconnect them."""


@processor.command("run")
@click.argument("app", metavar="MODULE[:NAME]")
@click.option("-c", "--concurrency", type=click.IntRange(1, 10_000), default=8, help="of a list of tasks (8)")
@click.option("--reload", is_flag=True, help="start it anew when a .py file below this folder changes")
@connection_options
def run(app: str, concurrency: int, reload: bool, **connection: Any) -> None:
    """Run a Processor, a Task class, or a list of them, by its place: `app:processor`.

    Until SIGTERM or Ctrl-C, which let running tasks end: exit code 0. A second one stops it now.
    """
    from admin_client import running

    running.become("processor", app, environment(connection), reload, f"--concurrency={concurrency}")


@verb(processor, "list")
@lists.list_options
async def list_(client: AdminClient, output: Output, **how: Any) -> None:
    """List the sessions that live, in the order of their registration."""
    await lists.show(
        output, lambda limit, token: client.list_processors(limit=limit, page_token=token), PROCESSORS, **how
    )


@verb(processor, "get")
@click.argument("session")
async def get(client: AdminClient, output: Output, session: str) -> None:
    """Show one session, by its id or its processor's name, and what it holds."""
    one = await _find(client, session)
    output.show(one, _view, one.session_id)


@verb(processor, "drain")
@click.argument("session")
@click.option("--reason", default="", help="why; the processor is told")
async def drain(client: AdminClient, output: Output, session: str, reason: str) -> None:
    """Give a session no further tasks; what it runs goes on."""
    answer = await client.drain_processor(await _session_id(client, session), reason)
    output.show(answer, lambda answer, words: [_facts(answer.processor, words)], answer.processor.session_id)


@verb(processor, "disconnect")
@click.argument("session")
@click.option("--reason", default="", help="why, for the audit")
async def disconnect(client: AdminClient, output: Output, session: str, reason: str) -> None:
    """End a session at once: what it holds goes to others."""
    session_id = await _session_id(client, session)
    answer = await client.disconnect_processor(session_id, reason)
    said = f"{count(answer.released_tasks)} tasks go to others"
    output.show(answer, lambda answer, words: [said], session_id)


async def _session_id(client: AdminClient, session: str) -> str:
    """A session's id as it is; else that of the only processor of this name."""
    from uuid import UUID

    try:
        return str(UUID(session))
    except ValueError:
        return str((await _find(client, session)).session_id)


async def _find(client: AdminClient, session: str) -> Any:
    found = []
    async for page in client.list_processors(limit=None):
        found += [one for one in page.processors if session in (one.session_id, one.processor_name)]
    if len(found) > 1:
        ids = ", ".join(one.session_id for one in found)
        raise click.UsageError(f"{len(found)} processors are called {session!r}: {ids}", click.get_current_context())
    if not found:
        from client_core.errors import NotFound

        raise NotFound(f"no session lives that has the id or the name {session!r}", reason="SESSION_NOT_FOUND")
    return found[0]


def _facts(one: Any, words: Words) -> Facts:
    return [
        ("session", one.session_id),
        ("name", one.processor_name),
        ("runs", _names(one, words)),
        ("labels", _labels(one, words)),
        ("in flight", f"{one.in_flight} of {one.max_in_flight}"),
        ("heard", words.at(one, "heartbeat_time")),
        ("registered", words.at(one, "register_time")),
        ("lease ends", words.at(one, "lease_expire_time")),
        ("build", one.build_id),
        ("client", one.client),
        ("server", one.server),
        ("drained", words.at(one.drain, "drain_time") if one.HasField("drain") else ""),
        ("reason", one.drain.reason),
    ]


def _view(one: Any, words: Words) -> list[Block]:
    return [_facts(one, words), Rows("Holds", one.held_tasks, _HELD)]
