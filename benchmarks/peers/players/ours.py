"""Ours. `python -m benchmarks.peers.players.ours` is its worker: one processor in one process."""

from __future__ import annotations

import time

from benchmarks.peers.players import play
from processor_client import Processor
from scheduler_client import Scheduler, new_task

NOOP, TIMED = "bench.noop", "bench.later"
"""The names that benchmarks/rows.py writes, too: what waits beside them is of the same kind."""
PAYLOAD = bytes(100)
DAY_SECONDS = 86_400


class Player:
    async def open(self) -> None:
        self._scheduler = Scheduler(play.url())
        await self._scheduler.__aenter__()

    async def close(self) -> None:
        await self._scheduler.__aexit__(None, None, None)

    async def bulk(self, tasks: int) -> None:
        await self._scheduler.enqueue_many(new_task(NOOP, PAYLOAD) for _ in range(tasks))

    async def one(self) -> None:
        await self._scheduler.enqueue(NOOP, PAYLOAD)

    async def now(self) -> None:
        await self._scheduler.enqueue(TIMED, {"instant": time.time()})

    async def later(self, dues: list[float]) -> None:
        await self._scheduler.enqueue_many(new_task(TIMED, {"instant": due}, at=due) for due in dues)

    async def fill(self, tasks: int) -> None:
        """Others that wait, until tomorrow."""
        due = time.time() + DAY_SECONDS
        await self._scheduler.enqueue_many(new_task((NOOP, TIMED)[i % 2], PAYLOAD, at=due) for i in range(tasks))


def work() -> None:
    journal = play.journal()
    processor = Processor(play.url(), name="bench", **play.options())

    @processor.task(NOOP)
    async def noop() -> None:
        journal.begun()

    @processor.task(TIMED)
    async def timed(instant: float) -> None:
        journal.note(instant)

    processor.run()


if __name__ == "__main__":
    work()
