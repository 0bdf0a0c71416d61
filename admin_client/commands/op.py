"""`taskq op`: what is being done to many tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from admin_client import bulk, lists
from admin_client.output import Output
from admin_client.verb import verb

if TYPE_CHECKING:
    from admin_client.client import AdminClient


@click.group()
def op() -> None:
    """What is being done to many tasks."""


@verb(op, "list")
@lists.list_options
async def list_(client: AdminClient, output: Output, **how: Any) -> None:
    """List operations, those started last first."""
    await lists.show(
        output, lambda limit, token: client.list_operations(limit=limit, page_token=token), bulk.OPERATIONS, **how
    )


@verb(op, "get")
@click.argument("operation_id")
async def get(client: AdminClient, output: Output, operation_id: str) -> None:
    """Show one operation as it stands."""
    output.show(await client.get_operation(operation_id), bulk.operation, operation_id)


@verb(op, "watch")
@click.argument("operation_id")
async def watch(client: AdminClient, output: Output, operation_id: str) -> None:
    """Look on until it has ended."""
    answer = await client.get_operation(operation_id)
    output.show(await bulk.follow(client, answer.operation), bulk.operation, operation_id)


@verb(op, "cancel")
@click.argument("operation_id")
async def cancel(client: AdminClient, output: Output, operation_id: str) -> None:
    """End one after the batch at which it is; what it has done stays done."""
    output.show(await client.cancel_operation(operation_id), bulk.operation, operation_id)
