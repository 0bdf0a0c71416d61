"""How a session ends: by its own word, or by silence. A pause of the server itself ends none."""

from __future__ import annotations

import pytest

from tests.rpc.support import FAILED, LEASE_LOST, OK, REREGISTER, RUNNING, SCHEDULED, retrying
from tests.rpc.world import LEASE_SECONDS, World


async def test_unregister_releases_what_the_session_holds_at_no_cost_in_attempts(world: World) -> None:
    leaving, staying = await world.processor("leaving"), await world.registered("staying")
    task_id = await world.scheduler.enqueue(retry_policy=retrying(600, max_attempts=1))
    task = await leaving.take_one()
    await staying.open()
    await leaving.unregister()

    again = await staying.take_one()
    assert (again.task_id, again.attempt, again.failed_attempts) == (task_id, 2, 0)
    assert (await leaving.succeed(task)).status == LEASE_LOST


async def test_unregister_ends_the_stream_and_may_be_repeated(world: World) -> None:
    processor = await world.processor()
    await processor.unregister()
    assert (await processor.stream.next("drain")).reason == "unregistered"
    assert await processor.stream.read() is None
    await processor.unregister()


async def test_a_session_without_a_heartbeat_for_the_lease_ends_and_its_tasks_go_to_others(world: World) -> None:
    dead, alive = await world.processor("dead"), await world.registered("alive")
    task_id = await world.scheduler.enqueue(retry_policy=retrying(600))
    task = await dead.take_one()
    await alive.open()

    await world.let_pass(LEASE_SECONDS - 0.1, alive)
    assert (await world.scheduler.get(task_id)).processor_name == "dead"
    await world.let_pass(0.1, alive)
    again = await alive.take_one()
    assert (again.task_id, again.attempt, again.failed_attempts) == (task_id, 2, 1)
    assert again.last_failure.error_type == "PROCESSOR_LOST"

    assert (await dead.heartbeat(task)).stream == REREGISTER
    assert (await dead.succeed(task)).status == LEASE_LOST
    assert (await world.scheduler.get(task_id)).state == RUNNING
    assert (await dead.stream.next("drain")).reason


async def test_the_death_is_noticed_without_anything_else_happening(world: World) -> None:
    dead, alive = await world.processor("dead"), await world.registered("alive")
    await world.scheduler.enqueue()
    await dead.take_one()
    await alive.open()
    for _ in range(9):  # the loops themselves wake: nobody calls tick here
        world.clock.advance(LEASE_SECONDS / 8)
        await alive.heartbeat()
        await world.dispatched()
        assert world._marker is not None
        await world._marker.heartbeat()
    assert (await alive.take_one()).attempt == 2


async def test_a_stream_alone_does_not_keep_a_session_alive(world: World) -> None:
    processor = await world.processor()
    await world.let_pass(LEASE_SECONDS)
    assert (await processor.heartbeat()).stream == REREGISTER


async def test_a_pause_of_the_server_itself_ends_no_session(world: World) -> None:
    # given a server that was stopped for far longer than the lease, and so heard nobody
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    world.clock.advance(20 * LEASE_SECONDS)
    await world.server.housekeeper.tick()
    assert (await world.scheduler.get(task_id)).state == RUNNING

    # when the processor is heard again within half a lease, then it has lost nothing
    await world.let_pass(LEASE_SECONDS / 2 - 1)
    assert (await processor.heartbeat(task)).stream == OK
    await world.let_pass(LEASE_SECONDS / 2)
    assert not (await processor.heartbeat(task)).lost


async def test_who_is_not_heard_within_half_a_lease_after_a_pause_is_dead(world: World) -> None:
    processor = await world.processor()
    world.clock.advance(20 * LEASE_SECONDS)
    await world.server.housekeeper.tick()
    await world.let_pass(LEASE_SECONDS / 2)
    assert (await processor.heartbeat()).stream == REREGISTER


async def test_a_task_that_outlives_three_of_its_processors_is_failed(world: World) -> None:
    task_id = await world.scheduler.enqueue(retry_policy=retrying(0, max_attempts=100))
    for attempt in (1, 2, 3):
        victim = await world.processor(f"victim-{attempt}")
        assert (await victim.take_one()).attempt == attempt
        await world.let_pass(LEASE_SECONDS)
        assert (await victim.heartbeat()).stream == REREGISTER
    found = await world.scheduler.get(task_id)
    assert (found.state, found.last_failure.error_type, found.failed_attempts) == (FAILED, "PROCESSOR_LOST", 3)


