"""What is finished goes when its retention is over, in small batches, and takes all that hangs on it along."""

from __future__ import annotations

from taskq_server.clock import ManualClock
from taskq_server.core.task import DedupHold
from taskq_server.store.store import Store
from taskq_server.store.verbs.pruning import MOST_KEYS_PER_PRUNE, MOST_TASKS_PER_PRUNE
from tests.store.conftest import RULES
from tests.store.given import (
    NO_RETRY,
    a_processor,
    a_retry,
    a_task,
    added,
    days,
    end,
    failed,
    lease,
    minutes,
    rows,
    running,
    seconds,
    succeeded,
)


async def test_a_finished_task_is_kept_for_its_retention_and_not_a_microsecond_longer(
    store: Store, clock: ManualClock
) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task(retention=minutes(1)))
    clock.advance(9)
    await end(store, succeeded(assignment))

    clock.advance(us=minutes(1) - 1)
    before = await store.prune(0)
    clock.advance(us=1)
    after = await store.prune(0)

    assert (before.tasks, before.next_us) == (0, clock.now_us())
    assert (after.tasks, after.next_us) == (1, None)
    assert await store.get([assignment.task_id]) == {}


async def test_without_a_retention_of_its_own_the_servers_counts(store: Store, clock: ManualClock) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task())
    await end(store, succeeded(assignment))

    assert (await store.prune(0)).next_us == clock.now_us() + RULES.retention_us


async def test_a_retention_of_nothing_is_a_retention(store: Store) -> None:
    (assignment,) = await running(store, await a_processor(store), a_task(retention=0))
    await end(store, succeeded(assignment))

    assert (await store.prune(0)).tasks == 1


async def test_every_way_to_finish_leads_to_pruning(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    good, bad, stopped = await running(store, oven, *(a_task(retry=NO_RETRY, retention=1) for _ in range(3)))
    waiting = a_task(due_in=minutes(1), retention=1)
    late = a_task(due_in=minutes(1), retention=1, expires_at=clock.now_us())
    await store.add([waiting, late])
    await store.end([succeeded(good), failed(bad)])
    await store.cancel([stopped.task_id, waiting.task_id])
    await store.reclaim()
    clock.advance(us=1)

    assert (await store.prune(0)).tasks == 5
    assert await rows(store, "SELECT * FROM task") == []


async def test_what_is_unfinished_is_never_pruned(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    (first,) = await running(store, oven, a_task(retention=1, retry=a_retry(initial_delay_us=0)))
    await end(store, failed(first))
    await added(store, a_task(retention=1, due_in=days(30)))
    clock.advance(us=days(29))

    assert (await store.prune(0)).tasks == 0
    await lease(store, oven)
    clock.advance(us=days(29))
    assert (await store.prune(0)).tasks == 0


async def test_pruning_goes_in_small_batches_the_oldest_first(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store, slots=2_000)
    old = await running(store, oven, *(a_task(retention=1) for _ in range(MOST_TASKS_PER_PRUNE)))
    new = await running(store, oven, *(a_task(retention=2) for _ in range(3)))
    await store.end([succeeded(one) for one in new + old])
    clock.advance(us=2)

    first = await store.prune(0)
    left = await rows(store, "SELECT task_id FROM task")
    second = await store.prune(0)

    assert (first.tasks, first.next_us) == (MOST_TASKS_PER_PRUNE, clock.now_us())
    assert {row["task_id"] for row in left} == {one.task_id for one in new}
    assert (second.tasks, second.next_us) == (3, None)


async def test_the_history_of_a_task_goes_with_it_and_no_others(store: Store, clock: ManualClock) -> None:
    oven = await a_processor(store)
    retry = a_retry(initial_delay_us=0)
    gone, kept = await running(store, oven, a_task(retention=1, retry=retry), a_task(retry=retry))
    await store.end([failed(gone), failed(kept)])
    again = (await lease(store, oven)).assignments
    await store.end([succeeded(one) for one in again])
    clock.advance(us=1)

    await store.prune(0)

    assert await rows(store, "SELECT task_id FROM attempt JOIN task ON seq = task_seq") == [{"task_id": kept.task_id}]
    assert await rows(store, "SELECT count(*) AS n FROM attempt") == [{"n": 1}]


async def test_keys_go_when_their_ttl_is_over_and_not_before(store: Store, clock: ManualClock) -> None:
    await added(store, a_task(key="short", ttl=seconds(1)), a_task(key="long", ttl=seconds(2)))
    clock.advance(us=seconds(1) - 1)
    await store.prune(0)
    assert len(await rows(store, "SELECT * FROM dedup")) == 2
    clock.advance(us=1)
    await store.prune(0)

    assert [row["key"] for row in await rows(store, "SELECT * FROM dedup")] == ["long"]


async def test_keys_go_in_small_batches_too(store: Store, clock: ManualClock) -> None:
    await added(store, *(a_task(key=f"k{i}", ttl=seconds(1)) for i in range(MOST_KEYS_PER_PRUNE + 7)))
    clock.advance(1)

    first = await store.prune(0)
    left = await rows(store, "SELECT count(*) AS n FROM dedup")
    second = await store.prune(0)

    assert (first.next_us, left) == (clock.now_us(), [{"n": 7}])
    assert second.next_us is None
    assert await rows(store, "SELECT count(*) AS n FROM dedup") == [{"n": 0}]


async def test_a_key_that_an_unfinished_task_still_holds_stays(store: Store, clock: ManualClock) -> None:
    await added(
        store,
        a_task(key="both", ttl=seconds(1), hold=DedupHold.BOTH, due_in=days(1)),
        a_task(key="unfinished", due_in=days(1)),
    )
    clock.advance(us=minutes(1))
    await store.prune(0)

    assert [row["key"] for row in await rows(store, "SELECT key FROM dedup ORDER BY key")] == ["both", "unfinished"]


async def test_ended_sessions_are_kept_for_a_while(store: Store, clock: ManualClock) -> None:
    alive, gone = await a_processor(store), await a_processor(store)
    await store.unregister(gone.seq)
    clock.advance(us=minutes(1))
    await store.prune(minutes(1))
    assert len(await rows(store, "SELECT * FROM session")) == 2
    clock.advance(us=1)
    await store.prune(minutes(1))

    assert await rows(store, "SELECT session_seq FROM session") == [{"session_seq": alive.seq}]


async def test_nothing_to_prune_is_nothing_to_come_back_for(store: Store) -> None:
    await added(store, a_task())
    pruned = await store.prune(0)

    assert (pruned.tasks, pruned.next_us) == (0, None)
