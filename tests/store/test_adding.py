"""Tasks are stored as they came: once each, in order, to the microsecond."""

from __future__ import annotations

import asyncio

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.matching import Route
from taskq_server.core.retry import Jitter, RetryPolicy
from taskq_server.core.task import EnqueueOutcome, NewTask, Payload, TaskState
from taskq_server.store.store import Store
from taskq_server.store.transaction import Transaction
from tests.store.conftest import Reopen
from tests.store.given import (
    a_processor,
    a_task,
    added,
    an_id,
    end,
    fails_with,
    lease,
    minutes,
    outcomes,
    rows,
    running,
    seconds,
    succeeded,
    the_task,
)

CREATED, EXISTING, CONFLICT = EnqueueOutcome.CREATED, EnqueueOutcome.EXISTING, EnqueueOutcome.CONFLICT


async def test_a_task_reads_back_as_it_was_given(store: Store, clock: ManualClock) -> None:
    policy = RetryPolicy(7, seconds(3), 1.5, minutes(9), Jitter.EQUAL, ("Fatal", "Über-fatal"))
    new = a_task(
        "cook/pasta",
        requires=["zone = eu", "!slow"],
        due_in=minutes(5),
        payload=Payload(b"\x00\xff", "application/x", {"spice": "pfeffer 🌶"}),
        priority=9,
        retry=policy,
        run_timeout=seconds(7),
        expires_at=clock.now_us() + minutes(20),
        headers={"traceparent": "00-1"},
        tags=("vip", "mensa"),
        retention=minutes(1),
    )

    await added(store, new)

    task = await the_task(store, new.task_id)
    assert task.route == new.route
    assert task.payload == new.payload
    assert task.retry_policy == policy
    assert (task.priority, task.run_timeout_us, task.retention_us) == (9, seconds(7), minutes(1))
    assert (task.headers, task.tags) == ({"traceparent": "00-1"}, ("vip", "mensa"))
    assert task.expire_time_us == clock.now_us() + minutes(20)
    assert (task.state, task.attempt, task.failed_attempts) == (TaskState.SCHEDULED, 0, 0)
    assert task.enqueue_time_us == clock.now_us()
    assert task.due_time_us == clock.now_us() + minutes(5)
    assert (task.lease_time_us, task.finish_time_us, task.processor_name) == (None, None, "")
    assert (task.result, task.last_failure, task.progress) == (None, None, None)


async def test_no_payload_is_not_an_empty_payload(store: Store) -> None:
    nothing, empty = await added(store, a_task(payload=None), a_task(payload=b""))

    assert (await the_task(store, nothing)).payload is None
    assert (await the_task(store, empty)).payload == Payload(b"")


async def test_a_due_time_is_kept_to_the_microsecond(store: Store, clock: ManualClock) -> None:
    (answer,) = await store.add([a_task(due_at=clock.now_us() + 1_234_567)])

    assert answer.due_time_us == clock.now_us() + 1_234_567
    assert (await the_task(store, answer.task_id)).due_time_us == clock.now_us() + 1_234_567


async def test_a_delay_is_counted_on_the_servers_clock(store: Store, clock: ManualClock) -> None:
    clock.advance(us=1)

    (answer,) = await store.add([a_task(due_in=7)])

    assert answer.due_time_us == clock.now_us() + 7


async def test_a_due_time_that_is_past_is_kept_and_due_at_once(store: Store, clock: ManualClock) -> None:
    (answer,) = await store.add([a_task(due_at=5)])

    assert answer.due_time_us == 5
    assert (await lease(store, await a_processor(store))).assignments[0].due_time_us == 5


async def test_answers_come_in_the_order_of_the_tasks(store: Store) -> None:
    known = a_task()
    await added(store, known)
    new = [a_task() for _ in range(3)]

    answers = await store.add([new[0], known, new[1], new[2]])

    assert [answer.task_id for answer in answers] == [new[0].task_id, known.task_id, new[1].task_id, new[2].task_id]
    assert outcomes(answers) == [CREATED, EXISTING, CREATED, CREATED]


async def test_no_tasks_are_no_work(store: Store) -> None:
    assert await store.add([]) == []


async def test_the_same_id_with_the_same_content_is_the_same_task(store: Store) -> None:
    task_id = an_id()
    (first,) = await store.add([a_task(task_id=task_id, content="pasta", due_in=minutes(1))])

    (second,) = await store.add([a_task(task_id=task_id, content="pasta", due_in=minutes(9))])

    assert second.outcome is EXISTING
    assert (second.task_id, second.due_time_us) == (task_id, first.due_time_us)
    assert await rows(store, "SELECT count(*) AS n FROM task") == [{"n": 1}]


async def test_the_same_id_with_other_content_is_a_conflict_and_changes_nothing(store: Store) -> None:
    task_id = an_id()
    await added(store, a_task(task_id=task_id, content="pasta", payload=b"pasta", priority=3))

    (answer,) = await store.add([a_task(task_id=task_id, content="pizza", payload=b"pizza", priority=4)])

    assert answer.outcome is CONFLICT
    assert (await the_task(store, task_id)).payload == Payload(b"pasta")
    assert (await the_task(store, task_id)).priority == 3


