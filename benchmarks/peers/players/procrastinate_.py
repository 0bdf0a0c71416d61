"""Procrastinate: its application, which its workers import, and what enqueues."""

import asyncio
import time
from datetime import UTC, datetime

from procrastinate import App, PsycopgConnector

from benchmarks.peers.players import play

journal = play.journal()
app = App(connector=PsycopgConnector(conninfo=play.url(), min_size=4, max_size=20))


@app.task(name="noop")
async def noop(payload):
    journal.begun()


@app.task(name="timed")
async def timed(instant):
    journal.note(instant)


class Player:
    async def prepare(self):
        await app.schema_manager.apply_schema_async()

    async def open(self):
        await app.open_async()
        self._batch = play.options()["batch"]

    async def close(self):
        await app.close_async()

    async def bulk(self, tasks):
        for chunk in play.chunks(range(tasks), self._batch):
            await noop.batch_defer_async(*({"payload": play.PAYLOAD} for _ in chunk))

    async def one(self):
        await noop.defer_async(payload=play.PAYLOAD)

    async def now(self):
        await timed.defer_async(instant=time.time())

    async def later(self, dues):
        for chunk in play.chunks(dues, 20):
            await asyncio.gather(
                *(
                    timed.configure(schedule_at=datetime.fromtimestamp(due, UTC)).defer_async(instant=due)
                    for due in chunk
                )
            )
