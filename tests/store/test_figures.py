"""What servers write down of what they do: sums, failures that are alike, hints for those who watch."""

from __future__ import annotations

import asyncio

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.event import Hint, Topic
from taskq_server.core.sums import OF_ALL, Sums
from taskq_server.core.task import TaskState
from taskq_server.store import schema
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.store import Store
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs import events, failures
from taskq_server.store.verbs.counting import Kind
from taskq_server.store.verbs.events import Since
from taskq_server.store.verbs.failures import Failures, GroupPage, Resolution
from taskq_server.store.verbs.figures import Asked, Round, Span
from tests.store.conftest import Servers
from tests.store.given import (
    NO_RETRY,
    Gate,
    a_processor,
    a_task,
    added,
    days,
    end,
    failed,
    hours,
    lease,
    minutes,
    rows,
    running,
    statements,
    succeeded,
    tamper,
)  # fmt: skip

MINUTE, HOUR = 60, 3600
FIRST_PAGE = GroupPage(1 << 60, "", 20_000)


def sums(enqueued: int = 1) -> Sums:
    return Sums(enqueued, lateness=[enqueued, *[0] * (schema.LATENESS_BUCKETS - 1)], run=[0] * schema.RUN_BUCKETS)


def seen(fingerprint: str, at: int, *, name: str = "cook", many: int = 1) -> Failures:
    what = "Burnt", "order <n> is burnt", "order 7 is burnt", "oven.py:1 in bake"
    return Failures(fingerprint, name, *what, many, at, at, b"0" * 16, ["oven"], ["build"])


# ── sums ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_written_twice_is_added_up(store: Store, clock: ManualClock) -> None:
    at = clock.now_us()
    for _ in range(2):
        await store.keep_figures(Round({Span(MINUTE, at, "cook"): sums(2), Span(MINUTE, at, OF_ALL): sums(3)}))

    assert await store.sums(Asked(MINUTE, at, at + 1, "cook")) == [(Span(MINUTE, at, "cook"), sums(4))]
    assert await store.sums(Asked(MINUTE, at, at + 1)) == [(Span(MINUTE, at, OF_ALL), sums(6))]
    assert await store.sums(Asked(HOUR, at, at + 1)) == []
    assert await store.sums(Asked(MINUTE, at + 1, at + 2)) == []


async def test_the_history_of_each_name_is_that_of_those_with_most_in_it(store: Store, clock: ManualClock) -> None:
    at = clock.now_us()
    many = {"a": 1, "b": 5, "c": 3, OF_ALL: 9}
    later = at + minutes(1)
    await store.keep_figures(
        Round({Span(MINUTE, when, name): sums(n) for name, n in many.items() for when in (at, later)})
    )
    found = await store.sums(Asked(MINUTE, at, at + minutes(2), None, 2))
    assert [(span.start_us, span.name) for span, _ in found] == [(at, "b"), (at, "c"), (later, "b"), (later, "c")]


async def test_what_is_too_old_goes_minutes_after_a_day_and_hours_after_ninety(
    store: Store, clock: ManualClock
) -> None:
    at = clock.now_us()
    await store.keep_figures(Round({Span(step, at, OF_ALL): sums() for step in (MINUTE, HOUR)}))
    for passed, left in ((days(1), [60, 3600]), (1, [3600]), (days(89), [])):
        clock.advance(us=passed)
        await store.keep_figures(Round(prunes=True))
        if passed != days(89):
            assert [row["step_seconds"] for row in await rows(store, "SELECT * FROM stat ORDER BY 1")] == left
    assert await rows(store, "SELECT * FROM stat") == []