@pytest.mark.parametrize("key", [None, "k"])
async def test_an_id_is_known_for_as_long_as_its_task_is_kept(
    store: Store, clock: ManualClock, key: str | None
) -> None:
    task_id = an_id()
    (assignment,) = await running(
        store, await a_processor(store), a_task(task_id=task_id, retention=seconds(9), key=key)
    )
    assert outcomes(await store.add([a_task(task_id=task_id, key=key)])) == [EXISTING]
    await end(store, succeeded(assignment))
    assert outcomes(await store.add([a_task(task_id=task_id, key=key)])) == [EXISTING]

    clock.advance(9)
    await store.prune(0)

    assert outcomes(await store.add([a_task(task_id=task_id, key=key)])) == [CREATED]


async def test_an_id_that_comes_twice_in_one_batch_makes_one_task(store: Store) -> None:
    task_id = an_id()

    answers = await store.add([a_task(task_id=task_id, content=content) for content in ("pasta", "pasta", "pizza")])

    assert outcomes(answers) == [CREATED, EXISTING, CONFLICT]
    assert await rows(store, "SELECT count(*) AS n FROM task") == [{"n": 1}]


async def test_of_callers_who_race_with_one_id_exactly_one_creates_the_task(store: Store) -> None:
    task_id = an_id()

    answers = await asyncio.gather(*(store.add([a_task(task_id=task_id)]) for _ in range(20)))

    assert sorted(outcomes(answer for (answer,) in answers)) == [CREATED] + [EXISTING] * 19


async def test_a_large_batch_is_stored_whole(store: Store) -> None:
    answers = await store.add([a_task(f"name-{i % 7}", priority=i % 10) for i in range(6_000)])

    assert set(outcomes(answers)) == {CREATED}
    assert await rows(store, "SELECT count(*) AS n, count(DISTINCT seq) AS m FROM task") == [{"n": 6_000, "m": 6_000}]


async def test_tasks_of_one_route_share_it_whatever_way_their_requirements_are_written(store: Store) -> None:
    await added(
        store,
        a_task(requires=["zone in (eu, us)", "gpu exists"]),
        a_task(requires=["gpu   exists", "zone in (us,eu)", "zone in (us,eu,us)"]),
        a_task(requires=["gpu exists"]),
        a_task("bake", requires=["gpu exists"]),
    )

    assert sorted(route.name for route in store.routes.values()) == ["bake", "cook", "cook"]


async def test_a_batch_that_fails_leaves_no_task_no_route_and_no_hint_that_is_too_late(store: Store) -> None:
    await added(store, a_task(due_in=minutes(5)))

    def add_then_fail(tx, items):  # type: ignore[no-untyped-def]
        store._add(tx, [a_task("new name"), a_task(due_in=minutes(1))])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.write(add_then_fail, [None])

    assert await rows(store, "SELECT name FROM route JOIN task USING (route_id)") == [{"name": "cook"}]
    await added(store, a_task("new name"))
    assert await rows(store, "SELECT count(*) AS n FROM task JOIN route USING (route_id)") == [{"n": 2}]


async def add_and_fail(store: Store, *tasks: NewTask) -> dict[int, Route]:
    """A batch that is undone; answers the routes that could be seen meanwhile."""
    seen: dict[int, Route] = {}

    def add_then_fail(tx: Transaction, items: list[None]) -> list[None]:
        store._add(tx, list(tasks))
        seen.update(store.routes)  # as a dispatcher could, which matches sessions with routes once
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.write(add_then_fail, [None])
    return seen


async def test_the_number_of_a_route_never_comes_to_mean_another(store: Store) -> None:
    await added(store, a_task("first"))
    seen = await add_and_fail(store, a_task("never stored"), a_task("first"))
    await added(store, a_task("another"))
    await add_and_fail(store, a_task("never stored either"))
    await added(store, a_task("never stored"), a_task("yet another"))

    names = ["first", "another", "never stored", "yet another"]
    assert {number: store.routes[number] for number in seen if number in store.routes} == {
        number: route for number, route in seen.items() if number in store.routes
    }
    assert sorted(route.name for route in store.routes.values()) == sorted(names)
    written = await rows(store, "SELECT route_id, name FROM route")
    assert {number: route.name for number, route in store.routes.items()} == {
        row["route_id"]: row["name"] for row in written
    }


async def test_new_routes_come_after_those_that_were_known(store: Store) -> None:
    """A session is matched with each once: with those that have come since it was matched last."""
    known: list[tuple[int, Route]] = []
    for names in (["c", "a"], ["b"], ["d", "a", "0"]):
        await added(store, *(a_task(name) for name in names))
        await add_and_fail(store, a_task(f"never stored beside {names}"))

        assert list(store.routes.items())[: len(known)] == known
        known = list(store.routes.items())


async def test_routes_after_a_failed_batch_and_a_restart_are_those_of_before(store: Store, reopen: Reopen) -> None:
    await add_and_fail(store, a_task("never stored"))
    await added(store, a_task("another"), a_task(requires=["gpu exists"]))
    routes = store.routes

    again = await reopen()

    assert again.routes == routes
    await added(again, a_task("one more"))
    assert {number: again.routes[number] for number in routes} == routes


async def test_a_caller_is_not_failed_by_a_neighbour_in_the_same_commit(store: Store) -> None:
    answers = await asyncio.gather(
        store.add([a_task()]),
        store.write(fails_with(ZeroDivisionError()), [None]),
        store.add([a_task()]),
        return_exceptions=True,
    )

    assert [type(answer) for answer in answers] == [list, ZeroDivisionError, list]
