"""Whatever makes a task due, or gives a credit back, wakes the dispatcher: nothing waits for an accident."""

from __future__ import annotations

import grpc
import pytest

from taskq.v1.scheduler_service_pb2 import ENQUEUE_OUTCOME_EXISTING
from tests.e2e.conftest import StartWorld
from tests.support.raw import RawProcessor, RawScheduler, a_task, connected
from tests.support.waiting import let_pass


def test_a_task_that_was_never_received_is_pushed_again_after_the_ack_timeout(
    start_world: StartWorld,
) -> None:
    world = start_world(lease_duration="8s")  # the ack_timeout is half of it
    with connected(world.server.address) as channel:
        forgetful, other = RawProcessor(channel, "work"), RawProcessor(channel, "work")
        forgetful.open_stream()
        RawScheduler(channel).enqueue(a_task())
        task = forgetful.take()
        other.open_stream()

        for _ in range(5):  # none of which lists it, over a little more than the ack_timeout
            let_pass(0.9)
            forgetful.heartbeat()
            other.heartbeat()

        again = other.take(seconds=3)
        assert (again.task_id, again.attempt, again.failed_attempts) == (task.task_id, 2, 0)
        forgetful.close()
        other.close()


def test_a_task_whose_scheduler_gave_up_during_the_commit_runs_all_the_same(start_world: StartWorld) -> None:
    # given a disk on which an fsync takes longer than the scheduler waits
    world = start_world(trace="fdatasync", inject=["fdatasync:delay_exit=400000"])
    with connected(world.server.address) as channel:
        processor, scheduler, task = RawProcessor(channel, "work"), RawScheduler(channel), a_task()
        processor.open_stream()

        with pytest.raises(grpc.RpcError) as late:
            scheduler.enqueue(task, timeout=0.15)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

        assert processor.take(seconds=8).task_id == task.task_id
        assert scheduler.enqueue(task) == [ENQUEUE_OUTCOME_EXISTING]
        processor.close()
