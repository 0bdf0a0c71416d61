"""What was leased already costs nothing, though somebody keeps PostgreSQL from removing what it was before."""

from __future__ import annotations

import json
from typing import Any

from taskq_server.clock import ManualClock
from taskq_server.store.postgres.sql import _DUE
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.transaction import Transaction
from tests.store.conftest import Servers
from tests.store.given import a_processor, a_task, added, lease, leased_ids, succeeded
from tests.store.rivals import holding
from tests.support.console import Console

MANY = 3_000
FEW_PAGES = 40


async def pages_of_a_look(store: Postgres) -> int:
    """How many pages are touched in looking for what is due, from where this server knows that it waits."""
    (route_id,) = store.routes
    ((priority, known_us),) = store.memory.waiting.due(route_id, store._clock.now_us())

    def explain(tx: Transaction, items: list[None]) -> list[int]:
        tx.connection.exec_driver_sql(f"PREPARE look AS {_DUE}")
        values = f"'{{{route_id}}}', '{{{known_us}}}', '{{10}}', {priority}, {tx.now_us}, {tx.now_us}"
        plan: Any = tx.connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE look ({values})"
        ).scalar()
        plan = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
        return [plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]]

    return (await store.write(explain, [None]))[0]


async def test_a_look_for_what_is_due_passes_over_what_was_leased_before(
    servers: Servers, clock: ManualClock, console: Console
) -> None:
    (store,) = await servers(1)
    oven = await a_processor(store, slots=MANY)
    with holding(console, "SELECT pg_current_xact_id()"):  # an old transaction, for which nothing may be removed
        await added(store, *(a_task(due_in=i) for i in range(MANY)))
        for _ in range(3):
            clock.advance(us=MANY // 3)
            await store.end([succeeded(one) for one in (await lease(store, oven)).assignments])
        (last,) = await added(store, a_task())

        assert await pages_of_a_look(store) < FEW_PAGES
        assert await leased_ids(store, oven) == [last]
