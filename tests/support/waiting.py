"""Waiting for what can be observed, with a deadline: the one place where these tests look at the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

LOOK_SECONDS = 0.02


def until(look: Callable[[], Seen], what: str, seconds: float = 30) -> Seen:
    """The first true answer of `look`; AssertionError, which says what did not come, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"did not come within {seconds:g} s: {what}"
        time.sleep(LOOK_SECONDS)
    return seen


async def until_async(look: Callable[[], Seen], what: str, seconds: float = 30) -> Seen:
    """As `until`, while the event loop runs on."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"did not come within {seconds:g} s: {what}"
        await asyncio.sleep(LOOK_SECONDS)
    return seen


def let_pass(seconds: float) -> None:
    """Lets time pass where time itself is the fault that is injected: a random instant, a lease that must run out."""
    time.sleep(seconds)
