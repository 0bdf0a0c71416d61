"""What probes and scrapes are told while the database of a server is away, and when it is back."""

from __future__ import annotations

import queue
import threading
import time
import urllib.error
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.conftest import StartWorld
from tests.support.postgres_proxy import PostgresProxy
from tests.support.raw import a_task
from tests.support.waiting import let_pass, until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
TOLD_SECONDS = 8
"""Two without an answer, three for a question, a second between two looks; and noise."""
BACK_SECONDS = 20
"""As for calls."""
NOISE_SECONDS = 3
"""Not part of a promise: on two cores that others load too, a process may wait for its turn as long as this."""


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def value_of(url: str, metric: str) -> float:
    with urllib.request.urlopen(url, timeout=10) as response:
        lines = response.read().decode().splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(f"{metric} ")))


class Watch:
    """The health of a server, as it changes."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._call = health_pb2_grpc.HealthStub(self._channel).Watch(health_pb2.HealthCheckRequest())
        self._said: queue.SimpleQueue[int] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for response in self._call:
                self._said.put(response.status)
        except grpc.RpcError:
            return

    def next(self, seconds: float) -> int:
        return self._said.get(timeout=seconds)

    def end(self) -> None:
        self._call.cancel()
        self._channel.close()


def test_a_server_whose_database_is_away_is_not_ready_says_so_to_all_who_ask_and_comes_back_by_itself(
    start_world: StartWorld, durable_postgres_url: str, proxy: PostgresProxy
) -> None:
    world = start_world(
        database_url=durable_postgres_url, server_urls=[proxy.url], http_listen="127.0.0.1:0", log_level="warning"
    )
    site = f"http://{world.server.http_address}"
    world.enqueue(a_task("nobody"))
    watch = Watch(world.server.address)
    assert watch.next(10) == SERVING
    assert status(f"{site}/readyz") == 200

    cut = time.monotonic()
    proxy.black_hole()
    assert watch.next(TOLD_SECONDS + NOISE_SECONDS) == NOT_SERVING
    told = time.monotonic() - cut
    assert status(f"{site}/readyz") == 503
    assert status(f"{site}/livez") == 200
    began = time.monotonic()
    assert value_of(f"{site}/metrics", "taskq_database_up") == 0
    assert time.monotonic() - began < 1 + NOISE_SECONDS, "a scrape does not wait for the database"
    let_pass(2)
    assert status(f"{site}/readyz") == 503

    healed = time.monotonic()
    proxy.heal()
    assert watch.next(BACK_SECONDS + NOISE_SECONDS) == SERVING
    print(f"told {told:.1f} s after the cut; ready again {time.monotonic() - healed:.1f} s after it was mended")
    until(lambda: value_of(f"{site}/metrics", "taskq_database_up") == 1, "the metrics say so, too")
    watch.end()
    assert world.server.stop() == 0, world.server.read_log()


def test_a_busy_server_stays_ready(start_world: StartWorld) -> None:
    world = start_world(http_listen="127.0.0.1:0", log_level="warning")
    site = f"http://{world.server.http_address}"
    processor = world.processor("alive", concurrency=16).start()
    load = world.scheduler("load", lanes=8, burst=8, pause=0.0).start()
    seen = set()
    for _ in range(40):
        seen.add(status(f"{site}/readyz"))
        let_pass(0.1)
    assert seen == {200}
    assert load.stop() == 0, load.read_log()
    assert processor.stop() == 0, processor.read_log()
    assert world.server.stop() == 0, world.server.read_log()
