"""Failures that are alike are counted together, until somebody says that they are resolved."""

from __future__ import annotations

from typing import Any

import grpc

from taskq.v1 import admin_task_pb2, audit_pb2, failure_group_pb2
from taskq_server import figures
from tests.rpc.support import RawProcessor, microseconds, refused, retrying, soon, span
from tests.rpc.test_stats import written
from tests.rpc.world import World

STACK = (
    'Traceback (most recent call last):\n  File "/app/kitchen/oven.py", line {}, in bake\n    raise Burnt\nBurnt: no'
)
NO_GROUP = "0123456789abcdef"


async def groups(world: World, **asked: Any) -> list[failure_group_pb2.FailureGroup]:
    return list((await page(world, **asked)).groups)


async def page(world: World, **asked: Any) -> failure_group_pb2.ListFailureGroupsResponse:
    request = failure_group_pb2.ListFailureGroupsRequest(**asked)
    return await soon(world.admin.stub.ListFailureGroups(request))  # type: ignore[no-any-return]


async def resolve(world: World, fingerprint: str, note: str = "") -> failure_group_pb2.FailureGroup:
    request = failure_group_pb2.ResolveFailureGroupRequest(fingerprint=fingerprint, note=note)
    return (await soon(world.admin.stub.ResolveFailureGroup(request))).group  # type: ignore[no-any-return]


async def fail(world: World, processor: RawProcessor, message: str = "", name: str = "cook", **failed: Any) -> str:
    """One more task fails for good; answers its id."""
    task_id = await world.scheduler.enqueue(name, retry_policy=retrying(max_attempts=1))
    task = await processor.take_one()
    await processor.fail(task, message=message, **failed)
    return task_id


async def test_failures_that_differ_in_their_figures_alone_are_one_group(world: World) -> None:
    processor = await world.processor()
    for i in range(3):
        await fail(world, processor, f"order {i} is burnt after {i}.5 s", stack=STACK.format(i))
        world.clock.advance(1)
    last = await fail(world, processor, "order 3 is burnt after 3.5 s", stack=STACK.format(7))
    await written(world)

    (group,) = await groups(world)

    assert (group.name, group.error_type, group.failures, group.failed_tasks) == ("cook", "Burnt", 4, 4)
    assert group.pattern == "order <n> is burnt after <n> s"
    assert group.last_message == "order 3 is burnt after 3.5 s"
    assert group.top_frame == "kitchen/oven.py:7 in bake"
    assert group.last_task_id == last
    assert microseconds(group.last_time) - microseconds(group.first_time) == 3_000_000
    assert group.processor_names == ["oven"]
    assert sum(hour.failures for hour in group.trend) == 4
    assert len(group.fingerprint) == 16


async def test_other_names_other_errors_other_words_and_other_frames_are_other_groups(world: World) -> None:
    processor = await world.processor(can=("cook", "bake"))
    await fail(world, processor, "burnt")
    await fail(world, processor, "burnt", "bake")
    await fail(world, processor, "burnt", error_type="Spilt")
    await fail(world, processor, "charred")
    await fail(world, processor, "burnt", stack=STACK.format(1))
    await written(world)

    assert len(await groups(world)) == 5
    assert [one.name for one in await groups(world, name="bake")] == ["bake"]


async def test_attempts_that_are_tried_again_count_and_their_task_is_not_failed(world: World) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue(retry_policy=retrying(60))
    await processor.fail(await processor.take_one())
    await written(world)
    (group,) = await groups(world)
    assert (group.failures, group.failed_tasks) == (1, 0)


async def test_what_the_server_itself_fails_is_grouped_too(world: World) -> None:
    processor = await world.processor()
    await world.scheduler.enqueue(run_timeout=span(5), retry_policy=retrying(max_attempts=1))
    await processor.take_one()
    await world.let_pass(6, processor)
    await written(world)
    (group,) = await groups(world)
    assert (group.error_type, group.failed_tasks) == ("RUN_TIMEOUT", 1)


async def test_the_one_seen_last_comes_first_a_page_at_a_time(world: World) -> None:
    processor = await world.processor()
    for word in ("charred", "raw", "spilt", "charred"):
        await fail(world, processor, word)
        world.clock.advance(1)
        await written(world)

    first = await page(world, page_size=2)
    rest = await page(world, page_size=2, page_token=first.next_page_token)

    assert [one.pattern for one in first.groups] == ["charred", "spilt"]
    assert [one.pattern for one in rest.groups] == ["raw"]
    assert not rest.next_page_token
    refusal = await refused(page(world, page_token=first.next_page_token, include_resolved=True))
    assert list(refusal.faults) == ["page_token"]


