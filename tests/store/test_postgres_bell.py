"""Rings between servers: a hint, heard by the others and never by oneself, that a look is worth it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from taskq_server.store.postgres import bell
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.verbs.living import Sign
from tests.store.conftest import Servers
from tests.store.given import LEASE, Processor, a_processor, a_task, added, leased_ids
from tests.store.rivals import end_connections
from tests.support.console import Console
from tests.support.waiting import until_async


class Ears:
    """What a server hears of the others."""

    def __init__(self, store: Postgres) -> None:
        self.rings = 0
        store.on_ring = self._ring

    def _ring(self) -> None:
        self.rings += 1

    async def hear(self) -> None:
        """Returns once there is a ring that was not heard before."""
        await until_async(lambda: self.rings, "a ring")
        self.rings = 0


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who has rung, once for each ring that was sent."""
    sent: list[str] = []
    execute = asyncpg.Connection.execute

    async def note(connection: asyncpg.Connection, query: str, *values: Any, **options: Any) -> str:
        answer: str = await execute(connection, query, *values, **options)
        if "pg_notify" in query:
            sent.append(values[1])
        return answer

    monkeypatch.setattr(asyncpg.Connection, "execute", note)
    return sent


@pytest.fixture
async def two(
    servers: Servers, console: Console, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[Postgres, Ears, Postgres, Ears]:
    """Two who hear each other, and their ears. Each has rung for its arrival, and that is not on the way any more."""
    monkeypatch.setattr(bell, "RING_SECONDS", 0.0)
    here, there = await servers(2)
    await until_async(lambda: here.listening and there.listening and len(sent) == 2, "both have come")
    at_home, abroad = Ears(here), Ears(there)
    console.run(f"NOTIFY {bell.CHANNEL}, 'the last of all until now'")
    await at_home.hear()
    await abroad.hear()
    sent.clear()
    return here, at_home, there, abroad


async def test_a_server_rings_for_the_others_when_it_has_changed_a_task(
    two: tuple[Postgres, Ears, Postgres, Ears], sent: list[str]
) -> None:
    here, _, _, abroad = two
    oven = await a_processor(here)
    for i, change in enumerate(CHANGES, 1):
        await change(here, oven)
        await abroad.hear()
        assert sent == [str(here.server_seq)] * i


CHANGES: list[Callable[[Postgres, Processor], Awaitable[Any]]] = [
    lambda store, oven: added(store, a_task(), a_task()),
    lambda store, oven: leased_ids(store, oven, slots=1),
    lambda store, oven: store.unregister(oven.seq),
]


async def test_what_leaves_another_something_to_hear_rings_though_no_task_has_changed(
    two: tuple[Postgres, Ears, Postgres, Ears], sent: list[str]
) -> None:
    here, at_home, there, _ = two
    oven = await a_processor(here)

    await there.take_over(oven.session_id)

    await at_home.hear()
    assert sent == [str(there.server_seq)]


async def test_what_changes_nothing_does_not_ring(two: tuple[Postgres, Ears, Postgres, Ears], sent: list[str]) -> None:
    here, _, _, abroad = two
    oven = await a_processor(here)
    await here.keep_alive(Sign(oven.seq, LEASE))
    await here.cancel([a_task().task_id])
    await leased_ids(here, oven)
    await here.reclaim()
    await here.prune(0)
    await here.renew()
    assert here._bell is not None and not here._bell._wanted.is_set()

    await added(here, a_task())
    await abroad.hear()
    assert sent == [str(here.server_seq)]


async def test_nobody_hears_himself(two: tuple[Postgres, Ears, Postgres, Ears], console: Console) -> None:
    here, at_home, _, abroad = two
    await added(here, a_task())
    await abroad.hear()
    assert at_home.rings == 0

    console.run(f"NOTIFY {bell.CHANNEL}, 'somebody else'")
    await until_async(lambda: at_home.rings, "what came after his own")
    assert at_home.rings == 1


async def test_what_happens_soon_after_a_ring_is_one_ring(
    two: tuple[Postgres, Ears, Postgres, Ears], sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _, _, abroad = two
    monkeypatch.setattr(bell, "RING_SECONDS", 0.5)
    await added(here, a_task())
    await abroad.hear()

    for _ in range(10):
        await added(here, a_task())
    await abroad.hear()

    assert sent == [str(here.server_seq)] * 2


async def test_after_its_connection_was_lost_a_server_listens_again_and_looks_for_what_it_has_missed(
    two: tuple[Postgres, Ears, Postgres, Ears], console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, at_home, there, abroad = two
    monkeypatch.setattr(bell, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(bell, "RECONNECT_SECONDS", 0.01)
    await added(here, a_task())  # to be told what its patience is now
    await abroad.hear()
    await added(there, a_task())
    await at_home.hear()
    end_connections(console)

    await abroad.hear()
    await at_home.hear()
    await until_async(lambda: here.listening and there.listening, "both listen again")
    await added(here, a_task())
    await abroad.hear()


async def test_a_server_alone_does_not_ring(servers: Servers) -> None:
    (here,) = await servers(1)
    assert here._bell is not None
    await until_async(lambda: here.listening and not here._bell._wanted.is_set(), "it has come")

    await added(here, a_task())

    assert not here._bell._wanted.is_set()
