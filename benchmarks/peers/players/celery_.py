"""Celery on Redis: its application, which its workers import, and what enqueues."""

import time
from datetime import UTC, datetime

from celery import Celery

from benchmarks.peers.players import play

journal = play.journal()
app = Celery(
    "bench",
    broker=f"{play.url()}/0",
    backend=f"{play.url()}/1",
)
app.conf.update(play.options())


@app.task(name="noop")
def noop(payload):
    journal.begun()


@app.task(name="timed")
def timed(instant):
    journal.note(instant)


class Player:
    def prepare(self):
        pass

    def open(self):
        pass

    def close(self):
        app.close()

    def bulk(self, tasks):
        with app.producer_or_acquire() as producer:
            for _ in range(tasks):
                noop.apply_async((play.PAYLOAD,), producer=producer)

    def one(self):
        noop.delay(play.PAYLOAD)

    def now(self):
        timed.delay(time.time())

    def later(self, dues):
        with app.producer_or_acquire() as producer:
            for due in dues:
                timed.apply_async((due,), eta=datetime.fromtimestamp(due, UTC), producer=producer)
