"""Only the session that holds the lease of an attempt has a say in it."""

from __future__ import annotations

from taskq.v1.processor_service_pb2 import (
    REPORT_STATUS_ACCEPTED,
    REPORT_STATUS_ALREADY_ACCEPTED,
    REPORT_STATUS_LEASE_LOST,
)
from taskq.v1.task_pb2 import TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED
from tests.e2e.conftest import StartWorld
from tests.support.raw import RawProcessor, RawScheduler, a_task, connected


def test_a_report_of_the_right_attempt_by_another_session_changes_nothing(start_world: StartWorld) -> None:
    world = start_world()
    with connected(world.server.address) as channel:
        scheduler, holder, stranger = (
            RawScheduler(channel),
            RawProcessor(channel, "work"),
            RawProcessor(channel, "work"),
        )
        holder.open_stream()
        scheduler.enqueue(a_task())
        task = holder.take()

        assert stranger.succeed(task) == REPORT_STATUS_LEASE_LOST

        assert scheduler.get(task.task_id).state == TASK_STATE_RUNNING
        assert holder.succeed(task) == REPORT_STATUS_ACCEPTED
        assert stranger.succeed(task) == REPORT_STATUS_LEASE_LOST
        holder.close()


def test_a_lease_outlives_a_killed_server_and_so_does_the_memory_of_a_report(start_world: StartWorld) -> None:
    world = start_world()
    with connected(world.server.address) as channel:
        scheduler, holder = RawScheduler(channel), RawProcessor(channel, "work")
        holder.open_stream()
        scheduler.enqueue(a_task(), a_task())
        first, second = holder.take(), holder.take()
        assert holder.succeed(first) == REPORT_STATUS_ACCEPTED

        world.server.restart()

        with connected(world.server.address) as again:
            holder.reconnect(again)
            assert holder.succeed(first) == REPORT_STATUS_ALREADY_ACCEPTED
            assert holder.succeed(second) == REPORT_STATUS_ACCEPTED
            assert RawScheduler(again).get(second.task_id).state == TASK_STATE_SUCCEEDED
            assert RawScheduler(again).get(second.task_id).attempt == 1
