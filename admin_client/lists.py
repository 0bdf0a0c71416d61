"""The flags that all lists have, and looking at a list again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import click

from admin_client.output import Output, Table

F = TypeVar("F", bound=Callable[..., Any])
Pages = Callable[[int | None, str], AsyncIterator[Any]]
"""Given the most that are wanted, and where to go on from."""


def list_options(command: F) -> F:
    """`--limit`, `--all`, `--page-token`, `--watch`; given to `show` as they are."""
    options = (
        click.option("--limit", type=click.IntRange(1), default=50, help="the most to show (50)"),
        click.option("--all", "all_of_them", is_flag=True, help="all of them, page after page"),
        click.option("--page-token", default="", help="go on where an answer has ended: its nextPageToken"),
        click.option("--watch", is_flag=True, help="again every two seconds, until Ctrl-C"),
    )
    for option in reversed(options):
        command = option(command)
    return command


async def show(
    output: Output, pages: Pages, table: Table, *, limit: int, all_of_them: bool, page_token: str, watch: bool
) -> None:
    """Shows a list, once or again and again."""
    most = None if all_of_them else limit
    if not watch:
        await output.show_list(pages(most, page_token), table)
        return
    while True:
        await output.show_list(pages(most, page_token), table, is_anew=True)
        await asyncio.sleep(2)
