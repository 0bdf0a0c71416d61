"""Tasks are found by what a filter says of them, the same on every database, however far a look goes."""

from __future__ import annotations

import uuid

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.filter import parse
from taskq_server.core.recurring import Key
from taskq_server.core.task import Payload, TaskState
from taskq_server.store.store import Store
from taskq_server.store.verbs import looking
from taskq_server.store.verbs.firing_by_hand import Trigger
from taskq_server.store.verbs.looking import END, Look, Looked
from taskq_server.store.verbs.scheduling import Deletion
from tests.store.given import (
    NO_RETRY,
    a_processor,
    a_retry,
    a_schedule,
    a_task,
    added,
    end,
    failed,
    lease,
    minutes,
    running,
    seconds,
    succeeded,
    tamper,
)

MOST = 1_000


async def looked(
    store: Store, text: str, *, before: int = END, at_most: int = MOST, rows: int = MOST, only_count: bool = False
) -> Looked:
    return await store.look_at_tasks(Look(parse(text), before, at_most, rows, only_count))


async def ids_of(store: Store, text: str) -> list[bytes]:
    """The ids of all that match, the last first: the same as are counted, and as are found in small looks."""
    whole = await looked(store, text)
    assert whole.before is None
    ids = [one.task.task_id for one in whole.found]
    assert (await looked(store, text, only_count=True)).many == len(ids)
    before: int | None = END
    in_steps = []
    while before is not None:
        step = await looked(store, text, before=before, at_most=2, rows=3)
        assert step.before is None or step.before < before
        in_steps += [one.task.task_id for one in step.found]
        before = step.before
    assert in_steps == ids
    return ids


@pytest.fixture
async def kitchen(store: Store, clock: ManualClock) -> dict[str, bytes]:
    oven = await a_processor(store, "cook", "wash", name="oven")
    burnt, slow, done, retried = await running(
        store,
        oven,
        a_task(retry=NO_RETRY, tags=("hot", 'a "b"', "100%")),
        a_task("wash", retry=NO_RETRY, key="order-1"),
        a_task(payload=Payload(b"{}", "application/json"), tags=("hot", "x,y")),
        a_task(retry=a_retry(initial_delay_us=minutes(1)), priority=9, tags=("hotter",)),
    )
    clock.advance(1)
    await end(store, failed(burnt, "Burnt", message='It said: "Smoke!"\nand then 100% of Ärger'))
    await end(store, failed(slow, "BurntTwice", message="no steam"))
    await end(store, succeeded(done))
    await end(store, failed(retried, "Cold", message="smoke?"))
    (runs,) = await running(store, oven, a_task("wash", tags=("now",)))
    (waits, later, given_up) = await added(
        store,
        a_task("bake", requires=["zone = eu", "gpu exists"]),
        a_task("bake", due_in=minutes(60), expires_at=clock.now_us() + minutes(120)),
        a_task("bake.bread", priority=3),
    )
    await store.cancel([given_up])
    nightly = await store.create_schedule(a_schedule("nightly", "bake", every=seconds(60)))
    fired = uuid.uuid4().bytes
    await store.trigger_schedule(Trigger(Key(nightly.schedule_id), fired))
    names = "burnt", "slow", "done", "retried", "runs", "waits", "later", "given_up", "fired"
    ids = burnt.task_id, slow.task_id, done.task_id, retried.task_id, runs.task_id, waits, later, given_up, fired
    return dict(zip(names, ids, strict=True))


