"""How a session comes to its end without losing anything: drain, stop what does not end, report the rest."""

import asyncio
import logging
from collections.abc import Callable

from processor_client.runner import Runner
from processor_client.session import Session

logger = logging.getLogger("taskq.processor")

# For handlers that were told to stop; a thread that does not listen takes longer than this.
STOPPING_SECONDS = 1.0
# For the last reports to be answered; a server that is away releases the tasks when the session expires.
REPORTING_SECONDS = 5.0


async def wind_up(session: Session, runner: Runner, drain_seconds: float) -> None:
    """Waits up to `drain_seconds` for what runs; what runs even then is stopped and given back."""
    loop = asyncio.get_running_loop()
    until = loop.time() + drain_seconds
    session.drain()
    if not await _reached(lambda: not session.is_running, session.moved, until):
        logger.warning("the drain timeout has passed; what still runs is stopped and given back")
        session.give_up()
        await _reached(lambda: not session.is_running, session.moved, loop.time() + STOPPING_SECONDS)
        session.release_running()
    over = loop.time() + REPORTING_SECONDS
    if not await _reached(lambda: session.is_reported or session.ended.is_set(), session.moved, over):
        logger.error("%d reports were not answered; their tasks come again", len(session.reporter))
    await _reached(lambda: not runner.unfinished_hooks, runner.hook_ended, max(until, loop.time() + STOPPING_SECONDS))


async def _reached(condition: Callable[[], bool], moved: asyncio.Event, until: float) -> bool:
    """Waits until the condition holds, looking whenever something has moved; False when `until` comes first."""
    try:
        async with asyncio.timeout_at(until):
            while not condition():
                moved.clear()
                await moved.wait()
    except TimeoutError:
        return condition()
    return True