async def test_servers_that_write_the_same_names_at_once_wait_for_each_other_in_no_circle(servers: Servers) -> None:
    stores, names = await servers(2), [f"name-{i}" for i in range(50)]
    at = stores[0]._clock.now_us()

    async def write(store: Postgres, order: list[str]) -> None:
        for _ in range(20):
            failing = [seen(f"{i:016x}", at) for i in range(20)]
            hints = [Hint(Topic.TASKS)]
            await store.keep_figures(
                Round({Span(MINUTE, at, name): sums() for name in order}, failing[:: len(order) % 2 or -1], hints, True)
            )

    await asyncio.gather(write(stores[0], names), write(stores[1], names[::-1]))

    found = await stores[0].sums(Asked(MINUTE, at, at + 1, None, 100))
    assert [one.enqueued for _, one in found] == [40] * 50
    assert {group.failures for group in await stores[0].failure_groups(FIRST_PAGE)} == {40}


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_task_that_fails_for_good_says_of_which_group_and_no_other_does(store: Store) -> None:
    processor = await a_processor(store)
    one, other, third = await running(store, processor, a_task(retry=NO_RETRY), a_task(), a_task())
    await end(store, failed(one, message="order 1"))
    await end(store, failed(other, message="order 2"))
    await end(store, succeeded(third))

    found = await rows(store, "SELECT state, failure_group FROM task ORDER BY seq")

    assert [(TaskState(row["state"]).name, bool(row["failure_group"])) for row in found] == [
        ("FAILED", True), ("SCHEDULED", False), ("SUCCEEDED", False)
    ]  # fmt: skip


async def test_what_nobody_started_in_time_is_of_a_group_too(store: Store, clock: ManualClock) -> None:
    processor = await a_processor(store)
    await added(store, a_task(expires_at=clock.now_us() + 1))
    clock.advance(1)
    await lease(store, processor)
    (row,) = await rows(store, "SELECT state, failure_group FROM task")
    assert row["state"] == TaskState.FAILED
    assert len(row["failure_group"]) == 16


async def test_only_so_many_groups_are_kept_and_the_ones_seen_last(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "MOST_GROUPS", 3)
    for i in range(5):
        await store.keep_figures(Round(failures=[seen(f"{i:016x}", i)], prunes=True))
    found = await store.failure_groups(FIRST_PAGE)
    assert [int(group.fingerprint, 16) for group in found] == [4, 3, 2]


async def test_a_group_remembers_ten_names_and_a_day_by_the_hour(store: Store, clock: ManualClock) -> None:
    for i in range(30):
        one = seen("a" * 16, clock.now_us(), many=i + 1)
        one.processor_names, one.build_ids = [f"oven-{i}"], [f"build-{i % 2}"]
        await store.keep_figures(Round(failures=[one]))
        clock.advance(us=hours(1))
    (group,) = await store.failure_groups(FIRST_PAGE)
    assert group.processor_names == [f"oven-{i}" for i in range(29, 19, -1)]
    assert group.build_ids == ["build-1", "build-0"]
    assert [count for _, count in group.trend] == list(range(8, 31))
    assert group.failures == sum(range(31))


async def test_columns_that_cannot_be_read_do_not_stand_in_the_way(store: Store, clock: ManualClock) -> None:
    await store.keep_figures(Round(failures=[seen("a" * 16, 1)]))
    await tamper(store, "UPDATE failure_group SET trend = 'x', processor_names = '7', build_ids = ''")
    await store.keep_figures(Round(failures=[seen("a" * 16, clock.now_us())]))
    (group,) = await store.failure_groups(FIRST_PAGE)
    assert (group.failures, group.processor_names, group.build_ids) == (2, ["oven"], ["build"])


async def test_what_is_resolved_is_told_to_those_who_watch(store: Store) -> None:
    await store.keep_figures(Round(failures=[seen("a" * 16, 1)]))
    hints = []
    store.on_commit = lambda transaction: hints.append(transaction.hints)
    await store.resolve_failures(Resolution("a" * 16, ""))
    assert hints == [{Topic.FAILURE_GROUPS: (1, ["a" * 16])}]


