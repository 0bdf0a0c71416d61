"""Enqueue: what was stored, what was stored before, and who holds a key."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest
from google.protobuf.struct_pb2 import Struct

from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq.v1 import task_pb2
from tests.rpc.support import CANCELLED, SCHEDULED, a_task, microseconds, soon, span, time_at
from tests.rpc.world import World
from tests.support import truth

CREATED = scheduler_pb2.ENQUEUE_OUTCOME_CREATED
EXISTING = scheduler_pb2.ENQUEUE_OUTCOME_EXISTING
REPLACED = scheduler_pb2.ENQUEUE_OUTCOME_REPLACED
REJECTED = scheduler_pb2.ENQUEUE_OUTCOME_REJECTED
CONFLICT = scheduler_pb2.ENQUEUE_OUTCOME_CONFLICT


async def test_results_come_in_order_with_the_servers_time(world: World) -> None:
    ids = [str(uuid.uuid4()) for _ in range(50)]
    request = scheduler_pb2.EnqueueRequest(tasks=[a_task(task_id=one, delay=span(i)) for i, one in enumerate(ids)])
    response = await soon(world.scheduler.stub.Enqueue(request))
    now_us = world.clock.now_us()
    assert [result.task_id for result in response.results] == ids
    assert [microseconds(result.due_time) - now_us for result in response.results] == [i * 1_000_000 for i in range(50)]
    assert {result.outcome for result in response.results} == {CREATED}
    assert microseconds(response.server_time) == now_us


async def test_the_same_id_again_is_the_same_task_and_other_content_is_a_conflict(world: World) -> None:
    task_id = str(uuid.uuid4())
    new = a_task(data=b"pasta", task_id=task_id, delay=span(60))
    (first,) = await world.scheduler.enqueue_all(new)
    world.clock.advance(5)
    (again,) = await world.scheduler.enqueue_all(new)
    assert (first.outcome, again.outcome) == (CREATED, EXISTING)
    assert (again.task_id, again.due_time) == (task_id, first.due_time)

    (other,) = await world.scheduler.enqueue_all(a_task(data=b"rice", task_id=task_id, delay=span(60)))
    assert (other.outcome, other.due_time) == (CONFLICT, first.due_time)
    assert (await world.scheduler.get(task_id)).payload.data == b"pasta"


async def test_a_retry_after_the_task_is_finished_makes_no_second_one(world: World) -> None:
    task_id = await world.scheduler.enqueue(task_id=str(uuid.uuid4()))
    await world.scheduler.cancel(task_id)
    (again,) = await world.scheduler.enqueue_all(a_task(task_id=task_id))
    assert again.outcome == EXISTING
    assert (await world.scheduler.get(task_id)).state == CANCELLED


async def test_many_retries_at_once_make_one_task(world: World, database_url: str) -> None:
    new = a_task(task_id=str(uuid.uuid4()))
    results = await asyncio.gather(*(world.scheduler.enqueue_all(new) for _ in range(30)))
    outcomes = [result.outcome for (result,) in results]
    assert (outcomes.count(CREATED), outcomes.count(EXISTING)) == (1, 29)
    assert truth.count(database_url) == 1


@pytest.mark.parametrize(
    ("conflict", "outcome", "data", "delay"),
    [
        (scheduler_pb2.DEDUP_CONFLICT_UNSPECIFIED, EXISTING, b"old", 60),
        (scheduler_pb2.DEDUP_CONFLICT_RETURN_EXISTING, EXISTING, b"old", 60),
        (scheduler_pb2.DEDUP_CONFLICT_REJECT, REJECTED, b"old", 60),
        (scheduler_pb2.DEDUP_CONFLICT_REPLACE, REPLACED, b"new", 10),
        (scheduler_pb2.DEDUP_CONFLICT_DEBOUNCE, REPLACED, b"old", 10),
    ],
)
async def test_a_second_task_with_the_key_does_what_its_policy_says(
    world: World, conflict: scheduler_pb2.DedupConflict, outcome: int, data: bytes, delay: float
) -> None:
    dedup = scheduler_pb2.Dedup(key="table-7", on_conflict=conflict)
    holder = await world.scheduler.enqueue(data=b"old", delay=span(60), dedup=dedup)
    (result,) = await world.scheduler.enqueue_all(a_task(data=b"new", delay=span(10), dedup=dedup))

    assert (result.task_id, result.outcome) == (holder, outcome)
    found = await world.scheduler.get(holder)
    assert found.payload.data == data
    assert microseconds(found.due_time) == microseconds(result.due_time) == world.clock.now_us() + delay * 1_000_000


async def test_a_waiting_task_that_is_moved_forward_wakes_the_dispatcher(world: World) -> None:
    processor = await world.processor()
    dedup = scheduler_pb2.Dedup(key="k", on_conflict=scheduler_pb2.DEDUP_CONFLICT_REPLACE)
    holder = await world.scheduler.enqueue(data=b"old", delay=span(600), dedup=dedup)
    await world.dispatched()
    await world.scheduler.enqueue(data=b"new", dedup=dedup)
    task = await processor.take_one()
    assert (task.task_id, task.payload.data) == (holder, b"new")


async def test_a_key_is_free_again_once_its_task_is_finished(world: World) -> None:
    first = await world.scheduler.enqueue(dedup={"key": "k"})
    await world.scheduler.cancel(first)
    assert await world.scheduler.enqueue(dedup={"key": "k"}) != first


async def test_of_many_racing_for_a_key_one_creates(world: World, database_url: str) -> None:
    news = [a_task(dedup={"key": "k"}) for _ in range(30)]
    results = [result for (result,) in await asyncio.gather(*(world.scheduler.enqueue_all(new) for new in news))]
    assert [result.outcome for result in results].count(CREATED) == 1
    assert len({result.task_id for result in results}) == 1
    assert truth.count(database_url) == 1


async def test_args_become_a_json_payload(world: World) -> None:
    args = Struct()
    args.update({"n": 9007199254740993, "text": "é\0", "list": [1.5, None, True, {}]})
    task_id = await world.scheduler.enqueue(args=args)
    found = await world.scheduler.get(task_id)
    assert found.payload.content_type == "application/json"
    assert json.loads(found.payload.data) == {
        "n": 9007199254740992,  # a double
        "text": "é\0",
        "list": [1.5, None, True, {}],
    }


async def test_a_task_is_shown_with_every_default_filled_in(world: World) -> None:
    expire = time_at(world.clock.now_us() + 1)
    found = await world.scheduler.get(
        await world.scheduler.enqueue(requires=["b", "a=1"][1:], expire_time=expire, retention=span(5))
    )
    assert (found.state, found.attempt, found.failed_attempts, found.priority) == (SCHEDULED, 0, 0, 0)
    assert list(found.requires) == ["a = 1"]
    assert (found.expire_time, found.retention) == (expire, span(5))
    assert microseconds(found.due_time) == microseconds(found.enqueue_time) == world.clock.now_us()
    policy = task_pb2.RetryPolicy(max_attempts=5, multiplier=2, jitter=task_pb2.RetryPolicy.JITTER_FULL)
    policy.initial_delay.CopyFrom(span(1))
    policy.max_delay.CopyFrom(span(600))
    assert found.retry_policy == policy
    for absent in ("payload", "result", "last_failure", "progress", "run_timeout", "lease_time", "finish_time"):
        assert not found.HasField(absent), absent


async def test_an_id_in_capitals_is_the_same_id(world: World) -> None:
    task_id = str(uuid.uuid4())
    (first,) = await world.scheduler.enqueue_all(a_task(task_id=task_id))
    (again,) = await world.scheduler.enqueue_all(a_task(task_id=task_id.upper()))
    assert (first.outcome, again.outcome, again.task_id) == (CREATED, EXISTING, task_id)