async def test_a_restarted_processor_never_inherits_the_leases_of_the_one_before(world: World) -> None:
    before = await world.processor("oven")
    task_id = await world.scheduler.enqueue()
    task = await before.take_one()
    after = await world.processor("oven")

    assert before.session_id != after.session_id
    assert [one.task_id for one in (await after.heartbeat(task)).lost] == [task_id]
    assert (await after.succeed(task)).status == LEASE_LOST
    assert (await world.scheduler.get(task_id)).state == RUNNING


@pytest.mark.parametrize("times", [1, 2])
async def test_sessions_and_running_tasks_survive_a_restart_of_the_server(world: World, times: int) -> None:
    processor = await world.processor(max_in_flight=2)
    first = await world.scheduler.enqueue()
    task = await processor.take_one()
    for _ in range(times):
        await world.restart()
        processor = world.moved(processor)

    answer = await processor.heartbeat(task)
    assert not answer.lost
    await processor.open()
    await world.scheduler.enqueue()
    third = await world.scheduler.enqueue()
    await processor.take_one()
    await world.dispatched()
    assert (await world.scheduler.get(third)).state == SCHEDULED  # the restored task still counts
    await processor.succeed(task, b"kept")
    assert (await processor.take_one()).task_id == third
    assert (await world.scheduler.get(first)).result.data == b"kept"


async def test_what_was_pushed_but_lost_in_a_restart_comes_again_after_two_heartbeats(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    await world.dispatched()  # it is leased, and its processor never reads it
    await world.restart()
    processor = world.moved(processor)
    await processor.open()
    await processor.heartbeat()
    await processor.heartbeat()
    again = await processor.take_one()
    assert (again.task_id, again.attempt, again.failed_attempts) == (task_id, 2, 0)


async def test_what_waits_survives_a_restart_and_is_pushed_when_due(world: World) -> None:
    due = await world.scheduler.enqueue(requires=["zone = north"])
    processor = await world.registered(labels={"zone": "north"})
    await world.restart()
    processor = world.moved(processor)
    await processor.open()
    assert (await processor.take_one()).task_id == due


async def test_a_session_that_was_silent_while_the_server_was_away_is_spared_then_ended(world: World) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue()
    task = await processor.take_one()
    await world.server.stop()
    world.clock.advance(3600)
    await world.begin()
    assert (await world.scheduler.get(task.task_id)).state == RUNNING

    await world.let_pass(LEASE_SECONDS / 2)
    assert (await world.moved(processor).heartbeat(task)).stream == REREGISTER
    assert (await world.scheduler.get(task.task_id)).state == SCHEDULED


async def test_a_run_timeout_goes_on_over_a_restart(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue(run_timeout={"seconds": 5}, retry_policy=retrying(60))
    await processor.take_one()
    await world.restart()
    await world.let_pass(5)
    assert (await world.scheduler.get(task_id)).last_failure.error_type == "RUN_TIMEOUT"


async def server_time_after_a_restart_with_the_clock_set_back_by(world: World, seconds: int) -> tuple[int, int]:
    """The time that was reached before, and that which is told after."""
    world.clock.advance(60)
    await world.scheduler.enqueue()
    reached_us = world.clock.now_us()
    await world.server.stop()
    world.clock = type(world.clock)(reached_us - seconds * 1_000_000)
    await world.begin()
    return reached_us, (await world.registered()).registered.server_time.ToMicroseconds()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # PostgreSQL has a clock of its own
async def test_time_does_not_go_back_over_a_restart(world: World) -> None:
    reached_us, told_us = await server_time_after_a_restart_with_the_clock_set_back_by(world, 30)
    assert told_us >= reached_us - 1_000_000


async def test_a_clock_that_was_far_ahead_is_believed_once_it_is_put_right(world: World) -> None:
    reached_us, told_us = await server_time_after_a_restart_with_the_clock_set_back_by(world, 3600)
    assert told_us == reached_us - 3600 * 1_000_000
