"""PgQueuer: what its workers run, and what enqueues."""

import asyncio
import signal
import struct
import time
from datetime import UTC, datetime

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.queries import Queries

from benchmarks.peers.players import play

PAYLOAD = play.PAYLOAD.encode()
INSTANT = struct.Struct("d")


async def consume():
    """One consumer, on a connection of its own."""
    journal = play.journal()
    pgq = PgQueuer(AsyncpgDriver(await asyncpg.connect(play.url())))

    @pgq.entrypoint("noop")
    async def noop(job):
        journal.begun()

    @pgq.entrypoint("timed")
    async def timed(job):
        journal.note(*INSTANT.unpack(job.payload))

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, pgq.shutdown.set)
    await pgq.run(batch_size=play.options()["batch_size"])


class Player:
    async def prepare(self):
        await self._queries.install()
        await self._queries.optimize_autovacuum()

    async def open(self):
        self._pool = await asyncpg.create_pool(play.url(), min_size=5, max_size=play.options()["pool_size"])
        self._queries = Queries(AsyncpgPoolDriver(self._pool))
        self._batch = play.options()["enqueue_batch"]

    async def close(self):
        await self._pool.close()

    async def bulk(self, tasks):
        for chunk in play.chunks(range(tasks), self._batch):
            many = len(chunk)
            await self._queries.enqueue(["noop"] * many, [PAYLOAD] * many, [0] * many)

    async def one(self):
        await self._queries.enqueue("noop", PAYLOAD)

    async def now(self):
        await self._queries.enqueue("timed", INSTANT.pack(time.time()))

    async def later(self, dues):
        for chunk in play.chunks(dues, self._batch):
            many = len(chunk)
            now = datetime.now(UTC)
            await self._queries.enqueue(
                ["timed"] * many,
                [INSTANT.pack(due) for due in chunk],
                [0] * many,
                [datetime.fromtimestamp(due, UTC) - now for due in chunk],
            )


if __name__ == "__main__":
    uvloop.run(consume())
