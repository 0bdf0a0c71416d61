"""Tasks that somebody at a terminal waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from admin_client.errors import NOT_FINISHED, TASK_FAILED, Ended
from admin_client.words import clean

if TYPE_CHECKING:
    from admin_client.client import AdminClient

PATIENCE_SECONDS: Final = 2.0
"""After so long it is said why a task has not begun."""


async def wait(
    client: AdminClient, task_ids: Sequence[str], timeout: float | None, changed: Callable[[Any], None]
) -> None:
    """Until all are finished. `changed` is told of each answer. Ended when one failed, was cancelled, or is late."""
    states: dict[str, int] = {}
    why = asyncio.create_task(_say_why(client, task_ids[0])) if len(task_ids) == 1 else None
    try:
        async with asyncio.timeout(timeout):
            async for answer in client.watch_tasks(task_ids):
                if why is not None and answer.task.state != _names().TASK_STATE_SCHEDULED:
                    why.cancel()
                states[answer.task.task_id] = answer.task.state
                changed(answer)
    except TimeoutError:
        left = len(set(task_ids)) - sum(state >= _names().TASK_STATE_SUCCEEDED for state in states.values())
        those = f"task {task_ids[0]} is" if len(task_ids) == 1 else f"{left} of {len(task_ids)} tasks are"
        fix = f"`taskq task explain {task_ids[0]}` says why" if len(task_ids) == 1 else ""
        raise Ended(NOT_FINISHED, f"{those} not finished after {timeout:g} s", fix) from None
    finally:
        if why is not None:
            why.cancel()
            await asyncio.wait({why})
    _judge(states)


def _judge(states: dict[str, int]) -> None:
    for state, word, code in (
        (_names().TASK_STATE_FAILED, "failed", TASK_FAILED),
        (_names().TASK_STATE_CANCELLED, "was cancelled", NOT_FINISHED),
    ):
        those = [task_id for task_id, its in states.items() if its == state]
        if those:
            what = f"task {those[0]}" if len(those) == 1 else f"{len(those)} of {len(states)} tasks"
            fix = f"`taskq task get {those[0]} --full` shows where" if code == TASK_FAILED else ""
            raise Ended(code, f"{what} {word.replace('was', 'were') if len(those) > 1 else word}", fix)


async def _say_why(client: AdminClient, task_id: str) -> None:
    """Says after a while what it waits for, and again when that has changed."""
    from client_core.errors import TaskqError

    said = ""
    while True:
        await asyncio.sleep(PATIENCE_SECONDS)
        try:
            summary = (await client.explain_task(task_id)).summary
        except TaskqError:
            return  # a server that cannot explain, or a caller that may not ask
        if summary != said:
            click.echo(f"waits: {clean(summary)}", err=True)
        said = summary


def _names() -> Any:
    from taskq.v1 import task_pb2

    return task_pb2
