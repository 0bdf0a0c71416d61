"""What the tests of clients share."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog

from tests.clients.scripted_scheduler_service import ScriptedSchedulerService, serving


@pytest.fixture
def quiet_server() -> Iterator[None]:
    """A server in this process logs nothing: the standard output is the command's."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture
def service() -> ScriptedSchedulerService:
    """A server that does what the test says, for scheduler clients."""
    return ScriptedSchedulerService()


@pytest.fixture
async def address(service: ScriptedSchedulerService) -> AsyncIterator[str]:
    """Where that server listens."""
    async with serving(service) as address:
        yield address
