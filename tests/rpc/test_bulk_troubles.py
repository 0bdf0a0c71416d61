"""An operation that cannot go on says why, and keeps no other from going on; one that takes its time leaves as much to
the others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from taskq_server import bulk
from taskq_server.core.bulk_operation import Action, ActionKind, NewOperation
from taskq_server.store.verbs.bulk import MOST_TURNS, Step
from taskq_server.task_id import to_text
from tests.rpc.operations import CANCEL, GOING_ON, done, ended, get, later, start
from tests.rpc.support import CANCELLED, soon
from tests.rpc.world import World


async def a_newer_servers(world: World) -> str:
    """An operation whose filter this version does not understand."""
    asked = NewOperation(os.urandom(16), b"h" * 16, Action(ActionKind.CANCEL), "colour:red", place=1)
    await world.server._store.start_operation(asked)
    return to_text(asked.operation_id)


async def test_what_this_version_does_not_understand_keeps_no_other_operation_from_its_end(world: World) -> None:
    ids = await later(world, 5)
    unknown = [await a_newer_servers(world) for _ in range(MOST_TURNS + 1)]

    assert (await done(world, CANCEL, filter="name:cook")).done_tasks == 5

    assert set(await world.scheduler.states(ids)) == {CANCELLED}
    shown = await get(world, unknown[0])
    assert shown.state == GOING_ON
    (why,) = shown.skipped_samples
    assert why.startswith("the operation waits: must have one of the keys")


async def test_what_has_failed_goes_on_by_itself_when_it_can(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await later(world, 5)
    advance, fails = world.server._store.advance, True

    async def sometimes(step: Step) -> Any:
        if fails:
            raise RuntimeError("no")
        return await advance(step)

    monkeypatch.setattr(world.server._store, "advance", sometimes)
    operation = await start(world, CANCEL, filter="name:cook")
    while not (shown := await get(world, operation.operation_id)).skipped_samples:
        pass
    assert list(shown.skipped_samples) == [
        "the operation waits: an unexpected error (RuntimeError), which the server's log has"
    ]

    fails = False
    world.clock.advance(us=bulk.SPARE_US)

    shown = await soon(ended(world, operation.operation_id))
    assert (shown.done_tasks, list(shown.skipped_samples)) == (5, [])


async def test_the_others_are_let_go_on_for_as_long_as_looks_have_taken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await later(world, 5)
    monkeypatch.setattr(bulk, "LOOKED_AT", 2)
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    def slow(verb: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
        async def slowly(asked: Any) -> Any:
            await asyncio.sleep(0.05)  # at least
            return await verb(asked)

        return slowly

    monkeypatch.setattr(bulk, "pause", note)
    for name in ("look_at_tasks", "next_steps"):
        monkeypatch.setattr(world.server._store, name, slow(getattr(world.server._store, name)))

    await done(world, CANCEL, filter="priority>=0")

    assert len(pauses) == 3, "between three looks that count, and after the batch"
    assert min(pauses) >= 0.05
