"""What administrators see of processors and capabilities, page by page."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from itertools import chain

from tests.rpc.support import microseconds, span
from tests.rpc.world import LEASE_SECONDS, World


async def test_processors_are_shown_as_they_registered_with_what_they_hold(world: World) -> None:
    processor = await world.processor("oven", can={"cook": 3, "bake": 0}, max_in_flight=7, labels={"zone": "eu"})
    began_us = world.clock.now_us()
    task_id = await world.scheduler.enqueue()
    task = await processor.take_one()
    world.clock.advance(5)
    await processor.heartbeat(task)

    response = await world.admin.processors()

    (shown,) = response.processors
    assert (shown.session_id, shown.processor_name, dict(shown.labels)) == (
        processor.session_id,
        "oven",
        {"zone": "eu"},
    )
    assert {one.name: one.max_in_flight for one in shown.capabilities} == {"cook": 3, "bake": 0}
    assert (shown.max_in_flight, shown.in_flight) == (7, 1)
    assert [(one.task_id, one.attempt, one.name, one.lease_time) for one in shown.held_tasks] == [
        (task_id, 1, "cook", task.lease_time)
    ]
    assert microseconds(shown.register_time) == began_us
    assert microseconds(shown.heartbeat_time) == began_us + 5_000_000 == microseconds(response.server_time)
    assert microseconds(shown.lease_expire_time) == began_us + 5_000_000 + round(LEASE_SECONDS * 1_000_000)
    assert not shown.HasField("drain")
    assert response.next_page_token == ""


async def test_pages_of_processors_hold_each_once_and_the_last_has_no_token(world: World) -> None:
    ids = [(await world.registered(f"oven-{i}")).session_id for i in range(5)]

    for size, lengths in ((2, [2, 2, 1]), (5, [5]), (4, [4, 1]), (0, [5]), (1_000_000, [5])):
        pages, token = [], None
        while token != "":
            response = await world.admin.processors(page_size=size, page_token=token or "")
            pages.append([one.session_id for one in response.processors])
            token = response.next_page_token
        assert [len(page) for page in pages] == lengths
        assert list(chain.from_iterable(pages)) == ids


async def test_fifty_are_shown_when_nothing_else_is_asked_for(world: World) -> None:
    for i in range(51):
        await world.admin.pause(f"name-{i:02}")

    first = await world.admin.capabilities()

    assert (len(first.capabilities), first.capabilities[-1].name) == (50, "name-49")
    rest = await world.admin.capabilities(page_token=first.next_page_token)
    assert [one.name for one in rest.capabilities] == ["name-50"]
    assert rest.next_page_token == ""


async def test_a_page_ends_before_its_message_is_too_large(world: World) -> None:
    labels = {f"{i:02}": "v" * 256 for i in range(64)}
    names = [f"{i:03}" + "n" * 125 for i in range(1_000)]
    for i in range(16):
        await world.registered(f"oven-{i}", can=names, labels=labels)

    pages = []
    token = None
    while token != "":
        response = await world.admin.processors(page_size=1_000, page_token=token or "")
        assert response.ByteSize() < 3 << 20
        pages.append([one.processor_name for one in response.processors])
        token = response.next_page_token

    assert len(pages) > 1
    assert list(chain.from_iterable(pages)) == [f"oven-{i}" for i in range(16)]


async def test_a_token_says_only_where_its_page_begins(world: World) -> None:
    for name in ("b", "a"):
        await world.admin.pause(name)

    response = await world.admin.capabilities(page_size=1)

    assert json.loads(urlsafe_b64decode(response.next_page_token)) == ["capabilities", "a"]


async def test_capabilities_tell_what_waits_what_runs_and_who_could_take_it(world: World) -> None:
    processor = await world.processor(can={"cook": 2, "bake": 0}, max_in_flight=5)
    due_us = world.clock.now_us()
    await world.scheduler.enqueue("cook")
    await processor.take_one()
    await world.admin.pause("cook", "why")
    await world.scheduler.enqueue("cook")
    await world.scheduler.enqueue("cook", delay=span(60))
    await world.scheduler.enqueue("nobody", delay=span(1))

    found = {one.name: one for one in (await world.admin.capabilities()).capabilities}

    assert list(found) == ["bake", "cook", "nobody"]
    bake, cook, nobody = found.values()
    assert (cook.due_tasks, cook.later_tasks, cook.running_tasks, cook.processors, cook.free_credits) == (1, 1, 1, 1, 1)
    assert (microseconds(cook.first_due_time), cook.pause.reason) == (due_us, "why")
    assert (bake.due_tasks, bake.later_tasks, bake.running_tasks, bake.processors, bake.free_credits) == (0, 0, 0, 1, 4)
    assert not bake.HasField("first_due_time") and not bake.HasField("pause")
    assert (nobody.due_tasks, nobody.later_tasks, nobody.processors, nobody.free_credits) == (0, 1, 0, 0)
    assert microseconds(nobody.first_due_time) == due_us + 1_000_000
