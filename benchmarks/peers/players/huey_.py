"""Huey on Redis: its instance and tasks, which its consumer imports, and what enqueues."""

import time
from datetime import UTC, datetime

from huey import RedisHuey

from benchmarks.peers.players import play

journal = play.journal()
huey = RedisHuey("bench", url=play.url(), **play.options())


@huey.task()
def noop(payload):
    journal.begun()


@huey.task()
def timed(instant):
    journal.note(instant)


class Player:
    def prepare(self):
        pass

    def open(self):
        pass

    def close(self):
        pass

    def bulk(self, tasks):
        for _ in range(tasks):
            noop(play.PAYLOAD)

    def one(self):
        noop(play.PAYLOAD)

    def now(self):
        timed(time.time())

    def later(self, dues):
        for due in dues:
            timed.schedule((due,), eta=datetime.fromtimestamp(due, UTC))