async def test_a_group_that_was_resolved_is_listed_no_more_until_it_is_seen_again(world: World) -> None:
    processor = await world.processor()
    await fail(world, processor, "burnt")
    await written(world)
    (group,) = await groups(world)
    world.clock.advance(1)

    resolved = await resolve(world, group.fingerprint, "a new oven")
    assert resolved.resolve_note == "a new oven"
    assert microseconds(resolved.resolve_time) == world.clock.now_us()
    assert not await groups(world)
    assert await groups(world, include_resolved=True) == [resolved]

    world.clock.advance(1)
    await fail(world, processor, "burnt")
    await written(world)
    (again,) = await groups(world)
    assert (again.failures, again.resolve_note, again.HasField("resolve_time")) == (2, "", False)


async def test_what_had_failed_before_somebody_resolved_it_does_not_open_it_again(world: World) -> None:
    processor = await world.processor()
    await fail(world, processor, "burnt")
    await written(world)
    (group,) = await groups(world)
    await fail(world, processor, "burnt")
    world.clock.advance(1)
    await resolve(world, group.fingerprint)
    await written(world)
    assert not await groups(world)


async def test_the_groups_outlive_the_server(world: World) -> None:
    processor = await world.processor()
    await fail(world, processor, "burnt")
    await world.restart()
    (group,) = await groups(world)
    assert group.failures == 1


async def test_a_processor_whose_messages_are_all_different_makes_few_groups_a_round(
    world: World, monkeypatch: object
) -> None:
    processor = await world.processor()
    monkeypatch.setattr(figures, "MOST_GROUPS", 3)  # type: ignore[attr-defined]
    await written(world)
    for word in ("a", "b", "c", "d", "e"):
        world.server.figures._summed_at = 1 << 60  # no round comes between
        await fail(world, processor, word)
    await written(world)
    assert sorted(one.pattern for one in await groups(world)) == ["a", "b", "c"]


async def test_what_is_no_group_cannot_be_resolved(world: World) -> None:
    refusal = await refused(resolve(world, NO_GROUP))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "FAILURE_GROUP_NOT_FOUND")
    assert refusal.facts == {"fingerprint": NO_GROUP}
    for fingerprint, note, field in (("x", "", "fingerprint"), (NO_GROUP, "n" * 1_025, "note")):
        assert list((await refused(resolve(world, fingerprint, note))).faults) == [field]
    assert list((await refused(page(world, page_token="x", name="a b"))).faults) == ["page_token", "name"]


async def filtered(world: World, filter: str) -> set[str]:
    request = admin_task_pb2.ListTasksRequest(filter=filter)
    return {one.task_id for one in (await soon(world.admin.stub.ListTasks(request))).tasks}


async def test_the_tasks_that_have_failed_so_are_found_by_the_fingerprint(world: World) -> None:
    processor = await world.processor()
    burnt = {await fail(world, processor, f"order {i} is burnt") for i in range(3)}
    spilt = await fail(world, processor, "spilt")
    waits = await world.scheduler.enqueue("nobody")
    await written(world)
    fingerprint = next(one.fingerprint for one in await groups(world) if one.pattern == "order <n> is burnt")

    assert await filtered(world, f"failure:{fingerprint}") == burnt
    assert await filtered(world, f"failure:{fingerprint[:8]}*") == burnt
    assert await filtered(world, f"-failure:{fingerprint}") == {spilt, waits}
    assert await filtered(world, f"failure:{fingerprint} state:SUCCEEDED") == set()
    assert await filtered(world, "failure:*") == {*burnt, spilt}


async def test_who_resolved_a_group_stands_in_the_audit(world: World) -> None:
    processor = await world.processor()
    await fail(world, processor, "burnt")
    await written(world)
    (group,) = await groups(world)
    await resolve(world, group.fingerprint, "a new oven")
    (entry,) = (await soon(world.admin.stub.ListAuditEntries(audit_pb2.ListAuditEntriesRequest()))).entries
    assert (entry.action, entry.target) == ("AdminService/ResolveFailureGroup", group.fingerprint)
    assert "a new oven" in str(entry)
