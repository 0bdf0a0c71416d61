"""Runs promises side by side, each with a server and a processor of its own."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from admin_client.conformance.promise import Broken, Promise
from admin_client.conformance.scene import Scene


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a promise holds; `reason` says why not."""

    promise: Promise
    reason: str
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether nothing was seen that speaks against it."""
        return not self.reason


async def verdicts(
    command: Sequence[str], promises: Sequence[Promise], *, jobs: int, patience: float, logs: Path | None = None
) -> AsyncIterator[Verdict]:
    """One for each promise, in order. `patience` is how long a processor may take for what it must do; into `logs` goes
    what it wrote. Raises OSError when the command cannot be run."""
    places = asyncio.Semaphore(jobs)

    async def judge(promise: Promise) -> Verdict:
        async with places:
            with tempfile.TemporaryDirectory(prefix="taskq-conformance-") as own:
                folder = Path(own)
                if logs is not None:
                    folder = logs / promise.name
                    folder.mkdir(parents=True, exist_ok=True)
                return await _judge(promise, command, folder, patience)

    judging = [asyncio.create_task(judge(promise)) for promise in promises]
    try:
        for each in judging:
            yield await each
    finally:
        for each in judging:
            each.cancel()
        await asyncio.gather(*judging, return_exceptions=True)


async def _judge(promise: Promise, command: Sequence[str], folder: Path, patience: float) -> Verdict:
    scene = Scene(command, folder, patience, promise.settings)
    begun = time.monotonic()
    reason = ""
    try:
        await promise.script(scene)
    except Broken as broken:
        reason = str(broken)
    finally:
        await scene.close()
    return Verdict(promise, reason, time.monotonic() - begun)
