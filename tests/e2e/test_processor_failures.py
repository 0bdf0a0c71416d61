"""Processors that stop, die, hog their interpreter or are killed by what they run."""

from __future__ import annotations

import signal
import time

from taskq_server.core.task import PROCESSOR_LOST, TaskState
from tests.e2e.conftest import StartWorld
from tests.support import truth
from tests.support.raw import a_task
from tests.support.waiting import let_pass, until

LEASE_SECONDS = 2
LEASE = f"{LEASE_SECONDS}s"
RECLAIM_SECONDS = 2
"""The promise: what a dead processor held runs elsewhere within the lease and this."""
NOISE_SECONDS = 3
"""Not part of the promise: on two cores that others load too, a process may wait for its turn as long as this."""


def test_a_processor_stopped_past_its_lease_loses_its_tasks_and_they_succeed_once_elsewhere(
    start_world: StartWorld,
) -> None:
    world = start_world(lease_duration=LEASE)
    stopped = world.processor("stopped").start()
    world.enqueue(*(a_task(seconds=1) for _ in range(8)))
    until(lambda: len(world.runs("stopped")) == 8, "all tasks run")

    stopped.signal(signal.SIGSTOP)
    other = world.processor("other").start()
    world.drain()
    stopped.signal(signal.SIGCONT)

    # then it drops what it holds, and goes on in a new session
    world.enqueue(a_task(seconds=0))
    world.drain()
    assert stopped.stop() == 0
    assert other.stop() == 0
    assert world.server.stop() == 0
    verdict = world.verdict(floors={"lost_leases": 8, "duplicates": 8, "accepted": 9})
    assert verdict.word == "VALID", str(verdict)
    assert verdict.counts["succeeded"] == 9


def test_the_reports_of_a_processor_stopped_past_its_lease_are_lease_lost(start_world: StartWorld) -> None:
    world = start_world(lease_duration=LEASE)
    stubborn = world.raw_processor("stubborn").start()
    world.enqueue(*(a_task() for _ in range(4)))
    until(lambda: len(world.runs("stubborn")) == 4, "all tasks run")

    stubborn.signal(signal.SIGSTOP)
    other = world.processor("other").start()
    world.drain()
    stubborn.signal(signal.SIGUSR1)
    stubborn.signal(signal.SIGCONT)

    assert stubborn.wait() == 0, stubborn.read_log()
    assert other.stop() == 0
    assert world.server.stop() == 0
    verdict = world.verdict(floors={"lost_leases": 4, "stale": 4, "accepted": 4})
    assert verdict.word == "VALID", str(verdict)
    statuses = [event.facts["status"] for event in world.seen().by_op["report", "fail"]]
    assert statuses == ["REPORT_STATUS_LEASE_LOST"] * 4


def test_the_tasks_of_a_killed_processor_run_elsewhere_within_its_lease_and_two_seconds(
    start_world: StartWorld,
) -> None:
    world = start_world(lease_duration=LEASE)
    killed = world.processor("killed").start()
    world.enqueue(*(a_task(seconds=3) for _ in range(8)))
    until(lambda: len(world.runs("killed")) == 8, "all tasks run")
    other = world.processor("other").start()

    killed.kill()
    killed_time = time.time()

    until(lambda: len(world.runs("other")) == 8, "all tasks run elsewhere")
    waited = max(run.began for run in world.runs("other")) - killed_time
    print(f"the last task of a killed processor ran elsewhere after {waited:.2f} s; its lease was {LEASE}")
    assert waited <= LEASE_SECONDS + RECLAIM_SECONDS + NOISE_SECONDS
    world.drain()
    assert other.stop() == 0
    assert world.server.stop() == 0
    verdict = world.verdict(floors={"lost_leases": 8, "accepted": 8})
    assert verdict.word == "VALID", str(verdict)