EVERYTHING = {"burnt", "slow", "done", "retried", "runs", "waits", "later", "given_up", "fired"}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", EVERYTHING),
        ("state:FAILED", {"burnt", "slow"}),
        ("state:CANCELLED", {"given_up"}),
        ("state:RUNNING", {"runs"}),
        ("state:SUCCEEDED", {"done"}),
        ("state:SCHEDULED", {"retried", "waits", "later", "fired"}),
        ("state:FAILED,CANCELLED", {"burnt", "slow", "given_up"}),
        ("state:FAILED,SUCCEEDED", {"burnt", "slow", "done"}),
        ("-state:SCHEDULED,SUCCEEDED", {"burnt", "slow", "runs", "given_up"}),
        ("state:FAILED state:CANCELLED", set()),
        ("is:due", {"waits", "fired"}),
        ("-is:due", EVERYTHING - {"waits", "fired"}),
        ("is:retrying", {"retried"}),
        ("is:due,retrying", {"waits", "fired", "retried"}),
        ("-is:due is:unfinished", {"retried", "later", "runs"}),
        ("-is:retrying is:unfinished", {"waits", "later", "runs", "fired"}),
        ("schedule:nightly is:due", {"fired"}),
        ("schedule:nightly is:finished", set()),
        ("schedule:nightly state:RUNNING,FAILED", set()),
        ("is:unfinished", {"retried", "waits", "later", "runs", "fired"}),
        ("is:finished", {"burnt", "slow", "done", "given_up"}),
        ("-is:finished", {"retried", "waits", "later", "runs", "fired"}),
        ("name:bake", {"waits", "later", "fired"}),
        ("name:bake*", {"waits", "later", "fired", "given_up"}),
        ("-name:bake*", {"burnt", "slow", "done", "retried", "runs"}),
        ("name:bake.*,wash", {"given_up", "slow", "runs"}),
        ("name:nothing", set()),
        ("name:bake state:SCHEDULED", {"waits", "later", "fired"}),
        ("name:cook state:FAILED", {"burnt"}),
        ("name:bake is:due", {"waits", "fired"}),
        ("requires:zone=eu", {"waits"}),
        ('requires:"gpu exists",zone=us', {"waits"}),
        ("requires:gpu", {"waits"}),
        ("requires:zone=us", set()),
        ("requires:*", {"waits"}),
        ("-requires:* name:bake*", {"later", "fired", "given_up"}),
        ("tag:hot", {"burnt", "done"}),
        ("tag:HOT", set()),
        ("tag:hot*", {"burnt", "done", "retried"}),
        ("tag:*", {"burnt", "done", "retried", "runs"}),
        ("-tag:*", {"slow", "waits", "later", "given_up", "fired"}),
        ("-tag:hot -tag:now", {"retried", "slow", "waits", "later", "given_up", "fired"}),
        (r'tag:"a \"b\""', {"burnt"}),
        ('tag:"100%"', {"burnt"}),
        ('tag:"1%"', set()),
        ("tag:y", set()),
        ('tag:"x,y",now', {"done", "runs"}),
        ("key:order-1", {"slow"}),
        ("key:order-*", {"slow"}),
        ("key:*", {"slow"}),
        ("-key:*", EVERYTHING - {"slow"}),
        ("content_type:application/*", {"done"}),
        ("-content_type:application/json", EVERYTHING - {"done"}),
        ("priority:9", {"retried"}),
        ("priority>0", {"retried", "given_up"}),
        ("priority:3,9 -priority>=9", {"given_up"}),
        ("attempt:0", {"waits", "later", "given_up", "fired"}),
        ("failed_attempts>=1", {"burnt", "slow", "retried"}),
        ("due_time>now+59m", {"later"}),
        ("due_time<now", {"burnt", "slow", "done"}),
        ("due_time<=now+1m state:SCHEDULED", {"waits", "retried", "fired"}),
        ("enqueue_time<now", {"burnt", "slow", "done", "retried"}),
        ("enqueue_time>=now name:bake*", {"waits", "later", "given_up", "fired"}),
        ("expire_time:*", {"later"}),
        ("-expire_time>now", EVERYTHING - {"later"}),
        ("finish_time:*", {"burnt", "slow", "done", "given_up"}),
        ("finish_time<=now", {"burnt", "slow", "done", "given_up"}),
        ("lease_time<now", {"burnt", "slow", "done", "retried"}),
        ("lease_time:* -state:FAILED", {"done", "retried", "runs"}),
        ("processor:oven", {"burnt", "slow", "done", "retried", "runs"}),
        ("-processor:ov*", {"waits", "later", "given_up", "fired"}),
        ("error:SMOKE", {"burnt", "retried"}),
        ('error:"said: \\"smoke!"', {"burnt"}),
        ("error:100%", {"burnt"}),
        ("error:1_0", set()),
        ("error:Ärger", {"burnt"}),
        ("error:ärger", set()),
        ("error:cold,steam", {"retried", "slow"}),
        ("error:*", {"burnt", "slow", "retried"}),
        ("-error:smoke is:finished", {"slow", "done", "given_up"}),
        ("error_type:Burnt", {"burnt"}),
        ("error_type:Burnt*", {"burnt", "slow"}),
        ("error_type:burnt", set()),
        ("-error_type:Burnt state:FAILED", {"slow"}),
        ("schedule:nightly", {"fired"}),
        ("schedule:night*", {"fired"}),
        ("schedule:*", {"fired"}),
        ("-schedule:nightly state:SCHEDULED", {"waits", "later", "retried"}),
        ("schedule:daily", set()),
        ("rerun_of:*", set()),
        ("-rerun_of:*", EVERYTHING),
        ("rerun_of:019353a4-5b67-7cc2-9d1a-4b7e1c8f2a10", set()),
        ("id:019353a4-5b67-7cc2-9d1a-4b7e1c8f2a10", set()),
        ("-id:019353a4-5b67-7cc2-9d1a-4b7e1c8f2a10", EVERYTHING),
    ],
)
async def test_a_filter_finds_what_it_says(store: Store, kitchen: dict[str, bytes], text: str, meant: set[str]) -> None:
    ids = await ids_of(store, text)

    names = {task_id: name for name, task_id in kitchen.items()}
    assert {names[task_id] for task_id in ids} == meant
    order = list(kitchen.values())
    assert ids == sorted(ids, key=order.index, reverse=True)


