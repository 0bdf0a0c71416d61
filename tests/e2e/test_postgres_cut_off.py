"""A network between a server and PostgreSQL that swallows everything: nobody waits for that server, it gives nothing
away, and when the network is back it serves again by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from taskq.v1.processor_service_pb2 import HeartbeatRequest, ReportResultRequest, Succeeded, TaskResult
from taskq.v1.scheduler_service_pb2 import GetTaskRequest
from taskq_server.core.task import Outcome
from tests.e2e.conftest import StartWorld
from tests.support.postgres_proxy import PostgresProxy
from tests.support.probes import Probes, probing
from tests.support.raw import RawProcessor, RawScheduler, a_task, connected
from tests.support.waiting import let_pass, until
from tests.support.world import World

LEASE_SECONDS = 4
HOLE_SECONDS = 30
"""Longer than the outcome of a commit that was under way is looked for (ten seconds, LOOK_SECONDS of the lane), and the
timeouts before it and in it (seven and three): whoever waits for that asks again before it is over."""
MOVED_SECONDS = 10
"""By then a processor that knows both servers has found the other; its lease has not run out meanwhile."""
FEW_SECONDS = 4
"""After which who calls is told in time."""
GAP_SECONDS = 3
"""For so long the other server may have to wait for locks that this one holds."""
TOLD_SECONDS = 3
"""Two, and noise."""
BACK_SECONDS = 20
"""The promise, from the moment at which the network is back."""
NOISE_SECONDS = 3
"""Not part of a promise: on two cores that others load too, a process may wait for its turn as long as this."""
PATIENCE_SECONDS = 60


@contextmanager
def callers(world: World) -> Iterator[Probes]:
    """Of the first server: one that enqueues, one that looks, one that heartbeats, one that reports, each with a
    connection of its own."""
    address = world.server.address
    with (
        connected(address) as first,
        connected(address) as second,
        connected(address) as third,
        connected(address) as fourth,
    ):
        scheduler, looker = RawScheduler(first), RawScheduler(second)
        living, stranger = RawProcessor(third, "nothing"), RawProcessor(fourth, "nothing")
        task = a_task()
        world.enqueue_by(scheduler, task)
        stale = TaskResult(task_id=task.task_id, attempt=1, succeeded=Succeeded())
        look = GetTaskRequest(task_id=task.task_id)
        beat = HeartbeatRequest(session_id=living.session_id)
        report = ReportResultRequest(session_id=stranger.session_id, results=[stale])
        calls: dict[str, Callable[[], object]] = {
            "Enqueue": lambda: world.enqueue_by(scheduler, a_task(), timeout=PATIENCE_SECONDS),
            "GetTask": lambda: looker.stub.GetTask(look, timeout=PATIENCE_SECONDS),
            "Heartbeat": lambda: living.stub.Heartbeat(beat, timeout=PATIENCE_SECONDS),
            "ReportResult": lambda: stranger.stub.ReportResult(report, timeout=PATIENCE_SECONDS),
        }
        with probing(calls) as probes:
            until(lambda: probes.served_since(0, CALLS), "all are answered")
            yield probes


CALLS = {"Enqueue", "GetTask", "Heartbeat", "ReportResult"}


def check(probes: Probes, cut: float, healed: float) -> None:
    """That all were told in time that the database is away, once a few seconds had passed."""
    during = [answer for answer in probes.since(cut, healed) if answer.began + answer.seconds < healed]
    codes = {answer.code for answer in during if answer.began > cut + 0.5}
    later = [answer for answer in during if answer.began > cut + FEW_SECONDS]
    longest = max(later, key=lambda answer: answer.seconds)
    print(f"while nothing passed, {len(during)} calls were answered {codes}")
    print(f"the slowest at first took {max(answer.seconds for answer in during):.1f} s, later {longest.seconds:.1f} s")
    assert codes == {grpc.StatusCode.UNAVAILABLE}
    assert {answer.call for answer in later} == CALLS
    assert longest.seconds <= TOLD_SECONDS, longest


def serves_again(probes: Probes, healed: float) -> float:
    until(lambda: probes.served_since(healed, CALLS), "all calls succeed again", BACK_SECONDS + NOISE_SECONDS)
    return time.monotonic() - healed


def test_a_server_that_is_cut_off_from_its_database_says_so_at_once_and_serves_again_when_it_is_back(
    start_world: StartWorld, durable_postgres_url: str, proxy: PostgresProxy
) -> None:
    # given a lease that is shorter than the time for which the network is away
    world = start_world(database_url=durable_postgres_url, server_urls=[proxy.url], lease_duration="10s")
    processor = world.processor("alive", concurrency=16).start()
    load = world.scheduler("load", lanes=2, burst=2, pause=0.05, timeout=60).start()
    world.enqueue(*(a_task(seconds=5 + i) for i in range(8)))
    until(lambda: len(world.runs(ended=True)) >= 50, "tasks run")
    with callers(world) as probes:
        cut = time.monotonic()
        proxy.black_hole()
        let_pass(HOLE_SECONDS)
        healed = time.monotonic()
        proxy.heal()
        back = serves_again(probes, healed)
        enough = len(world.runs(ended=True)) + 50
        until(lambda: len(world.runs(ended=True)) >= enough, "tasks run again", BACK_SECONDS + NOISE_SECONDS)
        check(probes, cut, healed)
    print(f"all calls succeeded {back:.1f} s after the network was back")

    assert load.stop() == 0, load.read_log()
    world.drain()
    assert processor.stop() == 0, processor.read_log()
    assert world.server.stop() == 0, world.server.read_log()
    verdict = world.verdict(floors={"acknowledged": 100, "accepted": 100})
    print(verdict)
    assert verdict.word == "VALID", str(verdict)
    # the processor lived, and it was the database that was away
    assert (verdict.counts["lost_leases"], verdict.counts["duplicates"]) == (0, 0), str(verdict)


def test_of_two_servers_the_one_that_is_cut_off_gives_nothing_away_while_the_other_serves(
    start_world: StartWorld, durable_postgres_url: str, proxy: PostgresProxy
) -> None:
    lease = f"{LEASE_SECONDS}s"
    world = start_world(
        database_url=durable_postgres_url, server_urls=[proxy.url, durable_postgres_url], lease_duration=lease
    )
    here, there = (server.address for server in world.servers)
    # given processors that know one server, and some that know both; what the first holds when it is cut off is long
    world.processor("here", address=here, concurrency=16).start()
    world.enqueue(*(a_task(seconds=2 * LEASE_SECONDS) for _ in range(8)))
    until(lambda: len(world.runs("here")) == 8, "all tasks run")
    processors = [
        world.processor("there", address=there, concurrency=16).start(),
        *[world.processor(f"roaming-{i}").start() for i in range(3)],
        *[program for program in world.programs if program.name == "here"],
    ]
    loads = [
        world.scheduler("load", address=there, lanes=2, burst=2, pause=0.05).start(),
        world.scheduler("load-here", address=here, lanes=2, burst=2, pause=0.05).start(),
    ]
    until(lambda: len(world.runs(ended=True)) >= 50, "tasks run")
    with callers(world) as probes:
        cut, cut_time = time.monotonic(), time.time()
        proxy.black_hole()
        gap = longest_gap(world, "load", HOLE_SECONDS)
        healed, healed_time = time.monotonic(), time.time()
        moved = cut_time + MOVED_SECONDS
        idle = [i for i in range(3) if not any(run.began > moved for run in world.runs(f"roaming-{i}"))]
        proxy.heal()
        assert idle == [], "these did not go on at the other server"
        back = serves_again(probes, healed)
        enough = len(world.runs("here", ended=True)) + 50
        until(
            lambda: len(world.runs("here", ended=True)) >= enough, "it dispatches again", BACK_SECONDS + NOISE_SECONDS
        )
        check(probes, cut, healed)
    print(f"at the other server, no enqueue took longer than {gap:.1f} s")
    print(f"all calls succeeded {back:.1f} s after the network was back")
    assert gap <= GAP_SECONDS + NOISE_SECONDS

    for program in loads:
        assert program.stop() == 0, program.read_log()
    world.drain()
    for program in processors:
        assert program.stop() == 0, program.read_log()
    for server in world.servers:
        assert server.stop() == 0, server.read_log()
    verdict = world.verdict(floors={"acknowledged": 100, "accepted": 100, "lost_leases": 8, "duplicates": 8})
    print(verdict)
    assert verdict.word == "VALID", str(verdict)
    attempts = [attempt for task in world.seen().tasks.values() for attempt in task.attempts]
    during = [one for one in attempts if (cut_time + 1) * 1e6 < one.lease_us < healed_time * 1e6]
    assert "here" not in {one.processor for one in during}, "it dispatched while it was cut off"
    lost = {one.processor for one in attempts if one.outcome is Outcome.LOST}
    assert lost == {"here"}, "those who know both servers keep what they run"


def longest_gap(world: World, observer: str, seconds: float) -> float:
    """The longest time for which that scheduler was not answered, in so many seconds from now."""
    ends_at, last, longest = time.time() + seconds, time.time(), 0.0
    tail = world.tail()
    while time.time() < ends_at:
        let_pass(0.1)
        for event in tail.next():
            if (event.observer, event.op, event.phase) == (observer, "enqueue", "ok"):
                last = max(last, event.time)
        longest = max(longest, time.time() - last)
    return longest