def test_a_handler_that_holds_the_interpreter_over_five_leases_keeps_its_task(start_world: StartWorld) -> None:
    world = start_world(lease_duration=LEASE)
    hog = world.processor("hog", tasks="hog", concurrency=1).start()
    idle = world.processor("idle", tasks="hog", concurrency=1)
    world.enqueue(a_task("hog", seconds=5 * LEASE_SECONDS + 0.5))
    until(lambda: world.runs("hog"), "it runs")
    idle.start()  # who would run it, if it were reclaimed

    world.drain()
    assert hog.stop() == 0
    assert idle.stop() == 0
    assert world.server.stop() == 0
    verdict = world.verdict(floors={"runs": 1, "accepted": 1})
    assert verdict.word == "VALID", str(verdict)
    (task,) = world.seen().tasks.values()
    assert (task.attempt, verdict.counts["runs"]) == (1, 1)


def test_a_task_that_kills_its_processors_fails_after_three_and_others_go_on(start_world: StartWorld) -> None:
    world = start_world(lease_duration=LEASE, log_level="warning")
    victim = world.processor("victim", tasks="poison,work", concurrency=4).start()
    other = world.processor("other", tasks="work").start()
    load = world.scheduler("load", lanes=2, burst=2, pause=0.1).start()
    poison = a_task("poison")
    world.enqueue(poison)

    for _ in range(3):  # a supervisor, which starts it again whenever it dies
        assert victim.wait() == -signal.SIGKILL
        victim.start()
    until(lambda: truth.state_of(world.database_url, poison.task_id) is TaskState.FAILED, "the poison task fails")

    before = len(world.runs(ended=True))
    until(lambda: len(world.runs(ended=True)) > before + 20, "others go on")
    for program in (load, victim):
        assert program.stop() == 0, program.read_log()
    world.drain()
    assert other.stop() == 0
    assert world.server.stop() == 0
    verdict = world.verdict(floors={"lost_leases": 3, "accepted": 100})
    assert verdict.word == "VALID", str(verdict)
    task = world.seen().tasks[poison.task_id]
    assert (task.lost_leases, task.attempt) == (3, 3)
    assert task.failure is not None and PROCESSOR_LOST in task.failure


def test_a_processor_told_to_stop_drains_and_what_it_gives_back_costs_no_attempt(start_world: StartWorld) -> None:
    world = start_world(lease_duration="60s")
    leaving = world.processor("leaving", drain_timeout=1, concurrency=16).start()
    short, long = [a_task(seconds=0.5) for _ in range(8)], [a_task(seconds=6) for _ in range(8)]
    world.enqueue(*short, *long)
    until(lambda: len(world.runs("leaving")) == 16, "all tasks run")
    staying = world.processor("staying", concurrency=16).start()

    told = time.monotonic()
    assert leaving.stop() == 0, leaving.read_log()
    took = time.monotonic() - told

    assert took <= 1 + 2 + NOISE_SECONDS, "the drain timeout and two seconds, and noise"
    world.drain(30)  # half of the lease: what was given back did not wait for it to expire
    assert staying.stop() == 0
    assert world.server.stop() == 0
    verdict = world.verdict(floors={"released": 8, "accepted": 16})
    assert verdict.word == "VALID", str(verdict)
    seen = world.seen()
    assert [seen.tasks[task.task_id].attempt for task in (*short, *long)] == [1] * 8 + [2] * 8
    assert not any(task.failed_attempts for task in seen.tasks.values())


def test_a_server_stopped_past_the_lease_robs_no_living_processor(start_world: StartWorld) -> None:
    world = start_world(lease_duration=LEASE)
    processor = world.processor("alive", concurrency=16).start()
    idle = world.processor("idle", concurrency=16)
    world.enqueue(*(a_task(seconds=2 + i / 2) for i in range(12)))
    until(lambda: len(world.runs("alive")) == 12, "all tasks run")
    idle.start()  # who would run them, if they were reclaimed

    world.server.signal(signal.SIGSTOP)
    let_pass(3 * LEASE_SECONDS)
    world.server.signal(signal.SIGCONT)

    world.drain()
    assert processor.stop() == 0
    assert idle.stop() == 0
    assert world.server.stop() == 0
    verdict = world.verdict(floors={"runs": 12, "accepted": 12})
    assert verdict.word == "VALID", str(verdict)
    assert (verdict.counts["lost_leases"], verdict.counts["duplicates"]) == (0, 0)