async def test_of_more_schedules_than_are_listed_none_is_left_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedules = [await store.create_schedule(a_schedule(f"nightly.{i}", every=seconds(60))) for i in range(3)]
    fired = [uuid.uuid4().bytes for _ in schedules]
    for schedule, task_id in zip(schedules, fired, strict=True):
        await store.trigger_schedule(Trigger(Key(schedule.schedule_id), task_id))
    (other,) = await added(store, a_task())
    monkeypatch.setattr("taskq_server.store.verbs.asking.terms.MOST_IN_LIST", 2)

    assert await ids_of(store, "-schedule:nightly.*") == [other]
    assert set(await ids_of(store, "schedule:nightly.*")) == set(fired)
    assert await ids_of(store, "-schedule:nightly.0,nightly.1") == [other, fired[2]]


async def test_a_task_of_a_schedule_that_was_deleted_is_of_some_schedule_and_of_none_by_name(store: Store) -> None:
    nightly = await store.create_schedule(a_schedule("nightly", every=seconds(60)))
    fired = uuid.uuid4().bytes
    await store.trigger_schedule(Trigger(Key(nightly.schedule_id), fired))

    await store.delete_schedule(Deletion(Key(nightly.schedule_id)))

    assert await ids_of(store, "schedule:nightly") == []
    assert await ids_of(store, "-schedule:nightly") == await ids_of(store, "schedule:*") == [fired]


async def test_a_task_is_found_by_its_id_and_by_what_it_is_a_rerun_of(store: Store, kitchen: dict[str, bytes]) -> None:
    await tamper(
        store, "UPDATE task SET rerun_of = :old WHERE task_id = :new", old=kitchen["burnt"], new=kitchen["waits"]
    )

    ids = uuid.UUID(bytes=kitchen["burnt"]), uuid.UUID(bytes=kitchen["done"])
    assert await ids_of(store, f"id:{ids[0]},{ids[1]}") == [kitchen["done"], kitchen["burnt"]]
    assert await ids_of(store, f"id:{ids[0]},{ids[1]} state:FAILED") == [kitchen["burnt"]]
    assert await ids_of(store, f"rerun_of:{ids[0]}") == await ids_of(store, "rerun_of:*") == [kitchen["waits"]]
    assert kitchen["waits"] not in await ids_of(store, f"-rerun_of:{ids[0]}")


async def test_what_may_be_large_is_not_read(store: Store) -> None:
    await added(store, a_task(payload=Payload(b"x", "text/plain", {"k": "v"}), headers={"h": "v"}, tags=("t",)))

    ((_, task),) = (await looked(store, "")).found

    assert (task.payload, task.headers, task.tags, task.state) == (None, {}, ("t",), TaskState.SCHEDULED)


async def test_a_look_ends_after_so_many_tasks_and_the_next_goes_on(store: Store) -> None:
    ids = await added(store, *(a_task(tags=("first",) if i == 0 else ()) for i in range(10)))

    first = await looked(store, "tag:first", rows=4)
    second = await looked(store, "tag:first", rows=4, before=first.before or 0)
    third = await looked(store, "tag:first", rows=4, before=second.before or 0)

    assert [len(one.found) for one in (first, second, third)] == [0, 0, 1]
    assert third.found[0].task.task_id == ids[0]
    assert (third.before, first.before is not None, second.before is not None) == (None, True, True)


async def test_what_an_index_names_is_looked_at_whole_unless_it_is_much(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, *_ = await added(store, *(a_task() for _ in range(3)))
    oven = await a_processor(store)
    for one in (await lease(store, oven, slots=100)).assignments:
        if one.task_id != old:
            await end(store, succeeded(one))
    await added(store, a_task(due_in=minutes(1)))

    few = await looked(store, "is:unfinished name:cook -state:SCHEDULED", rows=2)
    monkeypatch.setattr(looking, "MOST_BY_INDEX", 0)
    many = await looked(store, "is:unfinished name:cook -state:SCHEDULED", rows=2)

    assert ([one.task.task_id for one in few.found], few.before) == ([old], None)
    assert many.found == []
    assert many.before is not None
    assert await ids_of(store, "is:unfinished -state:SCHEDULED") == [old]


async def test_pages_follow_each_other_though_tasks_come_and_go(store: Store) -> None:
    ids = await added(store, *(a_task() for _ in range(4)))
    first = await looked(store, "", at_most=2)
    await added(store, a_task())
    await tamper(store, "DELETE FROM task WHERE task_id = :gone", gone=ids[1])

    second = await looked(store, "", at_most=2, before=first.before or 0)

    assert [one.task.task_id for one in (*first.found, *second.found)] == [ids[3], ids[2], ids[0]]
    assert second.before is None


async def test_a_row_that_cannot_be_read_hides_no_other(store: Store, kitchen: dict[str, bytes]) -> None:
    await tamper(
        store,
        "UPDATE task SET tags = '[\"hot', last_failure = '[\"Burnt\",\"smoke' WHERE task_id = :id",
        id=kitchen["burnt"],
    )

    assert await ids_of(store, "tag:hot") == [kitchen["done"]]
    assert await ids_of(store, "error:smoke") == [kitchen["retried"]]
    assert kitchen["burnt"] in await ids_of(store, "-tag:hot")
    assert kitchen["burnt"] in await ids_of(store, "state:FAILED")
