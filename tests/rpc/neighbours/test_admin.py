"""What an administrator says to one server holds on all of them, when they hear each other and when they only look."""

from __future__ import annotations

import grpc
import pytest

from tests.rpc.support import LEASE_LOST, OK, REREGISTER, SCHEDULED, keys, refusal_of
from tests.rpc.world import Neighbour, Pair, World


async def waits(world: World, task_id: str) -> bool:
    """Whether a task still waits after all that is due there has been pushed."""
    await world.dispatched()
    return bool((await world.scheduler.get(task_id)).state == SCHEDULED)


# ── pause ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_paused_at_one_server_is_pushed_by_none_from_the_answer_on(pair: Pair) -> None:
    """No look between: the others need not have heard of it."""
    here, there = pair
    processor = await there.processor()

    await here.admin.pause("cook")

    task_id = await there.scheduler.enqueue()
    assert await waits(there, task_id)
    assert processor.stream.tasks == []


async def test_what_is_resumed_at_one_server_is_pushed_by_another(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor()
    await there.admin.pause("cook")
    task_id = await there.scheduler.enqueue()
    assert await waits(there, task_id)

    await here.admin.resume("cook")
    await there.looks()

    assert (await processor.take_one()).task_id == task_id


async def test_a_pause_is_shown_by_every_server(pair: Pair) -> None:
    here, there = pair
    pause = await here.admin.pause("cook", "why")

    assert (await there.admin.capability("cook")).pause == pause
    assert (await there.admin.resume("cook")).pause == pause
    assert not (await here.admin.capabilities()).capabilities


# ── drain ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_drain_reaches_a_processor_of_another_server(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor()
    await there.scheduler.enqueue()
    task = await processor.take_one()

    drained = await here.admin.drain(processor.session_id, "it leaks")

    later = await there.scheduler.enqueue()
    assert await waits(there, later), "though the other has not heard of it"
    await there.looks()
    drain = await processor.stream.next("drain")
    assert (drain.reason, drain.processor) == ("it leaks", True)
    answer = await processor.heartbeat(task)
    assert (answer.stream, answer.drain) == (OK, True)
    assert drained.in_flight == 1
    assert drained.server == there.server._store._presence.name  # type: ignore[attr-defined]


async def test_a_heartbeat_to_any_server_says_that_its_processor_is_drained(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor()
    await there.admin.drain(processor.session_id)

    assert (await here.moved(processor).heartbeat()).drain


async def test_a_drain_outlives_the_server_at_which_the_processor_was(pair: Pair) -> None:
    here, there = pair
    processor = await there.processor()
    await there.admin.drain(processor.session_id, "why")
    await there.server.stop()
    after = here.moved(processor)

    assert (await after.heartbeat()).drain
    await after.open()

    assert (await after.stream.next("drain")).reason == "why"
    assert await waits(here, await here.scheduler.enqueue())


async def test_a_server_that_was_taken_for_dead_learns_of_a_drain(pair: Pair) -> None:
    here, there = pair
    processor = await here.processor()
    await there.admin.drain(processor.session_id, "why")
    # given that the signal to it is lost, since it was away for longer than a server may be
    await forgets_all(here)
    here.clock.advance(20)
    await there.server._store.renew()  # type: ignore[attr-defined]

    await here.server.neighbours.tick()  # type: ignore[union-attr]

    assert (await processor.stream.next("drain")).reason == "why"


async def forgets_all(world: Neighbour) -> None:
    store = world.server._store
    await store.forget([signal.signal_seq for signal in (await store.look_around()).signals])  # type: ignore[attr-defined]


# ── disconnect ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_disconnect_reaches_a_processor_of_another_server(pair: Pair) -> None:
    here, there = pair
    processor, other = await there.processor(), await here.registered("other")
    task_id = await there.scheduler.enqueue()
    task = await processor.take_one()
    await other.open()

    assert await here.admin.disconnect(processor.session_id) == 1
    await there.looks()

    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await processor.stream.ended()
    refusal = refusal_of(ended.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_DISCONNECTED")
    answer = await processor.heartbeat(task)
    assert (answer.stream, keys(answer.lost)) == (REREGISTER, keys([task]))
    again = await other.take_one()
    assert (again.task_id, again.failed_attempts) == (task_id, 0)
    assert (await processor.succeed(task)).status == LEASE_LOST


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_every_server_shows_the_processors_of_all(pair: Pair) -> None:
    here, there = pair
    ours, theirs = await here.processor("ours"), await there.processor("theirs")
    await there.scheduler.enqueue()
    await here.looks()

    by_here, by_there = [list((await world.admin.processors()).processors) for world in pair]

    assert [one.session_id for one in by_here] == [ours.session_id, theirs.session_id]
    assert [one.session_id for one in by_there] == [ours.session_id, theirs.session_id]
    assert all(one.server for one in by_here)
