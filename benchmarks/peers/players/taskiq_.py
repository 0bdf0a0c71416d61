"""taskiq on Redis: its broker and scheduler, which its workers import, and what enqueues."""

import asyncio
import time
from datetime import UTC, datetime

from taskiq import TaskiqScheduler
from taskiq_redis import ListRedisScheduleSource, RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers.players import play

journal = play.journal()
broker = RedisStreamBroker(url=f"{play.url()}/0").with_result_backend(RedisAsyncResultBackend(f"{play.url()}/1"))
source = ListRedisScheduleSource(f"{play.url()}/2")
scheduler = TaskiqScheduler(broker, [source])
AT_A_TIME = 100


@broker.task(task_name="noop")
async def noop(payload: str) -> None:
    journal.begun()


@broker.task(task_name="timed")
async def timed(instant: float) -> None:
    journal.note(instant)


class Player:
    async def prepare(self):
        pass

    async def open(self):
        await broker.startup()
        await source.startup()

    async def close(self):
        await source.shutdown()
        await broker.shutdown()

    async def bulk(self, tasks):
        for chunk in play.chunks(range(tasks), AT_A_TIME):
            await asyncio.gather(*(noop.kiq(play.PAYLOAD) for _ in chunk))

    async def one(self):
        await noop.kiq(play.PAYLOAD)

    async def now(self):
        await timed.kiq(time.time())

    async def later(self, dues):
        for chunk in play.chunks(dues, AT_A_TIME):
            await asyncio.gather(
                *(timed.schedule_by_time(source, datetime.fromtimestamp(due, UTC), due) for due in chunk)
            )
