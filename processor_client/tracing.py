"""Around each attempt a span, where the program traces."""

from typing import Any

from client_core import tracing
from processor_client.context import Context
from processor_client.runner import CallNext, Middleware
from processor_client.verdicts import Snooze


def middleware() -> list[Middleware]:
    """What to put around attempts: nothing for a program that does not trace."""
    return [_traced] if tracing.is_on() else []


async def _traced(ctx: Context, call_next: CallNext) -> Any:
    with tracing.processing(ctx.name, ctx.task_id, ctx.attempt, ctx.headers):
        try:
            return await call_next(ctx)
        except Snooze as snooze:  # which is no failure
            later = snooze
    raise later