async def test_where_nothing_fails_an_end_is_the_same_statements_as_before(store: Store) -> None:
    """And where something fails, too: what is counted of it is written later."""
    processor = await a_processor(store)
    one, other = await running(store, processor, a_task(retry=NO_RETRY), a_task())
    with statements() as of_a_success:
        await end(store, succeeded(one))
    with statements() as of_a_failure:
        await end(store, failed(other))
    said = [
        statement for statement in of_a_success + of_a_failure if "stat " in statement or "failure_group " in statement
    ]
    assert not [statement for statement in said if statement.startswith(("INSERT INTO stat", "INSERT INTO failure"))]


# ── hints ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_hints_are_told_in_the_order_in_which_they_were_kept(store: Store, clock: ManualClock) -> None:
    for topic, changes, ids in ((Topic.TASKS, 7, ("a", "b")), (Topic.AUDIT, 1, ()), (Topic.TASKS, 1, ("ü",))):
        await store.keep_figures(Round(hints=[Hint(topic, changes, ids)], is_watched=True))
    everything = await store.events_after(Since(0))
    assert everything.is_whole
    assert [one.hint for one in everything.events] == [
        Hint(Topic.TASKS, 7, ("a", "b")), Hint(Topic.AUDIT), Hint(Topic.TASKS, 1, ("ü",))
    ]  # fmt: skip
    assert (await store.events_after(Since(everything.events[0].seq))).events == everything.events[1:]
    assert await store.last_event() == everything.events[-1]


async def test_hints_are_kept_for_an_hour_and_the_last_one_for_longer(store: Store, clock: ManualClock) -> None:
    for _ in range(3):
        await store.keep_figures(Round(hints=[Hint(Topic.TASKS)], is_watched=True))
    first, second, third = (await store.events_after(Since(0))).events
    clock.advance(us=hours(1) + 1)
    await store.keep_figures(Round(hints=[Hint(Topic.AUDIT)], is_watched=True, prunes=True))
    fourth = await store.last_event()
    assert fourth is not None
    assert (await store.events_after(Since(0))).events == [fourth]
    for gone in (first, second, third):
        assert not (await store.events_after(Since(gone.seq, gone.time_us))).is_whole
    assert (await store.events_after(Since(fourth.seq, fourth.time_us))).is_whole
    assert not (await store.events_after(Since(fourth.seq, fourth.time_us + 1))).is_whole, "of another database"


async def test_only_so_many_hints_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_KEPT", 2)
    for _ in range(5):
        await store.keep_figures(Round(hints=[Hint(Topic.TASKS)], is_watched=True, prunes=True))
    assert len((await store.events_after(Since(0))).events) == 2


async def test_no_hint_is_numbered_before_one_that_is_committed_later(servers: Servers) -> None:
    """Whoever reads on from what they have seen would miss it."""
    stores, gate = await servers(3), Gate()

    def keep_and_wait(tx: Transaction, items: list[None]) -> list[None]:
        events.keep(tx, [Hint(Topic.TASKS)], prunes=False)
        gate.pass_by(tx.connection)
        return items

    first = asyncio.create_task(stores[0].write(keep_and_wait, [None]))
    await gate.reached.wait()
    second = asyncio.create_task(stores[1].keep_figures(Round(hints=[Hint(Topic.AUDIT)], is_watched=True)))
    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while not await rows(stores[2], waiting):
        assert not second.done(), "it did not wait for its turn"
    gate.open()
    await asyncio.gather(first, second)

    told = (await stores[2].events_after(Since(0))).events
    assert [event.hint.topic for event in told] == [Topic.TASKS, Topic.AUDIT]


# ── how much there is ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_tasks_are_counted_by_what_has_an_index(store: Store) -> None:
    processor = await a_processor(store, slots=3)
    one, other, _ = await running(store, processor, a_task(retry=NO_RETRY), a_task(), a_task())
    await end(store, failed(one))
    await end(store, succeeded(other))
    await store.cancel(await added(store, a_task(due_in=minutes(1))))
    await added(store, a_task(due_in=minutes(1)), a_task(due_in=minutes(2)))
    counts = {kind.value: await store.count(kind) for kind in Kind}
    assert counts == {"scheduled": 2, "running": 1, "finished": 3, "failed": 1, "cancelled": 1}
