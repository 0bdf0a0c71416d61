"""Behind a pooler each transaction is limited as every connection is without one."""

from __future__ import annotations

from typing import Any

from taskq_server.clock import ManualClock
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.transaction import Transaction
from tests.store.conftest import RULES
from tests.support.pooler import Pooler


async def test_a_server_that_is_stopped_in_the_middle_keeps_no_locks_behind_a_pooler_either(
    postgres_url: str, clock: ManualClock
) -> None:
    def ask(tx: Transaction, names: list[str]) -> list[Any]:
        return [tx.connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]

    with Pooler(postgres_url) as pooler:
        store = await Postgres.open(pooler.url, clock, RULES, pooler=True)
        names = ["idle_in_transaction_session_timeout", "statement_timeout", "lock_timeout"]

        assert await store.write(ask, names) == ["3s", "5s", "2s"]

        await store.close()
