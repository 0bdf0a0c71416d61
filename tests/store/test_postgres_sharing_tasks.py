"""Several servers add tasks to one database: an id and a key have one task, and everybody learns which."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.task import (
    DedupConflict,
    EndStatus,
    Enqueued,
    EnqueueOutcome,
    NewTask,
    Payload,
    TaskState,
)
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.transaction import Transaction
from tests.store.conftest import Servers
from tests.store.given import (
    a_processor,
    a_task,
    added,
    an_id,
    lease,
    leased_ids,
    minutes,
    outcomes,
    replace_verb,
    rows,
    running,
    statuses,
    succeeded,
    the_task,
)
from tests.store.rivals import Stopped, somebody_waits, stopped_at, stopped_before_commit
from tests.support.console import Console

CREATED, EXISTING, CONFLICT = EnqueueOutcome.CREATED, EnqueueOutcome.EXISTING, EnqueueOutcome.CONFLICT
REPLACED, REJECTED = EnqueueOutcome.REPLACED, EnqueueOutcome.REJECTED
REPLACE, DEBOUNCE, RETURN_EXISTING = DedupConflict.REPLACE, DedupConflict.DEBOUNCE, DedupConflict.RETURN_EXISTING
HELD_TWICE = "SELECT dedup_key FROM task WHERE state < 3 GROUP BY dedup_key HAVING count(*) > 1"


async def adding(store: Postgres, *tasks: NewTask) -> Stopped:
    """An enqueue that has done all its work but the commit."""
    return await stopped_before_commit(store, "_add", lambda: store.add(list(tasks)))


async def adding_in_vain(store: Postgres, *tasks: NewTask) -> Stopped:
    """The same, of one that will be undone."""
    add = store._add

    def add_and_fail(tx: Transaction, items: list[Any]) -> list[Any]:
        add(tx, items)
        raise ZeroDivisionError

    replace_verb(store, "_add", add_and_fail)
    stopped = await stopped_at(store, "INSERT INTO task", store.add(list(tasks)), after=True)
    replace_verb(store, "_add", add)
    return stopped


# ── ids ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("content", "outcome"), [("pasta", EXISTING), ("pizza", CONFLICT)])
async def test_of_two_with_one_id_the_second_is_told_of_the_first(
    servers: Servers, console: Console, content: str, outcome: EnqueueOutcome
) -> None:
    here, there = await servers(2)
    task_id = an_id()

    first = await adding(here, a_task(task_id=task_id, content="pasta", due_in=minutes(1)))
    second = asyncio.create_task(there.add([a_task(task_id=task_id, content=content), a_task()]))
    await somebody_waits(console)
    (one,) = await first.goes_on()

    assert one.outcome is CREATED
    assert outcomes(await second) == [outcome, CREATED]
    assert second.result()[0].due_time_us == one.due_time_us
    assert console.value("SELECT count(*) FROM task") == 2


async def test_the_second_with_an_id_is_the_first_when_the_first_is_undone(servers: Servers, console: Console) -> None:
    here, there = await servers(2)
    task = a_task()

    first = await adding_in_vain(here, task)
    second = asyncio.create_task(there.add([task]))
    await somebody_waits(console)
    with pytest.raises(ZeroDivisionError):
        await first.goes_on()

    assert outcomes(await second) == [CREATED]


async def test_however_many_race_with_the_same_ids_each_task_is_created_once(servers: Servers) -> None:
    stores = await servers(3)
    tasks = [a_task() for _ in range(50)]

    async def add(store: Postgres) -> list[Enqueued]:
        mine = random.sample(tasks, len(tasks))
        return [answer for i in range(0, 50, 10) for answer in await store.add(mine[i : i + 10])]

    answers = await asyncio.gather(*(add(store) for store in stores))

    created = [one.task_id for answer in answers for one in answer if one.outcome is CREATED]
    assert sorted(created) == sorted(task.task_id for task in tasks)
    assert {one.outcome for answer in answers for one in answer} == {CREATED, EXISTING}


async def test_an_id_whose_task_is_pruned_between_two_looks_at_it_makes_a_new_task(
    servers: Servers, clock: ManualClock
) -> None:
    here, there = await servers(2)
    task = a_task(retention=0)
    (held,) = await running(here, await a_processor(here), task)
    await here.end([succeeded(held)])

    adding_again = await stopped_at(here, "SELECT task.task_id, task.seq", here.add([task]))
    assert (await there.prune(0)).tasks == 1

    assert outcomes(await adding_again.goes_on()) == [CREATED]
    assert (await the_task(here, task.task_id)).state is TaskState.SCHEDULED


async def test_an_id_whose_task_is_being_pruned_makes_a_new_task(
    servers: Servers, console: Console, clock: ManualClock
) -> None:
    here, there = await servers(2)
    task = a_task(retention=0)
    (held,) = await running(here, await a_processor(here), task)
    await here.end([succeeded(held)])

    pruning = await stopped_at(there, "DELETE FROM task", there.prune(0), after=True)
    adding_again = asyncio.create_task(here.add([task]))
    await somebody_waits(console)
    assert (await pruning.goes_on()).tasks == 1

    assert outcomes(await adding_again) == [CREATED]


async def test_tasks_are_numbered_in_the_order_of_each_server(servers: Servers) -> None:
    """Which is the order in which equally urgent ones are leased."""
    here, there = await servers(2)
    mine, theirs = [a_task() for _ in range(40)], [a_task() for _ in range(40)]
    await asyncio.gather(added(here, *mine), added(there, *theirs))
    await here.look_around()

    leased = await leased_ids(here, await a_processor(here))

    for tasks in (mine, theirs):
        ids = [task.task_id for task in tasks]
        assert [task_id for task_id in leased if task_id in ids] == ids
    assert len(leased) == 80


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_of_two_with_one_key_the_second_is_told_of_the_first(servers: Servers, console: Console) -> None:
    here, there = await servers(2)
    first = await adding(here, a_task(key="k"))

    second = asyncio.create_task(there.add([a_task(key="k"), a_task(key="k", on_conflict=DedupConflict.REJECT)]))
    await somebody_waits(console)
    (one,) = await first.goes_on()

    assert one.outcome is CREATED
    assert [(answer.outcome, answer.task_id) for answer in await second] == [
        (EXISTING, one.task_id),
        (REJECTED, one.task_id),
    ]


async def test_the_second_with_a_key_has_it_when_the_first_is_undone(servers: Servers, console: Console) -> None:
    here, there = await servers(2)
    first = await adding_in_vain(here, a_task(key="k"))

    second = asyncio.create_task(there.add([a_task(key="k")]))
    await somebody_waits(console)
    with pytest.raises(ZeroDivisionError):
        await first.goes_on()

    assert outcomes(await second) == [CREATED]


async def test_who_asks_for_other_keys_does_not_wait(servers: Servers) -> None:
    here, there = await servers(2)
    await added(here, a_task(), a_task("bake"))
    first = await adding(here, a_task(key="k"), a_task("bake", key="other"))

    assert outcomes(await there.add([a_task(key="other"), a_task("bake", key="k"), a_task()])) == [CREATED] * 3
    assert outcomes(await first.goes_on()) == [CREATED] * 2


async def test_however_many_race_for_keys_each_has_one_task_and_all_learn_which(
    servers: Servers, console: Console
) -> None:
    stores = await servers(3)
    keys = [f"k{i}" for i in range(40)]

    async def ask(store: Postgres) -> list[tuple[str, Enqueued]]:
        mine = random.sample(keys, len(keys))
        answers = await store.add([a_task(key=key, on_conflict=random.choice(list(DedupConflict))) for key in mine])
        return list(zip(mine, answers, strict=True))

    for _ in range(3):
        told = [one for answers in await asyncio.gather(*(ask(store) for store in stores)) for one in answers]

        assert console.rows(HELD_TWICE) == []
        holders = {(key, answer.task_id) for key, answer in told}
        assert len(holders) == len(keys), "one winner a key, and everybody knows it"
        assert Counter(answer.outcome for _, answer in told)[CREATED] == len(keys)
        await stores[0].cancel([task_id for _, task_id in holders])


async def test_ends_and_new_tasks_that_race_for_keys_leave_no_key_with_two(servers: Servers, console: Console) -> None:
    here, there = await servers(2)
    oven = await a_processor(here, slots=200)
    keys = [f"k{i}" for i in range(20)]
    held = await running(here, oven, *(a_task(key=key) for key in keys))
    for _ in range(8):
        answers, ended = await asyncio.gather(
            there.add([a_task(key=key) for key in random.sample(keys, 20)]), here.end([succeeded(one) for one in held])
        )

        assert set(statuses(ended)) == {EndStatus.ACCEPTED}
        assert console.rows(HELD_TWICE) == []
        before = {one.task_id for one in held}
        assert all((answer.outcome is CREATED) is (answer.task_id not in before) for answer in answers)
        await there.add([a_task(key=key) for key in keys])
        await here.look_around()
        held = (await lease(here, oven)).assignments
        assert len(held) == 20


@pytest.mark.parametrize("words", ["DELETE FROM dedup USING", "INSERT INTO dedup"])
async def test_a_key_that_is_pruned_while_it_is_asked_for_is_held_by_who_asks(
    servers: Servers, clock: ManualClock, words: str
) -> None:
    here, there = await servers(2)
    await added(here, a_task(key="k", ttl=1), a_task(key="other", ttl=1))
    clock.advance(us=1)

    asking = await stopped_at(here, words, here.add([a_task(key="k")]))
    await there.prune(0)

    (answer,) = await asking.goes_on()
    assert answer.outcome is CREATED
    assert await rows(here, "SELECT key, task_id FROM dedup") == [{"key": "k", "task_id": answer.task_id}]


async def test_a_key_that_is_being_pruned_is_free(servers: Servers, console: Console, clock: ManualClock) -> None:
    here, there = await servers(2)
    await added(here, a_task(key="k", ttl=1))
    clock.advance(us=1)

    pruning = await stopped_at(there, "DELETE FROM dedup", there.prune(0), after=True)
    asking = asyncio.create_task(here.add([a_task(key="k")]))
    await somebody_waits(console)
    await pruning.goes_on()

    (answer,) = await asking
    assert answer.outcome is CREATED
    assert await rows(here, "SELECT task_id FROM dedup") == [{"task_id": answer.task_id}]


# ── a holder that is changed while it is leased, or ends ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("policy", [REPLACE, DEBOUNCE])
async def test_a_holder_that_is_being_leased_runs_as_it_was(
    servers: Servers, console: Console, policy: DedupConflict
) -> None:
    here, there = await servers(2)
    oven = await a_processor(here)
    (task_id,) = await added(here, a_task(key="k", payload=b"old"))

    leasing = await stopped_at(here, "UPDATE task SET state = 2", lease(here, oven))
    changing = asyncio.create_task(there.add([a_task(key="k", payload=b"new", due_in=5, on_conflict=policy)]))
    await somebody_waits(console)
    (assignment,) = (await leasing.goes_on()).assignments

    assert (assignment.task_id, assignment.payload) == (task_id, Payload(b"old"))
    assert [(answer.outcome, answer.task_id) for answer in await changing] == [(EXISTING, task_id)]
    assert (await the_task(there, task_id)).payload == Payload(b"old")


@pytest.mark.parametrize(("policy", "payload"), [(REPLACE, b"new"), (DEBOUNCE, b"old")])
async def test_a_holder_that_is_being_changed_is_leased_as_it_will_be(
    servers: Servers, clock: ManualClock, policy: DedupConflict, payload: bytes
) -> None:
    here, there = await servers(2)
    oven = await a_processor(here)
    (task_id,) = await added(here, a_task(key="k", payload=b"old"))

    changing = await adding(there, a_task(key="k", payload=b"new", due_in=5, on_conflict=policy))
    assert await leased_ids(here, oven) == []
    assert outcomes(await changing.goes_on()) == [REPLACED]

    await here.look_around()
    assert await leased_ids(here, oven) == [], "it is not due any more"
    clock.advance(us=5)
    (assignment,) = (await lease(here, oven)).assignments
    assert (assignment.task_id, assignment.payload, assignment.due_time_us) == (
        task_id,
        Payload(payload),
        clock.now_us(),
    )


@pytest.mark.parametrize("policy", [REPLACE, DEBOUNCE])
async def test_a_key_whose_holder_is_ending_is_free_for_who_wants_to_change_it(
    servers: Servers, console: Console, policy: DedupConflict
) -> None:
    here, there = await servers(2)
    (held,) = await running(here, await a_processor(here), a_task(key="k"))

    ending = await stopped_before_commit(here, "_end", lambda: here.end([succeeded(held)]))
    changing = asyncio.create_task(there.add([a_task(key="k", on_conflict=policy)]))
    await somebody_waits(console)
    assert statuses(await ending.goes_on()) == [EndStatus.ACCEPTED]

    (answer,) = await changing
    assert (answer.outcome, answer.task_id != held.task_id) == (CREATED, True)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_who_is_told_of_a_holder_that_is_ending_is_told_as_if_he_had_come_before(
    servers: Servers, cancelled: bool
) -> None:
    here, there = await servers(2)
    (held,) = await running(here, await a_processor(here), a_task(key="k"))

    if cancelled:
        ending = await stopped_before_commit(here, "_cancel", lambda: here.cancel([held.task_id]))
    else:
        ending = await stopped_before_commit(here, "_end", lambda: here.end([succeeded(held)]))
    (answer,) = await there.add([a_task(key="k")])
    assert not ending.done
    await ending.goes_on()

    assert (answer.outcome, answer.task_id) == (EXISTING, held.task_id)
    assert outcomes(await there.add([a_task(key="k")])) == [CREATED]


@pytest.mark.parametrize("policy", [REPLACE, DEBOUNCE])
async def test_an_end_waits_for_who_looks_at_the_holder_and_counts(
    servers: Servers, console: Console, policy: DedupConflict
) -> None:
    here, there = await servers(2)
    (held,) = await running(here, await a_processor(here), a_task(key="k"))

    changing = await adding(there, a_task(key="k", on_conflict=policy))
    ending = asyncio.create_task(here.end([succeeded(held)]))
    await somebody_waits(console)
    (answer,) = await changing.goes_on()

    assert (answer.outcome, answer.task_id) == (EXISTING, held.task_id)
    assert statuses(await ending) == [EndStatus.ACCEPTED]


async def test_a_change_and_a_lease_at_any_instant_leave_one_of_two_linear_outcomes(servers: Servers) -> None:
    here, there = await servers(2)
    oven = await a_processor(here)
    for i in range(40):
        (task_id,) = await added(here, a_task(key="k", payload=b"old"))

        async def change(after: int) -> Enqueued:
            for _ in range(after):
                await asyncio.sleep(0)
            return (await there.add([a_task(key="k", payload=b"new", on_conflict=REPLACE)]))[0]

        answer, leased = await asyncio.gather(change(i), lease(here, oven))
        if not leased.assignments:
            await here.look_around()
            leased = await lease(here, oven)
        (assignment,) = leased.assignments

        assert answer.task_id == assignment.task_id == task_id
        assert (answer.outcome, assignment.payload) in [(REPLACED, Payload(b"new")), (EXISTING, Payload(b"old"))]
        await here.end([succeeded(assignment)])
