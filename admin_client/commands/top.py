"""`taskq top`: look on as it works."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from admin_client.output import Output
from admin_client.verb import Verb

if TYPE_CHECKING:
    from admin_client.client import AdminClient


@click.command(cls=Verb)
@click.option("--interval", type=click.FloatRange(0.2), default=1.0, help="seconds from one look to the next (1)")
@click.option("--once", is_flag=True, help="look once")
async def top(client: AdminClient, output: Output, interval: float, once: bool) -> None:
    """Look on as it works: figures, capabilities, processors, failures. Elsewhere than on a terminal: one look."""
    from admin_client import top as live

    if once or output.kind != "table":
        stats, blocks = await live.look(client, output)
        output.show(stats, lambda stats, words: blocks)
        return
    from rich.live import Live
    from rich.text import Text

    with Live(screen=True, auto_refresh=False) as screen:
        while True:
            _, blocks = await live.look(client, output)
            screen.update(Text.from_ansi(output.text(blocks)), refresh=True)
            await asyncio.sleep(interval)
