"""An administrator drains a processor, which takes nothing more, or ends its session at once."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from taskq_server.session import Outgoing, Session, Stream
from taskq_server.store.store import Store
from tests.rpc.support import (
    ACCEPTED,
    LEASE_LOST,
    OK,
    REREGISTER,
    RUNNING,
    SCHEDULED,
    SUCCEEDED,
    UNKNOWN_ID,
    keys,
    microseconds,
    refusal_of,
    refused,
    retrying,
    soon,
    span,
)
from tests.rpc.world import LEASE_SECONDS, World

LONG_PING = 60
"""Longer than a test waits: what is said does not wait for the next ping."""

# ── drain ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_drained_processor_is_told_and_gets_nothing_more_and_finishes_what_runs(world: World) -> None:
    await world.restart(ping_interval=LONG_PING)
    processor = await world.processor()
    await world.scheduler.enqueue()
    task = await processor.take_one()

    await world.admin.drain(processor.session_id, "it leaks")

    drain = await processor.stream.next("drain")
    assert (drain.reason, drain.processor) == ("it leaks", True)
    later = await world.scheduler.enqueue()
    await world.dispatched()
    assert (await world.scheduler.get(later)).state == SCHEDULED
    answer = await processor.heartbeat(task)
    assert (answer.stream, answer.drain, list(answer.lost)) == (OK, True, [])
    assert (await processor.succeed(task)).status == ACCEPTED
    other = await world.processor("other")
    assert (await other.take_one()).task_id == later
    assert not (await other.heartbeat()).drain


async def test_the_stream_of_a_drained_processor_still_tells_what_to_stop(world: World) -> None:
    processor = await world.processor()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    await world.admin.drain(processor.session_id)
    await processor.stream.next("drain")

    await world.scheduler.cancel(task_id)

    assert keys((await processor.stream.next("cancel")).attempts) == keys([task])


async def test_a_heartbeat_that_does_not_know_of_the_drain_does_not_end_it(world: World) -> None:
    processor = await world.processor()
    await world.admin.drain(processor.session_id)

    await processor.heartbeat(draining=True)
    await processor.heartbeat(draining=False)

    task_id = await world.scheduler.enqueue()
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).state == SCHEDULED


async def test_a_processor_that_opens_its_stream_after_it_was_drained_is_told_so(world: World) -> None:
    await world.restart(ping_interval=LONG_PING)
    processor = await world.registered()
    await world.admin.drain(processor.session_id, "why")
    await world.scheduler.enqueue()

    await processor.open()

    drain = await processor.stream.next("drain")
    assert (drain.reason, drain.processor) == ("why", True)
    assert processor.stream.tasks == []


async def test_a_drain_survives_a_restart_of_the_server(world: World) -> None:
    processor = await world.processor()
    await world.admin.drain(processor.session_id, "why")

    await world.restart()

    processor = world.moved(processor)
    await processor.open()
    assert (await processor.stream.next("drain")).reason == "why"
    assert (await processor.heartbeat()).drain
    task_id = await world.scheduler.enqueue()
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).state == SCHEDULED


async def test_what_was_not_sent_to_a_drained_processor_yet_goes_to_others_at_no_cost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a processor that what it was given waits for, as if it did not read
    take_outgoing = Session.take_outgoing

    def hold_back(self: Session, stream: Stream, now_us: int) -> Outgoing:
        return Outgoing([], []) if self.processor_name == "silent" else take_outgoing(self, stream, now_us)

    monkeypatch.setattr(Session, "take_outgoing", hold_back)
    silent = await world.processor("silent")
    ids = [await world.scheduler.enqueue(retry_policy=retrying(600, max_attempts=1)) for _ in range(3)]
    await world.dispatched()
    assert await world.scheduler.states(ids) == [RUNNING] * 3

    drained = await world.admin.drain(silent.session_id)

    assert drained.in_flight == 0
    other = await world.processor("other")
    came = [(task.task_id, task.attempt, task.failed_attempts) for task in await other.take(3)]
    assert came == [(task_id, 2, 0) for task_id in ids]


async def test_what_was_being_leased_to_a_processor_when_it_was_drained_is_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = await world.processor()
    leased, go_on, lease = asyncio.Event(), asyncio.Event(), Store.lease

    async def lease_slowly(self: Store, demand: object) -> object:
        found = await lease(self, demand)  # type: ignore[arg-type]
        if found.assignments:
            leased.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(Store, "lease", lease_slowly)
    task_id = await world.scheduler.enqueue()
    await soon(leased.wait())
    await world.admin.drain(processor.session_id)
    go_on.set()

    other = await world.processor("other")
    assert (await other.take_one()).task_id == task_id
    await processor.stream.next("drain")
    assert processor.stream.tasks == []


async def test_what_is_leased_but_not_due_yet_when_its_processor_is_drained_goes_to_another(world: World) -> None:
    drained = await world.processor()
    task_id = await world.scheduler.enqueue(delay=span(0.001))
    await world.dispatched()
    assert (await world.scheduler.get(task_id)).state == RUNNING
    other = await world.processor("other")

    await world.admin.drain(drained.session_id)
    world.clock.advance(us=1_000)

    assert (await other.take_one()).task_id == task_id


async def test_a_drain_answers_the_processor_as_it_stands_with_the_first_time_and_the_last_reason(world: World) -> None:
    processor = await world.processor("oven", can={"cook": 2}, labels={"zone": "eu"})
    began_us = world.clock.now_us()
    await world.admin.drain(processor.session_id, "one")
    world.clock.advance(2)

    again = await world.admin.drain(processor.session_id, "two")

    assert (again.session_id, again.processor_name) == (processor.session_id, "oven")
    assert (again.drain.reason, microseconds(again.drain.drain_time)) == ("two", began_us)
    assert list((await world.admin.processors()).processors) == [again]
    reasons = [(await processor.stream.next("drain")).reason]
    if reasons == ["one"]:
        reasons.append((await processor.stream.next("drain")).reason)
    assert reasons[-1] == "two"


async def test_a_session_that_has_ended_or_never_was_cannot_be_drained(world: World) -> None:
    processor = await world.processor()
    await processor.unregister()

    for session_id in (processor.session_id, UNKNOWN_ID):
        refusal = await refused(world.admin.drain(session_id))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
        assert refusal.facts == {"session_id": session_id}


# ── disconnect ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_a_disconnected_processor_held_goes_to_others_at_no_cost(world: World) -> None:
    processor, other = await world.processor("wedged"), await world.registered("other")
    task_id = await world.scheduler.enqueue(retry_policy=retrying(600, max_attempts=1))
    task = await processor.take_one()
    await other.open()

    assert await world.admin.disconnect(processor.session_id) == 1

    again = await other.take_one()
    assert (again.task_id, again.attempt, again.failed_attempts) == (task_id, 2, 0)
    assert (await processor.succeed(task)).status == LEASE_LOST
    assert (await other.succeed(again)).status == ACCEPTED
    assert (await world.scheduler.get(task_id)).state == SUCCEEDED


async def test_the_stream_of_a_disconnected_processor_says_so_and_its_heartbeats_are_told_to_register_again(
    world: World,
) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue()
    task = await processor.take_one()

    await world.admin.disconnect(processor.session_id)

    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await processor.stream.ended()
    refusal = refusal_of(ended.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_DISCONNECTED")
    assert refusal.facts == {"session_id": processor.session_id}
    answer = await processor.heartbeat(task)
    assert (answer.stream, keys(answer.lost)) == (REREGISTER, keys([task]))
    refusal = await refused(processor.open())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")


async def test_to_disconnect_again_changes_nothing_and_an_unknown_session_is_not_found(world: World) -> None:
    processor = await world.registered()

    assert [await world.admin.disconnect(processor.session_id) for _ in range(2)] == [0, 0]

    refusal = await refused(world.admin.disconnect(UNKNOWN_ID))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")


async def test_a_processor_that_registers_again_is_another_session_and_is_given_tasks(world: World) -> None:
    before = await world.processor("oven")
    await world.admin.drain(before.session_id)
    await world.admin.disconnect(before.session_id)

    after = await world.processor("oven")

    task_id = await world.scheduler.enqueue()
    assert (await after.take_one()).task_id == task_id
    assert [one.session_id for one in (await world.admin.processors()).processors][:1] == [after.session_id]


async def test_a_session_without_a_heartbeat_is_no_longer_drained_but_dead(world: World) -> None:
    processor = await world.processor()
    await world.admin.drain(processor.session_id)

    await world.let_pass(LEASE_SECONDS)

    assert not (await world.admin.processors()).processors
