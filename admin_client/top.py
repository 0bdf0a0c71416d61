"""The live view: what there is, what runs, what waits and why, every second."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from admin_client.commands.capability import CAPABILITIES
from admin_client.commands.failure import FAILURES
from admin_client.commands.processor import PROCESSORS
from admin_client.output import Block, Output, Rows
from admin_client.words import Words, count, duration, enum

if TYPE_CHECKING:
    from admin_client.client import AdminClient

_SHOWN = 15


async def look(client: AdminClient, output: Output) -> tuple[Any, list[Block]]:
    """One look: the figures, the names and processors that matter most, the failures seen last."""
    stats, capabilities, processors, failures = await asyncio.gather(
        client.get_stats(),
        _first(client.list_capabilities(limit=200)),
        _first(client.list_processors(limit=200)),
        _first(client.list_failures(limit=5)),
    )
    words = Words(output.times).by(stats)
    busiest = sorted(capabilities, key=lambda one: (-one.due_tasks - one.running_tasks, one.name))[:_SHOWN]
    fullest = sorted(processors, key=lambda one: (-one.in_flight, one.processor_name))[:_SHOWN]
    return stats, [
        _figures(stats, words),
        Rows("Capabilities", busiest, CAPABILITIES),
        Rows("Processors", fullest, PROCESSORS),
        Rows("Failures", failures, FAILURES),
    ]


def _figures(stats: Any, words: Words) -> Block:
    last = stats.history[-1] if stats.history else None
    states = "  ".join(f"{enum(one, 'state')} {count(one.tasks, or_more=one.is_partial)}" for one in stats.states)
    facts = [
        ("tasks", states),
        (
            "due",
            f"{count(stats.due_tasks)}, the oldest {words.at(stats, 'oldest_due_time')}" if stats.due_tasks else "0",
        ),
        ("running", f"{count(stats.running_tasks)} of {count(stats.credits)} credits"),
        ("processors", count(stats.processors)),
    ]
    if last is not None:
        facts.append((
            "this minute",
            f"{count(last.enqueued)} enqueued, {count(last.succeeded)} succeeded, {count(last.failed)} failed, "
            f"{count(last.retried)} retried",
        ))  # fmt: skip
        facts.append(("lateness", f"p50 {duration(last.lateness.p50)}, p99 {duration(last.lateness.p99)}"))
        facts.append(("run time", f"p50 {duration(last.run_time.p50)}, p99 {duration(last.run_time.p99)}"))
    return facts


async def _first(pages: Any) -> list[Any]:
    from admin_client import rpcs

    return [item async for page in pages for item in rpcs.items(page)]
