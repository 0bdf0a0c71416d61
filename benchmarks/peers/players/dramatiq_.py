"""Dramatiq on Redis: its broker and actors, which its workers import, and what enqueues."""

import math
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers.players import play

journal = play.journal()
broker = RedisBroker(url=f"{play.url()}/0")
broker.add_middleware(Results(backend=RedisBackend(url=f"{play.url()}/1")))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def noop(payload):
    journal.begun()


@dramatiq.actor(store_results=True)
def timed(instant):
    journal.note(instant)


class Player:
    def prepare(self):
        pass

    def open(self):
        pass

    def close(self):
        broker.close()

    def bulk(self, tasks):
        for _ in range(tasks):
            noop.send(play.PAYLOAD)

    def one(self):
        noop.send(play.PAYLOAD)

    def now(self):
        timed.send(time.time())

    def later(self, dues):
        for due in dues:
            # whole milliseconds from now on, which Dramatiq counts from its own whole millisecond: never before
            timed.send_with_options(args=(due,), delay=math.ceil((due - time.time()) * 1000) + 1)
